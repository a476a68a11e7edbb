"""Size and shape rules."""

import pytest

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.images import judge_aspect_ratio, judge_decoding, judge_size

LIMITS = FilterConfig(min_side=32, max_aspect_ratio=2.0)


@pytest.mark.parametrize(("width", "height", "reason"), [(32, 32, None), (31, 900, "too_small"), (900, 31, "too_small"), (32, 900, None)])
def test_shorter_side(width, height, reason):
    assert judge_size(width, height, LIMITS).reason == reason


@pytest.mark.parametrize(
    ("width", "height", "reason"), [(200, 100, None), (100, 200, None), (201, 100, "aspect_ratio"), (100, 201, "aspect_ratio")]
)
def test_aspect_ratio_is_kept_between_one_half_and_two(width, height, reason):
    verdict = judge_aspect_ratio(width, height, LIMITS)
    assert verdict.reason == reason
    assert verdict.detail == (f"{width} x {height}" if reason else "")


def test_decoding():
    assert judge_decoding(None, None).reason is None
    assert judge_decoding("decode_error", "broken") == ("decode_error", "broken")
