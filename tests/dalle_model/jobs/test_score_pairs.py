"""Every pair gets the raw cosine of its caption and its picture, and a killed run continues."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import CLIP_SCORES, PAIRS
from dalle_model.clip import build_clip, cosine, save_clip
from dalle_model.config.model import ClipConfig, TokenizerConfig
from dalle_model.sampling.rerank import load_scorer
from dalle_model.text import BpeTokenizer
from tests.parts import read_parts


@pytest.fixture
def inputs(tmp_path, pairs):
    torch.manual_seed(0)
    tokenizer = BpeTokenizer.train(["a red apple on white"], TokenizerConfig(vocab_size=270, max_text_tokens=40))
    config = ClipConfig(image_size=32, patch_size=8, embed_width=32, width=32, head_width=16, vision_layers=1, text_layers=1)
    return {**pairs, "clip": "clip", "clip_id": save_clip(tmp_path / "clip", build_clip(config, tokenizer))}


def test_scores_are_cosines_of_caption_and_picture(tmp_path, inputs, make_config, run_job):
    result = run_job("score_pairs", make_config(), inputs)
    rows = read_parts(tmp_path / result["clip_scores"], CLIP_SCORES).to_pylist()
    scores = {row["pair_id"]: row["clip_score"] for row in rows}
    embeddings = {row["pair_id"]: np.array(row["image_embedding"], np.float32) for row in rows}
    pairs = read_parts(tmp_path / "pairs" / "emoji", PAIRS).to_pylist()
    assert result["num_scores"] == len(scores) == 60
    assert result["mean_score"] == pytest.approx(np.mean(list(scores.values())), abs=1e-6)
    clip = load_scorer(tmp_path / "clip")
    for pair in pairs[:5]:
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(pair["image"])))).permute(2, 0, 1)[None] / 255
        expected = float(cosine(clip.encode_images(pixels), clip.encode_texts([pair["caption"]])))
        assert scores[pair["pair_id"]] == pytest.approx(expected, abs=1e-5)
        assert np.abs(embeddings[pair["pair_id"]] - clip.encode_images(pixels)[0].numpy()).max() < 1e-3


def test_an_interrupted_run_keeps_the_parts_it_finished(tmp_path, inputs, make_config, run_job):
    result = run_job("score_pairs", make_config(), inputs)
    parts = list_parts(tmp_path / result["clip_scores"])
    before = [(part.read_bytes(), part.stat().st_mtime_ns) for part in parts]
    parts[1].unlink()
    (Layout(tmp_path).run(result["run_id"]) / "result.json").unlink()
    again = run_job("score_pairs", make_config(), inputs)
    assert [part.read_bytes() for part in parts] == [content for content, _ in before]
    assert [parts[i].stat().st_mtime_ns for i in (0, 2)] == [before[i][1] for i in (0, 2)]
    assert again["mean_score"] == result["mean_score"]


def test_a_clip_without_weights_is_an_error(tmp_path, inputs, make_config, run_job):
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; train or import the clip again"):
        run_job("score_pairs", make_config(), inputs)
