"""The second day of a data root: sixty new pictures cost the work of sixty, whatever else is there, and nothing is trained."""

import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_pairs, ingest_run
from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene, draw_scene
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters import measure
from dalle_datasets.filters.filter_pairs import FilterResult, filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.jobs import score_pairs, tokenize_captions, tokenize_images
from dalle_model.running.run_dir import execute, prepare
from flows.runtime.collected import collecting
from flows.runtime.upstream import find, inputs_of
from flows.train_transformer import choose_training_set

pytestmark = pytest.mark.slow

TINY = {
    "source.kind": "image_folders", "source.name": "mine", "shards.rows_per_part": 50,
    "tokenizer.vocab_size": 300, "tokenizer.max_text_tokens": 16,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 1, "transformer.num_heads": 2, "transformer.d_model": 16,
    "train_dvae.max_steps": 2, "train_clip.max_steps": 2, "train_clip.batch_size": 16,
    "train_transformer.max_steps": 2, "train_transformer.batch_size": 8,
}  # fmt: skip
TRAININGS = ("train_bpe", "train_dvae")
WORK = ("tokenize_images", "tokenize_captions", "score_pairs")


def put_pictures(folder: Path, first: int, number: int) -> None:
    """Different scenes with their captions beside them."""
    folder.mkdir(exist_ok=True)
    scenes = random.Random(0).sample(all_scenes(), 200)
    for i in range(first, first + number):
        Image.fromarray(draw_scene(scenes[i], 32)).save(folder / f"{i:04}.png")
        (folder / f"{i:04}.txt").write_text(caption_scene(scenes[i], random.Random(i)))


def collect(config: Config, refresh: bool = False) -> FilterResult:
    layout = Layout(Path(config.paths.data_root))
    with collecting(layout, config):
        discover(config.source, config.download, layout, refresh=refresh)
        download_images(config.source, config.download, layout)
        return filter_pairs(config.source, config.download, config.filter, config.shards, layout)


def run(config: Config, *jobs: str) -> None:
    """Jobs as their flows run them, catalogued."""
    layout = Layout(Path(config.paths.data_root))
    for job in jobs:
        run_dir = prepare(job, config, inputs_of(job, config))
        execute(job, run_dir)
        with connect(layout.catalog) as con:
            ingest_pairs(con, layout, config.source.name)
            ingest_run(con, layout, run_dir)


@pytest.fixture
def worked_on(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was decoded, tokenised and scored: how many pairs each stage handled."""
    done: Counter[str] = Counter()

    def watch(module, name, what, size=lambda *arguments: 1):
        real = getattr(module, name)

        def counted(*arguments):
            done[what] += size(*arguments)
            return real(*arguments)

        monkeypatch.setattr(module, name, counted)

    watch(measure, "decode_and_check", "measured")
    watch(tokenize_images, "decode_image", "pictures tokenised")
    watch(tokenize_captions, "encode_pairs", "captions tokenised", lambda tokenizer, pairs: pairs.num_rows)
    watch(score_pairs, "centre", "scored")
    return done


def test_sixty_new_pictures_cost_the_work_of_sixty(tmp_path, worked_on):
    config = preset("demo", {**TINY, "paths.data_root": str(tmp_path / "data"), "source.inputs": str(tmp_path / "pictures")})
    layout = Layout(tmp_path / "data")
    put_pictures(tmp_path / "pictures", 0, 80)
    assert collect(config).num_pairs == 80
    run(config, *TRAININGS, "tokenize_images", "tokenize_captions", "train_clip", "score_pairs")
    first = choose_training_set.fn(config)
    run(config, "train_transformer")
    assert worked_on == dict.fromkeys(("measured", "pictures tokenised", "captions tokenised", "scored"), 80)
    networks = {role: find(role, config) for role in ("tokenizer", "dvae", "clip", "transformer")}
    parts = {path: path.read_bytes() for path in list_parts(layout.pairs("mine"))}
    trainings = {path.name for path in (tmp_path / "data" / "runs").glob("train-*")}

    put_pictures(tmp_path / "pictures", 80, 60)
    worked_on.clear()
    grown = collect(config, refresh=True)
    assert grown.num_pairs == 140
    assert {path: path.read_bytes() for path in parts} == parts
    with pytest.raises(ValueError, match="there is no text_tokens for these settings yet .* run `dalle run tokenize_pairs`"):
        choose_training_set.fn(config)
    run(config, *WORK)
    second = choose_training_set.fn(config)
    assert worked_on == dict.fromkeys(("measured", "pictures tokenised", "captions tokenised", "scored"), 60)
    assert {role: find(role, config) for role in networks} == networks
    assert inputs_of("generate_images", config, prompts="x")["transformer_id"] == networks["transformer"]["transformer_id"]
    assert {path.name for path in (tmp_path / "data" / "runs").glob("train-*")} == trainings
    assert second["training_set_id"] != first["training_set_id"]
    with connect(layout.catalog) as con:
        assert [row[0] for row in con.execute("select num_pairs from training_sets order by 1").fetchall()] == [80, 140]

    run(config, *WORK)
    assert choose_training_set.fn(config) == second, "nothing is left to do"
    assert worked_on["scored"] == 60
    fresh = preset("demo", {**TINY, "paths.data_root": str(tmp_path / "fresh"), "source.inputs": str(tmp_path / "pictures")})
    assert collect(fresh).pairs_id == grown.pairs_id
