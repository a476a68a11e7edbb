"""The share of what a transformer learned that holds for its training pictures alone, and from where on that is too much.

The one measure and the one threshold of `dalle diagnose`, the summary, the page, the model card and Prefect.
"""

from typing import Literal

NOTHING_LEARNED = 0.97
"""Share of the entropy of single tokens above which a network knows no more than how often each occurs."""
USUAL, MUCH = 0.10, 0.25
"""Shares learned by heart: up to the first a network is healthy, above the second it repeats rather than draws."""


def learned_by_heart(entropy: float, trained_on: float, kept_apart: float) -> float | None:
    """1 - (entropy - kept_apart) / (entropy - trained_on), from 0; all in nats per image token.

    `entropy` is what a token costs who knows only how often each occurs, `trained_on` and `kept_apart` what it costs the network
    in pictures that it was trained on and in others. None when it learned nothing of its training pictures.
    """
    if trained_on > NOTHING_LEARNED * entropy:
        return None
    return max(0.0, 1 - (entropy - kept_apart) / (entropy - trained_on))


def judge(share: float) -> Literal["healthy", "look", "wrong"]:
    """The verdict on a share learned by heart."""
    return "healthy" if share <= USUAL else "look" if share <= MUCH else "wrong"
