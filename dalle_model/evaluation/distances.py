"""Distances between two sets of pictures, given as features of any network; in double precision.

A distance is named for its formula alone: FID is `Frechet` on Inception's features, CMMD is `gaussian_mmd` on
those of CLIP ViT-L/14. On other features the same formula gives numbers that can be compared only with each
other.
"""

import numpy as np
from numpy.typing import NDArray

from dalle_model.evaluation.estimates import Estimate, Weights, distance_estimate

Features = NDArray[np.float64]
"""[N, E], a row for each picture."""

MAX_KERNEL = 4_000
"""Pictures of a set that a kernel distance takes, the first ones: its memory grows with their square."""
GAUSSIAN_SIGMA, GAUSSIAN_SCALE = 10.0, 1_000.0
"""As in CMMD (Jayasumana et al. 2024), for features of unit length."""


def as_features(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[Features, Features]:
    """Both sets in double precision.

    Raises `ValueError` for a set of fewer than two pictures, features of different lengths, or ones that are
    not numbers.
    """
    for features in (first, second):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"a set of pictures has features of shape {list(features.shape)}, but a distance takes two sets of at least two"
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"{int((~np.isfinite(features)).any(1).sum())} of {len(features)} pictures have features that are not numbers; "
                "the network that made them is damaged or did not converge: train or choose another one"
            )
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features of lengths {first.shape[1]} and {second.shape[1]} cannot be compared; take both from one network")
    return first.astype(np.float64), second.astype(np.float64)


def frechet(first: Features, second: Features, first_weights: Weights | None = None, second_weights: Weights | None = None) -> float:
    """Squared Fréchet distance of the normal distributions with the sets' means and covariances: FID's
    formula.

    Too large for few pictures, and the more so the longer the features; compare sets of equal sizes. Weights
    say how often each picture counts.
    """
    (mean, spread), (other_mean, other_spread) = _normal(first, first_weights), _normal(second, second_weights)
    # tr sqrt(A A' B B') is the sum of the singular values of A' B, which needs no square root of a product and is never complex.
    shared = np.linalg.svd(spread.T @ other_spread, compute_uv=False).sum()
    distance = np.square(mean - other_mean).sum() + np.square(spread).sum() + np.square(other_spread).sum() - 2 * shared
    return float(max(distance, 0.0))


def _normal(features: Features, weights: Weights | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean [E], and a matrix [E, K] whose product with its transpose is the unbiased covariance."""
    weights = np.ones(len(features)) if weights is None else weights
    mean = weights @ features / weights.sum()
    spread = ((features - mean) * np.sqrt(weights / (weights.sum() - 1))[:, None]).T
    if spread.shape[1] > spread.shape[0]:
        values, vectors = np.linalg.eigh(spread @ spread.T)
        spread = vectors * np.sqrt(np.clip(values, 0, None))
    return mean, spread


def cubic_kernel(first: Features, second: Features) -> NDArray[np.float64]:
    """KID's kernel (x y / E + 1)^3, [N, M]."""
    kernel: NDArray[np.float64] = (first @ second.T / first.shape[1] + 1) ** 3
    return kernel


def gaussian_kernel(first: Features, second: Features) -> NDArray[np.float64]:
    """exp(-|x - y|^2 / 2 sigma^2), [N, M], with CMMD's sigma."""
    squares = np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * first @ second.T
    kernel: NDArray[np.float64] = np.exp(-squares.clip(0) / (2 * GAUSSIAN_SIGMA**2))
    return kernel


class KernelDistance:
    """The unbiased squared maximum mean discrepancy of two sets; kernels are computed once for any number of
    weights."""

    def __init__(self, within: NDArray[np.float64], within_second: NDArray[np.float64], between: NDArray[np.float64]) -> None:
        self.within, self.within_second, self.between = within, within_second, between

    def __call__(self, first_weights: Weights, second_weights: Weights) -> float:
        """May be below zero, as it is around zero on average for equal distributions."""
        between = first_weights @ self.between @ second_weights / (first_weights.sum() * second_weights.sum())
        return float(_within(self.within, first_weights) + _within(self.within_second, second_weights) - 2 * between)


def _within(kernel: NDArray[np.float64], weights: Weights) -> float:
    """The mean over pairs of different pictures."""
    pairs = weights.sum() ** 2 - np.square(weights).sum()
    return float((weights @ kernel @ weights - np.square(weights) @ kernel.diagonal()) / pairs)


def kid(first: Features, second: Features) -> KernelDistance:
    """KID's formula: unbiased, with the cubic kernel, over all pairs instead of subsets."""
    return KernelDistance(cubic_kernel(first, first), cubic_kernel(second, second), cubic_kernel(first, second))


def gaussian_mmd(first: Features, second: Features) -> KernelDistance:
    """CMMD's formula without its factor 1,000, and unbiased, so that small sets can be compared."""
    return KernelDistance(gaussian_kernel(first, first), gaussian_kernel(second, second), gaussian_kernel(first, second))


def all_distances(first: NDArray[np.floating], second: NDArray[np.floating]) -> dict[str, Estimate]:
    """`frechet`, `kid` and `cmmd` of features of unit length, with intervals. Raises what `as_features`
    raises.

    KID's kernel expects features of length sqrt(E), so they are scaled: it becomes (1 + cosine)^3.
    """
    first, second = as_features(first, second)
    number, other = len(first), len(second)
    some, others = first[:MAX_KERNEL], second[:MAX_KERNEL]
    length = np.sqrt(first.shape[1])
    cmmd = distance_estimate(gaussian_mmd(some, others), len(some), len(others))
    straight = distance_estimate(lambda weights, second_weights: frechet(first, second, weights, second_weights), number, other)
    return {
        "frechet": straight._replace(low=max(0.0, straight.low)),
        "kid": distance_estimate(kid(some * length, others * length), len(some), len(others)),
        "cmmd": Estimate(GAUSSIAN_SCALE * cmmd.value, GAUSSIAN_SCALE * cmmd.low, GAUSSIAN_SCALE * cmmd.high, cmmd.num_samples),
    }
