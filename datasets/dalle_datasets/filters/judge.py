"""The rules, applied: first to each candidate by itself, then to all candidates together."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters import captions, images
from dalle_datasets.filters.base import KEEP, Verdict
from dalle_datasets.filters.columns import Columns
from dalle_datasets.filters.duplicates import Against, judge_duplicates, judge_frequency, judge_near_duplicates, judge_overlaps
from dalle_datasets.filters.evaluation import EvaluationSet


def judge(row: dict[str, Any], limits: FilterConfig) -> Verdict:
    """The first rule that is against a row of `schemas.MEASURES` (with its caption), cheapest rules first; else `KEEP`."""
    rules: tuple[Callable[[], Verdict], ...] = (
        lambda: captions.judge_file_name(row["has_file_name"], row["caption"]),
        lambda: captions.judge_length(row["num_caption_words"], row["num_caption_letters"], limits),
        lambda: captions.judge_boilerplate(row["boilerplate_share"], limits),
        lambda: captions.judge_markup(row["has_markup"], limits),
        lambda: captions.judge_personal(row["has_personal"], limits),
        lambda: captions.judge_language(row["language"], limits),
        lambda: images.judge_decoding(row["image_problem"], row["image_detail"]),
        lambda: images.judge_size(row["width"], row["height"], limits),
        lambda: images.judge_aspect_ratio(row["width"], row["height"], limits),
        lambda: images.judge_contrast(row["contrast"], limits),
    )
    verdicts = (rule() for rule in rules)
    return next((verdict for verdict in verdicts if verdict.reason), KEEP)


def judge_together(columns: Columns, limits: FilterConfig, evaluation: EvaluationSet | None) -> None:
    """Add to `columns.against` what speaks against candidates because of others, one rule after the other."""

    def apply(rule: Callable[[NDArray[np.int64]], Against]) -> None:
        rows = np.flatnonzero(columns.against.codes == 0)
        against = rule(rows)
        columns.against.codes[rows] = against.codes
        columns.against.about[rows] = against.about

    apply(lambda rows: judge_frequency(columns.pictures[rows], columns.captions[rows], limits))
    if evaluation is not None:
        apply(lambda rows: judge_overlaps(columns.looks.take(rows), evaluation))
    apply(
        lambda rows: judge_duplicates(columns.pictures[rows], columns.captions[rows], columns.candidates[rows], limits.captions_per_image)
    )
    if limits.near_duplicates:
        apply(
            lambda rows: judge_near_duplicates(
                columns.pictures[rows], columns.candidates[rows], columns.num_pixels[rows], columns.looks.take(rows)
            )
        )
