"""Duplicate rules: pictures and captions that were found more than once.

Pictures are the same when their decoded pixels are, in whatever file. Of one picture, `captions_per_image` different captions are
kept, those with the smallest candidate ids: a rule that does not depend on the order in which pages were read. A picture with very
many captions is a placeholder, a caption of very many pictures is empty talk; of these nothing is kept.

These rules look at all candidates at once. So that millions fit, they see columns of 8-byte hashes (`filters.candidate_table`), and what
they say is two numbers a row.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.base import REASONS, Verdict, drop
from dalle_datasets.filters.evaluation import EvaluationSet
from dalle_datasets.filters.hashes import Fingerprints, find_near_duplicates

CODES = {reason: code for code, reason in enumerate(REASONS, 1)}
"""Reason -> number; 0 means that there is nothing against a row."""
_REASON_OF = {code: reason for reason, code in CODES.items()}


class Drops(NamedTuple):
    """Drop codes and evidence for N candidates."""

    codes: NDArray[np.uint8]
    """Values of `CODES`; 0 keeps the row."""
    evidence: NDArray[np.uint64]
    """What was seen: a count, the id of the candidate that is kept instead, or the place of an evaluation picture."""

    @classmethod
    def nothing(cls, num_rows: int) -> Self:
        """Every row is kept."""
        return cls(np.zeros(num_rows, np.uint8), np.zeros(num_rows, np.uint64))

    def mark(self, where: NDArray[np.bool_], reason: str, evidence: NDArray[np.uint64] | NDArray[np.int64]) -> None:
        """Give a reason to the rows of a mask; `evidence` has one value for each row, in the mask or not."""
        self.codes[where] = CODES[reason]
        self.evidence[where] = evidence[where].astype(np.uint64)


def explain(code: int, evidence: int, names: list[str]) -> Verdict:
    """The verdict of a rule of this file; `names` are those of the evaluation pictures."""
    reason = _REASON_OF[code]
    other = f"{evidence:016x}"
    details = {
        "placeholder": f"a picture with {evidence} different captions",
        "caption_repeated": f"a caption of {evidence} different pictures",
        "evaluation_caption": "an evaluation set has the same caption",
        "duplicate_pair": f"same picture and caption as {other}",
        "duplicate_image": f"same picture as {other}",
        "near_duplicate": f"looks like {other}",
    }
    return drop(reason, f"looks like {names[evidence]}" if reason == "evaluation_overlap" else details[reason])


def judge_frequency(pictures: NDArray[np.uint64], captions: NDArray[np.uint64], settings: FilterConfig) -> Drops:
    """Drops placeholder pictures and captions of everything."""
    drops = Drops.nothing(len(pictures))
    num_pictures = _num_different(pictures, captions)
    drops.mark(num_pictures > settings.max_images_per_caption, "caption_repeated", num_pictures)
    num_captions = _num_different(captions, pictures)
    drops.mark(num_captions > settings.max_captions_per_image, "placeholder", num_captions)
    return drops


def judge_duplicates(
    pictures: NDArray[np.uint64], captions: NDArray[np.uint64], candidates: NDArray[np.uint64], captions_per_image: int
) -> Drops:
    """Drops further finds of a picture: with the same caption, or with one caption too many."""
    drops = Drops.nothing(len(pictures))
    order = np.lexsort((candidates, captions, pictures))
    starts_caption = _starts(pictures[order]) | _starts(captions[order])
    first_of_caption = np.empty(len(order), np.int64)  # the row with the smallest candidate id of the same picture and caption
    first_of_caption[order] = order[starts_caption][np.cumsum(starts_caption) - 1]

    order = np.lexsort((candidates, pictures))
    starts = _starts(pictures[order])
    first_of_picture = np.empty(len(order), np.int64)
    first_of_picture[order] = order[starts][np.cumsum(starts) - 1]
    is_first = first_of_caption[order] == order
    num_before = np.cumsum(is_first) - is_first  # captions seen before, of this picture and those before it
    place = np.empty(len(order), np.int64)  # of a caption among those of its picture, by smallest candidate id
    place[order] = num_before - num_before[starts][np.cumsum(starts) - 1]

    is_kept_caption = place[first_of_caption] < captions_per_image
    is_repeated = first_of_caption != np.arange(len(order))
    drops.mark(is_kept_caption & is_repeated, "duplicate_pair", candidates[first_of_caption])
    drops.mark(~is_kept_caption, "duplicate_image", candidates[first_of_picture])
    return drops


def judge_near_duplicates(
    pictures: NDArray[np.uint64], candidates: NDArray[np.uint64], num_pixels: NDArray[np.int64], fingerprints: Fingerprints
) -> Drops:
    """Drops pictures that look like a larger one, or an equally large one with a smaller id.

    Every picture that is dropped looks like one that is kept (not like one that is dropped itself), so chains of small differences
    do not melt into one.
    """
    drops = Drops.nothing(len(pictures))
    _, picture_of_row = np.unique(pictures, return_inverse=True)
    order = np.lexsort((candidates, -num_pixels))
    _, places = np.unique(picture_of_row[order], return_index=True)
    best = order[np.sort(places)]  # each picture's row with the smallest id; the largest picture first
    kept_instead = np.arange(len(best))
    similar: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    ranked = fingerprints.take(best)
    for i, j in find_near_duplicates(ranked, ranked):
        similar.append((i[i > j].astype(np.uint64) << np.uint64(32)) | j[i > j].astype(np.uint64))
    for packed in np.sort(np.concatenate(similar)).tolist():
        i, j = packed >> 32, packed & (2**32 - 1)
        if kept_instead[i] == i and kept_instead[j] == j:
            kept_instead[i] = j
    rank_of_picture = np.empty(len(best), np.int64)
    rank_of_picture[picture_of_row[best]] = np.arange(len(best))
    rank = rank_of_picture[picture_of_row]
    drops.mark(kept_instead[rank] != rank, "near_duplicate", candidates[best[kept_instead[rank]]])
    return drops


def judge_overlaps(fingerprints: Fingerprints, evaluation: EvaluationSet) -> Drops:
    """Drops pictures that look like one of an evaluation set."""
    drops = Drops.nothing(len(fingerprints.phashes))
    nobody = len(evaluation.names)
    first = np.full(len(fingerprints.phashes), nobody, np.int64)
    for i, j in find_near_duplicates(fingerprints, evaluation.fingerprints):
        np.minimum.at(first, i, j)
    drops.mark(first < nobody, "evaluation_overlap", first)
    return drops


def _num_different(values: NDArray[np.uint64], groups: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For every row, how many different values its group has."""
    order = np.lexsort((values, groups))
    starts_group = _starts(groups[order])
    is_new = starts_group | _starts(values[order])
    counts = np.add.reduceat(is_new, np.flatnonzero(starts_group), dtype=np.int64) if len(order) else np.zeros(0, np.int64)
    result = np.empty(len(order), np.int64)
    result[order] = counts[np.cumsum(starts_group) - 1]
    return result


def _starts(sorted_values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it."""
    starts = np.ones(len(sorted_values), np.bool_)
    starts[1:] = sorted_values[1:] != sorted_values[:-1]
    return starts
