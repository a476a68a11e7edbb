"""One picture, several finds."""

import random

import numpy as np
import pytest

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.duplicates import (
    CODES,
    Drops,
    explain,
    judge_duplicates,
    judge_frequency,
    judge_near_duplicates,
    judge_overlaps,
)
from dalle_datasets.filters.evaluation import EvaluationSet
from dalle_datasets.filters.hashes import Fingerprint, Fingerprints

# Picture, candidate, caption.
FINDS = [
    (1, 0xC, "a red car"),
    (1, 0xA, "a red car"),
    (1, 0xB, "a red car"),
    (1, 0xD, "the car"),
    (1, 0xE, "one more car"),
    (2, 0xF, "a red car"),
    (3, 0x1, "the car"),
]


def ids(values):
    return np.array(list(values), np.uint64)


def judged(captions_per_image, finds=FINDS):
    """Candidate -> (reason, detail) of those that are dropped."""
    pictures, candidates, captions = zip(*finds, strict=True)
    drops = judge_duplicates(ids(pictures), ids(hash(c) % 2**64 for c in captions), ids(candidates), captions_per_image)
    return said(drops, candidates)


def said(drops, candidates, names=()):
    return {
        candidate: explain(int(code), int(evidence), list(names))
        for candidate, code, evidence in zip(candidates, drops.codes, drops.evidence, strict=True)
        if code
    }


def reasons(captions_per_image):
    return {candidate: verdict.reason for candidate, verdict in judged(captions_per_image).items()}


def test_one_caption_per_picture():
    assert reasons(1) == {0xB: "duplicate_pair", 0xC: "duplicate_pair", 0xD: "duplicate_image", 0xE: "duplicate_image"}


def test_several_captions_per_picture():
    assert reasons(2) == {0xB: "duplicate_pair", 0xC: "duplicate_pair", 0xE: "duplicate_image"}
    assert reasons(9) == {0xB: "duplicate_pair", 0xC: "duplicate_pair"}


def test_the_order_of_the_finds_does_not_matter():
    for seed in range(20):
        shuffled = FINDS.copy()
        random.Random(seed).shuffle(shuffled)
        assert judged(2, shuffled) == judged(2)


def test_a_drop_names_what_is_kept():
    assert judged(1)[0xC].detail == "same picture and caption as 000000000000000a"
    assert judged(1)[0xD].detail == "same picture as 000000000000000a"


def slow_duplicates(finds, captions_per_image):
    """The rule in words: go through the finds of a picture by candidate id."""
    dropped, kept = {}, {}
    for picture, candidate, caption in sorted(finds, key=lambda find: find[:2]):
        mine = kept.setdefault(picture, {})
        if caption in mine:
            dropped[candidate] = ("duplicate_pair", mine[caption])
        elif len(mine) >= captions_per_image:
            dropped[candidate] = ("duplicate_image", next(iter(mine.values())))
        else:
            mine[caption] = candidate
    return dropped


@pytest.mark.parametrize("captions_per_image", [1, 2, 3])
def test_the_columns_say_what_the_rule_says(captions_per_image):
    rng = random.Random(captions_per_image)
    finds = [(rng.randrange(40), candidate, rng.randrange(8)) for candidate in rng.sample(range(2**40), 400)]
    pictures, candidates, captions = zip(*finds, strict=True)
    drops = judge_duplicates(ids(pictures), ids(captions), ids(candidates), captions_per_image)
    found = {
        c: (code, evidence) for c, code, evidence in zip(candidates, drops.codes.tolist(), drops.evidence.tolist(), strict=True) if code
    }
    assert found == {c: (CODES[reason], other) for c, (reason, other) in slow_duplicates(finds, captions_per_image).items()}


def test_frequent_pictures_and_captions():
    pictures, captions = ids([1, 1, 1, 2, 3, 4]), ids([7, 8, 9, 7, 7, 8])
    drops = judge_frequency(pictures, captions, FilterConfig(max_captions_per_image=2, max_images_per_caption=2))
    verdicts = said(drops, range(6))
    assert {row: verdict.reason for row, verdict in verdicts.items()} == {
        0: "placeholder", 1: "placeholder", 2: "placeholder", 3: "caption_repeated", 4: "caption_repeated",
    }  # fmt: skip
    assert verdicts[0].detail == "a picture with 3 different captions"
    assert verdicts[4].detail == "a caption of 3 different pictures"


def looks(*phashes):
    return Fingerprints.of([Fingerprint(phash, 0, bytes(48), 50.0) for phash in phashes])


def test_near_duplicates_look_like_one_that_is_kept():
    """A chain of small steps: the second is like the first, the third like the second only, so the third stays."""
    chain = looks(0b0, 0b1111, 0b11111111)
    drops = judge_near_duplicates(ids([1, 2, 3]), ids([10, 11, 12]), np.array([9, 9, 9]), chain)
    assert said(drops, [10, 11, 12]) == {11: ("near_duplicate", "looks like 000000000000000a")}


def test_the_largest_of_near_duplicates_stays():
    drops = judge_near_duplicates(ids([1, 2]), ids([10, 11]), np.array([9, 10]), looks(0, 1))
    assert said(drops, [10, 11]) == {10: ("near_duplicate", "looks like 000000000000000b")}


def test_all_captions_of_a_near_duplicate_go_and_all_of_the_kept_picture_stay():
    drops = judge_near_duplicates(ids([1, 2, 1, 2]), ids([10, 11, 12, 13]), np.array([9, 8, 9, 8]), looks(0, 1, 0, 1))
    assert {row: verdict.detail for row, verdict in said(drops, range(4)).items()} == dict.fromkeys((1, 3), "looks like 000000000000000a")


def test_overlaps_name_the_first_evaluation_picture():
    evaluation = EvaluationSet(["a.jpg", "b.jpg", "c.jpg"], looks(-1, 0b11, 0))
    verdicts = said(judge_overlaps(looks(0b1, 0xFF00), evaluation), range(2), evaluation.names)
    assert verdicts == {0: ("evaluation_overlap", "looks like b.jpg")}


def test_no_candidates_at_all():
    nothing = ids([])
    for drops in (
        judge_frequency(nothing, nothing, FilterConfig()),
        judge_duplicates(nothing, nothing, nothing, 1),
        judge_near_duplicates(nothing, nothing, np.zeros(0, np.int64), looks()),
        judge_overlaps(looks(), EvaluationSet(["a"], looks(0))),
    ):
        assert isinstance(drops, Drops)
        assert len(drops.codes) == 0
