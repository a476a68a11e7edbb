"""Figures with their uncertainty: a value and the interval that a bootstrap gives it.

What is drawn anew are independent things, prompts or pictures, never the candidates of one prompt, which are
alike.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle_model.sampling.rerank import bootstrap_interval

Weights = NDArray[np.float64]
"""How often each thing was drawn; ones for the sample itself."""

DISTANCE_SAMPLES = 200
"""Bootstrap samples of a distance, each of which costs as much as the distance."""


class Estimate(NamedTuple):
    """A figure."""

    value: float
    low: float
    """Of the 95% interval; NaN where there is none, for fewer than two things."""
    high: float
    num_samples: int
    """Independent things it rests on."""


def mean_estimate(values: NDArray[np.float64]) -> Estimate:
    """The mean of one value per prompt or picture. Raises `ValueError` for none, or one that is not a
    number."""
    if not len(values):
        raise ValueError("a mean of no values was asked for; give at least one prompt or picture")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not numbers; the pictures or networks are damaged"
        )
    if len(values) == 1:
        return Estimate(float(values[0]), np.nan, np.nan, 1)
    return Estimate(*bootstrap_interval(values), len(values))


def share_estimate(shares: NDArray[np.float64] | NDArray[np.bool_]) -> Estimate:
    """The mean of one share in [0, 1] per prompt or picture; Wilson's interval where all are the same.

    A bootstrap would say that none of 24 is certain. Raises what `mean_estimate` raises.
    """
    found = mean_estimate(shares.astype(np.float64))
    if found.low < found.high:
        return found
    share, number, z = found.value, found.num_samples, 1.96
    centre, width = share + z**2 / (2 * number), z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    scale = 1 + z**2 / number
    return Estimate(share, max(0.0, float((centre - width) / scale)), min(1.0, float((centre + width) / scale)), number)


def distance_estimate(
    distance: Callable[[Weights, Weights], float], num_first: int, num_second: int, num_samples: int | None = None
) -> Estimate:
    """The distance of two samples, of which both are drawn anew with replacement, given as weights.

    A sample with repetitions lies further from anything than the sample itself, so the interval is the spread
    of the bootstrap's distances around their mean, put around the value.
    """
    rng, num_samples = np.random.default_rng(0), num_samples or DISTANCE_SAMPLES
    value = distance(np.ones(num_first), np.ones(num_second))
    drawn = [distance(_drawn(rng, num_first), _drawn(rng, num_second)) for _ in range(num_samples)]
    low, high = np.percentile(drawn, [2.5, 97.5]) - np.mean(drawn) + value
    return Estimate(value, float(low), float(high), min(num_first, num_second))


def _drawn(rng: np.random.Generator, number: int) -> Weights:
    while True:
        weights = rng.multinomial(number, np.full(number, 1 / number)).astype(np.float64)
        if np.count_nonzero(weights) > 1:  # one thing alone has no spread
            return weights
