"""Rules for pictures: decodable, not tiny, and no strip (paper, Appendix C: aspect ratio in [1/2, 2])."""

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.base import KEEP, Verdict, drop


def judge_decoding(problem: str | None, detail: str | None) -> Verdict:
    """There are pixels."""
    return drop(problem, detail or "") if problem else KEEP


def judge_size(width: int, height: int, settings: FilterConfig) -> Verdict:
    """The shorter side is long enough."""
    return drop("too_small", f"{width} x {height}") if min(width, height) < settings.min_side else KEEP


def judge_aspect_ratio(width: int, height: int, settings: FilterConfig) -> Verdict:
    """Neither too wide nor too high."""
    return drop("aspect_ratio", f"{width} x {height}") if aspect_ratio(width, height) > settings.max_aspect_ratio else KEEP


def judge_contrast(contrast: float, settings: FilterConfig) -> Verdict:
    """There is something to see."""
    return drop("blank", f"contrast {contrast:.2f} of 255") if contrast < settings.min_contrast else KEEP


def aspect_ratio(width: int, height: int) -> float:
    """Long side over short side."""
    return max(width, height) / min(width, height)
