"""Reranking keeps what CLIP prefers, and the figures that say how much it helps are right."""

import random

import numpy as np
import pytest
import torch

from dalle_datasets.demo.emoji_scenes import Scene, caption_scene, draw_scene
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.model import ClipConfig, TokenizerConfig
from dalle_model.sampling.rerank import best_of, bootstrap_interval, load_scorer, ranks, score_candidates
from dalle_model.text import BpeTokenizer

SCENES = [Scene("apple", color, "white", "big") for color in ("red", "green", "blue")]
CAPTIONS = [caption_scene(scene, random.Random(0)) for scene in SCENES]
IMAGES = torch.from_numpy(np.stack([draw_scene(scene, 32) for scene in SCENES])).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    torch.manual_seed(0)
    config = ClipConfig(image_size=32, patch_size=8, embed_width=32, width=32, head_width=16, vision_layers=1, text_layers=1)
    folder = tmp_path_factory.mktemp("clip") / "clip"
    save_clip(folder, build_clip(config, BpeTokenizer.train(CAPTIONS, TokenizerConfig(vocab_size=300, max_text_tokens=12))))
    return load_scorer(folder)


def test_scores_do_not_depend_on_the_batches(clip):
    whole = score_candidates(clip, CAPTIONS[0], [IMAGES])
    torch.testing.assert_close(score_candidates(clip, CAPTIONS[0], IMAGES.split(1)), whole)
    assert whole.shape == (3,)
    assert (whole.abs() <= 1).all()


def test_rank_1_is_the_best_and_ties_go_to_the_earlier():
    assert ranks(torch.tensor([0.1, 0.4, 0.2, 0.4])).tolist() == [4, 1, 3, 2]


def test_a_score_that_is_no_number_is_the_worst():
    assert ranks(torch.tensor([float("nan"), 0.4, -0.2])).tolist() == [3, 1, 2]
    right, scores = np.array([[1.0, 0.0]]), np.array([[np.nan, 0.4]])
    assert best_of(right, scores, 2).tolist() == [0.0]


def test_best_of_n_averages_the_winners_of_disjoint_groups():
    right = np.array([[0.0, 1.0, 0.0, 0.0, 1.0]])
    scores = np.array([[0.1, 0.9, 0.8, 0.7, 1.0]])
    assert best_of(right, scores, 1) == pytest.approx([0.4])
    assert best_of(right, scores, 2) == pytest.approx([0.5])  # winners: candidate 1 (right), candidate 2 (wrong); the fifth is left over
    assert best_of(right, scores, 5) == pytest.approx([1.0])


def test_a_scorer_that_knows_nothing_does_not_lift():
    rng = np.random.default_rng(1)
    right = (rng.random((400, 32)) < 0.3).astype(float)
    lift = best_of(right, rng.random((400, 32)), 8) - right.mean(1)
    _, low, high = bootstrap_interval(lift)
    assert low < 0 < high


def test_a_scorer_that_knows_everything_finds_every_right_candidate():
    rng = np.random.default_rng(2)
    right = (rng.random((50, 16)) < 0.2).astype(float)
    assert best_of(right, right, 16) == pytest.approx(right.max(1))


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(3).normal(1.0, 2.0, 400)
    mean, low, high = bootstrap_interval(values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert bootstrap_interval(values) == (mean, low, high)
