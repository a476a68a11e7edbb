"""A further CLIP for pictures that exist: ours, another run's or a published one, and never random weights."""

import json

import pytest
import torch

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import RERANK_SCORES
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import execute, prepare
from flows.runtime.scorers import find_batch, score_batch


def run_job(job, config, inputs):
    return execute(job, prepare(job, config, inputs))


@pytest.fixture
def root(catalogued_root):
    return catalogued_root.layout.root


@pytest.fixture
def config(root):
    return preset("demo", {"paths.data_root": str(root)})


@pytest.fixture
def published(tmp_path):
    """A tiny model with random weights, in the format that open_clip publishes."""
    import open_clip

    torch.manual_seed(0)
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    torch.save(open_clip.CLIP(**tiny).state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def test_a_published_clip_ranks_pictures_that_exist_beside_the_one_that_made_the_choice(root, config, published):
    imported, scored = score_batch(config, None, f"local-dir:{published}", run_job)
    rows = read_parquet(root / scored["rerank_scores"], RERANK_SCORES)
    assert set(rows["clip_id"].to_pylist()) == {imported["clip_id"]}
    assert rows.num_rows == find_batch(Layout(root), None)["num_images"]
    (again,) = score_batch(config, "generate-images-8", imported["run_id"], run_job)
    assert again == scored
    from dalle_datasets.catalog import ingest, snapshot
    from dalle_datasets.catalog.connection import connect
    from dalle_datasets.catalog.queries import run_query

    layout = Layout(root)
    with connect(layout.catalog) as con:
        for result in (imported, scored):
            ingest.ingest_run(con, layout, layout.run(result["run_id"]))
    snapshot.publish(layout)
    sources = {(row["clip_id"], row["source"], row["is_own"]) for row in run_query(layout, "scorers").to_pylist()}
    assert sources == {("clip0", "our own", True), (imported["clip_id"], f"local-dir:{published}", False)}


@pytest.mark.parametrize(
    ("run_id", "clip", "message"),
    [
        (None, "ViT", r"clip 'ViT' is neither MODEL/TAG of open_clip, nor local-dir:PATH, nor a train-clip-… run; choose one of these"),
        (None, "ViT-B-32/no-such-weights", r"ViT-B-32 has no weights 'no-such-weights'; choose one of .*openai"),
        (None, "local-dir:/nowhere", r"open_clip_config\.json is not a readable open_clip configuration"),
        (None, "train-clip-none", r"train-clip-none holds no result\.json; correct the name, or let that run finish first"),
        ("generate-images-none", "", r"generate-images-none holds no result\.json; correct the name"),
        ("train-clip-5", "", r"train-clip-5 made no pictures: it is a run of train_clip; name a generate-images-… run"),
        (None, "", r"run `dalle run \w+` with "),
    ],
)
def test_what_is_not_there_is_an_error(config, run_id, clip, message):
    with pytest.raises(ValueError, match=message):
        score_batch(config, run_id, clip, run_job)


def test_without_weights_there_are_no_scores(config, published):
    (published / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"clip\.pretrained='local-dir:.*': its weights could not be loaded"):
        score_batch(config, None, f"local-dir:{published}", run_job)


def test_without_pictures_there_is_nothing_to_score(tmp_path):
    with pytest.raises(ValueError, match="runs holds no finished batch of pictures; make one with `dalle generate`"):
        score_batch(preset("demo", {"paths.data_root": str(tmp_path)}), None, "", run_job)
