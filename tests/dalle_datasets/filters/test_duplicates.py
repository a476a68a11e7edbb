"""One picture, several finds."""

import random

from dalle_datasets.filters.duplicates import Seen, judge_duplicates

FINDS = [
    Seen("p1", "c", "a red car"),
    Seen("p1", "a", "a red car"),
    Seen("p1", "b", "A Red Car"),
    Seen("p1", "d", "the car"),
    Seen("p1", "e", "one more car"),
    Seen("p2", "f", "a red car"),
    Seen("p3", "g", "the car"),
]


def reasons(captions_per_image, finds=FINDS):
    return {candidate: verdict.reason for candidate, verdict in judge_duplicates(finds, captions_per_image).items()}


def test_one_caption_per_picture():
    assert reasons(1) == {"b": "duplicate_pair", "c": "duplicate_pair", "d": "duplicate_image", "e": "duplicate_image"}


def test_several_captions_per_picture():
    assert reasons(2) == {"b": "duplicate_pair", "c": "duplicate_pair", "e": "duplicate_image"}
    assert reasons(9) == {"b": "duplicate_pair", "c": "duplicate_pair"}


def test_the_order_of_the_finds_does_not_matter():
    for seed in range(20):
        shuffled = FINDS.copy()
        random.Random(seed).shuffle(shuffled)
        assert judge_duplicates(shuffled, 2) == judge_duplicates(FINDS, 2)


def test_a_drop_names_what_is_kept():
    verdicts = judge_duplicates(FINDS, 1)
    assert verdicts["c"].detail == "same picture and caption as a"
    assert verdicts["d"].detail == "same picture as a"
