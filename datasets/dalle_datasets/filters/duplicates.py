"""The same picture, or the same caption, found more than once.

Pictures are the same when their decoded pixels are, in whatever file. Of one picture, `captions_per_image` different captions are
kept, those with the smallest candidate ids: a rule that does not depend on the order in which pages were read. A picture with very
many captions is a placeholder, a caption of very many pictures is empty talk; of these nothing is kept.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.base import Verdict, drop
from dalle_datasets.filters.evaluation import EvaluationSet, index_looks
from dalle_datasets.filters.hashes import Look


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


def judge_frequency(pairs: Iterable[Seen], limits: FilterConfig) -> dict[str, Verdict]:
    """Candidate id -> verdict against it, for placeholder pictures and captions of everything."""
    pairs = list(pairs)
    captions: defaultdict[str, set[str]] = defaultdict(set)
    pictures: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        captions[pair.pixel_sha256].add(pair.caption.casefold())
        pictures[pair.caption.casefold()].add(pair.pixel_sha256)
    verdicts: dict[str, Verdict] = {}
    for pair in pairs:
        num_captions, num_pictures = len(captions[pair.pixel_sha256]), len(pictures[pair.caption.casefold()])
        if num_captions > limits.max_captions_per_image:
            verdicts[pair.candidate_id] = drop("placeholder", f"a picture with {num_captions} different captions")
        elif num_pictures > limits.max_images_per_caption:
            verdicts[pair.candidate_id] = drop("caption_repeated", f"a caption of {num_pictures} different pictures")
    return verdicts


class Looked(NamedTuple):
    """As much of a pair as tells what it looks like."""

    num_pixels: int
    candidate_id: str
    pixel_sha256: str
    look: Look


def judge_near_duplicates(pairs: Sequence[Looked], min_contrast: float) -> dict[str, Verdict]:
    """Candidate id -> verdict against it, for pictures that look like a larger one, or an equally large one with a smaller id.

    Every picture that is dropped looks like one that is kept (not like one that is dropped itself), so chains of small differences
    do not melt into one. Nearly blank pictures all look alike and are left alone.
    """
    ranked = sorted((pair for pair in pairs if pair.look.contrast >= min_contrast), key=lambda pair: (-pair.num_pixels, pair.candidate_id))
    index = index_looks([pair.look for pair in ranked])
    verdicts: dict[str, Verdict] = {}
    for place, pair in enumerate(ranked):
        for other in (ranked[i] for i in index.alike(place) if i < place):
            # Other captions of the very same picture are the business of `judge_duplicates`.
            if other.candidate_id not in verdicts and other.pixel_sha256 != pair.pixel_sha256:
                verdicts[pair.candidate_id] = drop("near_duplicate", f"looks like {other.candidate_id}")
                break
    return verdicts


def judge_overlaps(pairs: Iterable[Looked], evaluation: EvaluationSet) -> dict[str, Verdict]:
    """Candidate id -> verdict against it, for pictures that look like one of an evaluation set."""
    overlaps = ((pair.candidate_id, evaluation.overlap(pair.look)) for pair in pairs)
    return {candidate_id: drop("evaluation_overlap", f"looks like {name}") for candidate_id, name in overlaps if name is not None}
