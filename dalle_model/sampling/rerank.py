"""Reranking of N candidates by CLIP (section 2.6), and the gain of choosing the best of n."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle_model.clip import Clip, cosine, load_clip
from dalle_model.text import BpeTokenizer

BOOTSTRAP_SAMPLES = 2_000
MAX_DRAWN = 2**20
"""Values that a bootstrap draws at once."""
GROUP_SIZES = (1, 4, 8, 16, 32, 64, 128, 256, 512)
"""The n of "best of n" in tables, as far as there are candidates."""


def load_scorer(directory: Path) -> Clip:
    """A CLIP ready for scoring. Raises `ValueError` when it is missing or damaged: never a silent random ranking."""
    return load_clip(directory, BpeTokenizer.load)


def score_candidates(clip: Clip, caption: str, batches: Iterable[Tensor]) -> Tensor:
    """Raw cosine similarity, float32 [N] on the CPU, of a caption with its N candidates.

    The candidates come in batches [B, 3, H, W] in [0, 1], so that only one batch is in memory. The text is encoded once.
    """
    return score_embeddings(clip, caption, embed_candidates(clip, batches))


def embed_candidates(clip: Clip, batches: Iterable[Tensor]) -> Tensor:
    """Embeddings of unit length, float32 [N, E] on the CPU, of candidates that come in batches [B, 3, H, W] in [0, 1]."""
    return torch.cat([clip.encode_images(images).float().cpu() for images in batches])


def score_embeddings(clip: Clip, caption: str, embeddings: Tensor) -> Tensor:
    """Raw cosine similarity, float32 [N] on the CPU, of a caption with the embeddings [N, E] of its candidates."""
    return cosine(embeddings, clip.encode_texts([caption]).float().cpu())


def ranks(scores: Tensor) -> Tensor:
    """1 for the best score, N for the worst, int64 [N]; among equal scores the earlier candidate is better, and NaN is the worst."""
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(1, len(order) + 1)
    return places


def best_of(right: NDArray[np.float64], scores: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """What one gets on average by keeping the best-scored of n candidates, for each prompt [P].

    `right` and `scores` are [P, N]. The N candidates are cut into disjoint groups of n, whose winners are averaged: less noise
    than the first n alone, and still independent draws. n = 1 is the mean of all candidates, as without reranking.
    """
    num_prompts, num_candidates = right.shape
    num_groups = num_candidates // n
    shape = (num_prompts, num_groups, n)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    winners = scores[:, : num_groups * n].reshape(shape).argmax(2)
    kept = np.take_along_axis(right[:, : num_groups * n].reshape(shape), winners[..., None], 2)
    means: NDArray[np.float64] = kept[..., 0].mean(1)
    return means


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float, float]:
    """Mean of one value per prompt, and the 95% interval of that mean over prompts drawn with replacement."""
    rng, number = np.random.default_rng(seed), len(values)
    at_once = max(1, min(BOOTSTRAP_SAMPLES, MAX_DRAWN // number))
    samples = [min(at_once, BOOTSTRAP_SAMPLES - start) for start in range(0, BOOTSTRAP_SAMPLES, at_once)]
    means = np.concatenate([values[rng.integers(0, number, (some, number))].mean(1) for some in samples])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
