"""The same picture found more than once.

Pictures are the same when their decoded pixels are, in whatever file. Of one picture, `captions_per_image` different captions are
kept, those with the smallest candidate ids: a rule that does not depend on the order in which pages were read.
"""

from collections.abc import Iterable
from typing import NamedTuple

from dalle_datasets.filters.base import Verdict, drop


class Seen(NamedTuple):
    """As much of a pair as tells whether it is there already."""

    pixel_sha256: str
    candidate_id: str
    caption: str


def judge_duplicates(pairs: Iterable[Seen], captions_per_image: int) -> dict[str, Verdict]:
    """Candidate id -> verdict against it, for those that are not kept."""
    verdicts: dict[str, Verdict] = {}
    first = ""
    kept: dict[str, str] = {}  # caption -> candidate id, of the current picture
    for pair in sorted(pairs):
        if pair.pixel_sha256 != first:
            first, kept = pair.pixel_sha256, {}
        caption = pair.caption.casefold()
        if caption in kept:
            verdicts[pair.candidate_id] = drop("duplicate_pair", f"same picture and caption as {kept[caption]}")
        elif len(kept) >= captions_per_image:
            verdicts[pair.candidate_id] = drop("duplicate_image", f"same picture as {next(iter(kept.values()))}")
        else:
            kept[caption] = pair.candidate_id
    return verdicts
