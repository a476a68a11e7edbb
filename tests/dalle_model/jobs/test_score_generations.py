"""A further CLIP scores stored pictures exactly as it would have scored them when they were made."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from dalle_datasets.prompts.read import text_prompts
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet, write_parquet
from dalle_datasets.store.schemas import GENERATION_EMBEDDINGS, GENERATIONS, PROMPTS, RERANK_SCORES
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.model import ClipConfig
from dalle_model.jobs import score_generations
from dalle_model.text import BpeTokenizer


@pytest.fixture
def made(tmp_path, networks, make_config, run_job):
    write_parquet(tmp_path / "prompts.parquet", text_prompts(["a red apple on white", "two blue cats on pink"]).prompts, PROMPTS)
    return run_job("generate_images", make_config(), {"prompts": "prompts.parquet", "prompts_id": "1", **networks})


def scores_of(tmp_path, result):
    return {row["generation_id"]: row for row in read_parquet(tmp_path / result["rerank_scores"], RERANK_SCORES).to_pylist()}


def test_the_same_clip_gives_the_same_scores_and_ranks(tmp_path, made, networks, make_config, run_job, monkeypatch):
    monkeypatch.setattr(score_generations, "PICTURES_AT_ONCE", 3)  # candidates of a prompt fall into several batches
    inputs = {"generations": made["generations"], "generations_run": made["run_id"], "clip": "clip", "clip_id": networks["clip_id"]}
    again = scores_of(tmp_path, run_job("score_generations", make_config(), inputs))
    rows = read_parquet(tmp_path / made["generations"], GENERATIONS).to_pylist()
    assert len(again) == len(rows) == 8
    for row in rows:
        assert again[row["generation_id"]]["clip_id"] == networks["clip_id"]
        assert again[row["generation_id"]]["clip_score"] == pytest.approx(row["clip_score"], abs=1e-5)
        assert again[row["generation_id"]]["rank"] == row["rank"]
    kept = read_parquet(Layout(tmp_path).run(made["run_id"]) / "image_embeddings.parquet", GENERATION_EMBEDDINGS)
    (run_dir,) = (tmp_path / "runs").glob("score-generations-*")
    found = read_parquet(run_dir / "image_embeddings.parquet", GENERATION_EMBEDDINGS)
    assert found["generation_id"] == kept["generation_id"]
    assert np.abs(np.array(found["image_embedding"].to_pylist()) - np.array(kept["image_embedding"].to_pylist())).max() < 2e-3


def test_ranks_among_equal_scores_and_mixed_prompts():
    """As `sampling.rerank.ranks` has them; the candidates of a prompt need not stand together."""
    table = pa.table({"prompt_id": ["b", "a", "b", "a", "b"], "clip_score": np.array([0.1, 0.5, 0.4, 0.5, 0.4], np.float32)})
    assert score_generations.rank_candidates(table)["rank"].to_pylist() == [3, 1, 1, 2, 2]


def test_another_clip_stands_beside_it(tmp_path, made, make_config, run_job):
    torch.manual_seed(9)
    other = save_clip(tmp_path / "other", build_clip(ClipConfig(vision_layers=1, text_layers=1), BpeTokenizer.load(tmp_path / "bpe")))
    inputs = {"generations": made["generations"], "generations_run": made["run_id"], "clip": "other", "clip_id": other}
    rows = scores_of(tmp_path, run_job("score_generations", make_config(), inputs))
    assert {row["clip_id"] for row in rows.values()} == {other}
    assert sorted(row["rank"] for row in rows.values()) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_clip_without_weights_is_an_error(tmp_path, made, make_config, run_job):
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; train or import the clip again"):
        run_job("score_generations", make_config(), {"generations": made["generations"], "clip": "clip", "clip_id": "x"})
