"""Retrieval of a picture's caption among others, and the likeness of pictures to those that were learned
from."""

import numpy as np
from numpy.typing import NDArray

NUM_DISTRACTORS = 99
COPY_SHARE = 0.95
"""Share of tokens equal in place from which on a picture is a copy, as in the query `nearest_training_pairs`."""
MAX_COMPARISONS = 20_000_000_000
"""Pairs of tokens that a search for copies may compare: about a minute on one core."""


def first_among(num_better: NDArray[np.int64], num_others: int, num_distractors: int = NUM_DISTRACTORS) -> NDArray[np.float64]:
    """Probability that a caption comes first among itself and `num_distractors` others.

    `num_better` of the `num_others` are at least as like the picture. The distractors are drawn from these
    without replacement; this is the exact mean over all draws, so it has no noise of its own. Where there are
    fewer others, all of them are distractors.
    """
    drawn = min(num_distractors, num_others)
    places = np.arange(drawn, dtype=np.float64)
    # The product over the draws of the share of captions that are left and worse.
    left = np.clip(num_others - num_better[..., None] - places, 0, None) / (num_others - places)
    chances: NDArray[np.float64] = left.prod(-1)
    return chances


def most_equal(tokens: NDArray[np.uint16], others: NDArray[np.uint16]) -> NDArray[np.float64]:
    """For each picture's tokens [P, L] the largest share that agrees in place with those of any other picture
    [T, L]; 0 for none."""
    if not len(others):
        return np.zeros(len(tokens))
    return np.array([(others == own).mean(1).max() for own in tokens])
