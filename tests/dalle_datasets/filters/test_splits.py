"""Splits by the picture."""

import hashlib

import pytest

from dalle_datasets.filters.splits import split_of

HASHES = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(5_000)]


@pytest.mark.parametrize("share", [0.04, 0.5])
def test_about_the_wanted_share_is_for_validation(share):
    validation = sum(split_of(h, share) == "validation" for h in HASHES) / len(HASHES)
    assert validation == pytest.approx(share, abs=0.02)


def test_none_and_nested():
    assert {split_of(h, 0.0) for h in HASHES} == {"train"}
    small = {h for h in HASHES if split_of(h, 0.02) == "validation"}
    large = {h for h in HASHES if split_of(h, 0.04) == "validation"}
    assert small < large  # a larger share only adds pictures
