"""The second and third day of a data root: sixty new pictures cost the work of sixty, and ten that are withdrawn are gone everywhere."""

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_run, ingest_source
from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene, draw_scene
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters import measure
from dalle_datasets.filters.filter_pairs import FilterResult, filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import PAIRS
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.jobs import score_pairs, tokenize_captions, tokenize_images
from dalle_model.running.run_dir import execute, prepare
from flows.runtime.collected import collecting
from flows.runtime.upstream import find, inputs_of
from flows.train_transformer import choose_training_set
from tests.parts import read_parts

pytestmark = pytest.mark.slow

TINY = {
    "source.kind": "web_pages", "source.name": "mine", "shards.rows_per_part": 50,
    "download.runner": "threads", "download.allow_addresses": "127.0.0.1", "download.requests_per_s_per_host": 0,
    "tokenizer.vocab_size": 300, "tokenizer.max_text_tokens": 16,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 1, "transformer.num_heads": 2, "transformer.d_model": 16,
    "train_dvae.max_steps": 2, "train_clip.max_steps": 2, "train_clip.batch_size": 16,
    "train_transformer.max_steps": 2, "train_transformer.batch_size": 8,
}  # fmt: skip
TRAININGS = ("train_bpe", "train_dvae")
WORK = ("tokenize_images", "tokenize_captions", "score_pairs")


class Site:
    """A folder of pages with ten different scenes each, served on this machine."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self._pages: list[str] = []
        self._scenes = iter(random.Random(0).sample(all_scenes(), 200))

    def add(self, num_pages: int) -> None:
        for _ in range(num_pages):
            page = len(self._pages)
            figures = ""
            for i in range(10):
                scene = next(self._scenes)
                Image.fromarray(draw_scene(scene, 32)).save(self.folder / f"{page}-{i}.png")
                figures += f'<img src="{page}-{i}.png" alt="{caption_scene(scene, random.Random(10 * page + i))}">\n'
            self._pages.append(figures)
            self._write(f"{page}.html", figures)
        self._write("index.html", "".join(f'<a href="{i}.html">{i}</a>' for i in range(len(self._pages))))

    def opt_out(self, page: int) -> None:
        self._write(f"{page}.html", '<meta name="robots" content="noai">' + self._pages[page])

    def _write(self, name: str, text: str) -> None:
        """With a time of its own: a server tells pages apart by whole seconds."""
        path = self.folder / name
        before = path.stat().st_mtime if path.exists() else 0.0
        path.write_text(text)
        os.utime(path, (before + 10, before + 10))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "site"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Site(tmp_path / "site", f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


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
            ingest_source(con, layout, config.source.name)
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


def test_sixty_new_pictures_cost_the_work_of_sixty_and_ten_withdrawn_ones_none(tmp_path, site, worked_on):
    config = preset("demo", {**TINY, "paths.data_root": str(tmp_path / "data"), "source.start_urls": site.address})
    layout = Layout(tmp_path / "data")
    site.add(8)
    assert collect(config).num_pairs == 80
    run(config, *TRAININGS, "tokenize_images", "tokenize_captions", "train_clip", "score_pairs")
    first = choose_training_set.fn(config)
    run(config, "train_transformer")
    assert worked_on == dict.fromkeys(("measured", "pictures tokenised", "captions tokenised", "scored"), 80)
    networks = {role: find(role, config) for role in ("tokenizer", "dvae", "clip", "transformer")}
    parts = {path: path.read_bytes() for path in list_parts(layout.pairs("mine"))}
    trainings = {path.name for path in (tmp_path / "data" / "runs").glob("train-*")}

    site.add(6)
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

    site.opt_out(0)
    worked_on.clear()
    rows = read_parts(layout.pairs("mine"), PAIRS, ["pair_id", "image_url"]).to_pylist()
    withdrawn = {row["pair_id"] for row in rows if f"{site.address}0-" in row["image_url"]}
    assert len(withdrawn) == 10
    shrunk = collect(config, refresh=True)
    assert shrunk.num_pairs == 130
    run(config, *WORK)
    third = choose_training_set.fn(config)
    assert not worked_on.total(), "the pictures that stay are not measured again either"
    made = {kind: layout.root / find(kind, config)[kind] for kind in ("pairs", "image_tokens", "text_tokens", "clip_scores")}
    for folder in (*made.values(), layout.root / third["training_set"]):
        assert not withdrawn & {id for path in folder.rglob("*.parquet") for id in ids_in(path)}, folder
    assert withdrawn <= {id for path in list_parts(layout.root / second["training_set"]) for id in ids_in(path)}
    with connect(layout.catalog) as con:
        for table in ("pairs", "text_tokens", "clip_scores"):
            assert con.execute(f"select count(distinct pair_id) from {table}").fetchall() == [(130,)], table
        con.execute("select reason, count(*) from dropped_pairs where image_url like '%/0-_.png' group by 1")
        assert con.fetchall() == [("meta_robots", 10)]
        sizes = con.execute("select num_pairs from training_sets where training_set_id = ?", [third["training_set_id"]]).fetchall()
        assert sizes == [(130,)]
    fresh = preset("demo", {**TINY, "paths.data_root": str(tmp_path / "fresh"), "source.start_urls": site.address})
    assert collect(fresh).pairs_id == shrunk.pairs_id


def ids_in(part: Path) -> set[int]:
    """Pair ids in a part of anything."""
    return set(pq.read_table(part, columns=["pair_id"], partitioning=None)["pair_id"].to_pylist())
