"""Application of the rules: to each candidate by itself, then to all candidates together."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters import captions, images
from dalle_datasets.filters.base import KEEP, Verdict
from dalle_datasets.filters.candidate_table import CandidateTable
from dalle_datasets.filters.duplicates import Drops, judge_duplicates, judge_frequency, judge_near_duplicates, judge_overlaps
from dalle_datasets.filters.evaluation import EvaluationSet


def judge(row: dict[str, Any], settings: FilterConfig) -> Verdict:
    """The first rule that is against a row of `schemas.MEASURES` (with its caption), cheapest rules first; else `KEEP`."""
    rules: tuple[Callable[[], Verdict], ...] = (
        lambda: captions.judge_file_name(row["has_file_name"], row["caption"]),
        lambda: captions.judge_length(row["num_caption_words"], row["num_caption_letters"], settings),
        lambda: captions.judge_boilerplate(row["boilerplate_share"], settings),
        lambda: captions.judge_markup(row["has_markup"], settings),
        lambda: captions.judge_personal(row["has_personal"], settings),
        lambda: captions.judge_language(row["language"], settings),
        lambda: images.judge_decoding(row["image_problem"], row["image_detail"]),
        lambda: images.judge_size(row["width"], row["height"], settings),
        lambda: images.judge_aspect_ratio(row["width"], row["height"], settings),
        lambda: images.judge_contrast(row["contrast"], settings),
    )
    verdicts = (rule() for rule in rules)
    return next((verdict for verdict in verdicts if verdict.reason), KEEP)


def judge_together(columns: CandidateTable, settings: FilterConfig, evaluation: EvaluationSet | None) -> None:
    """Add to `columns.drops` what speaks against candidates because of others, one rule after the other."""

    def apply(rule: Callable[[NDArray[np.int64]], Drops]) -> None:
        rows = np.flatnonzero(columns.drops.codes == 0)
        drops = rule(rows)
        columns.drops.codes[rows] = drops.codes
        columns.drops.evidence[rows] = drops.evidence

    apply(lambda rows: judge_frequency(columns.pictures[rows], columns.captions[rows], settings))
    if evaluation is not None:
        apply(lambda rows: judge_overlaps(columns.fingerprints.take(rows), evaluation))
    apply(
        lambda rows: judge_duplicates(columns.pictures[rows], columns.captions[rows], columns.candidates[rows], settings.captions_per_image)
    )
    if settings.near_duplicates:
        apply(
            lambda rows: judge_near_duplicates(
                columns.pictures[rows], columns.candidates[rows], columns.num_pixels[rows], columns.fingerprints.take(rows)
            )
        )
