"""What is compared: the pictures of a batch, with the features that some CLIP gave them, and real pictures.
And the figures, as rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.store.parquet import check_parquet, iter_file, read_parquet
from dalle_datasets.store.schemas import GENERATION_EMBEDDINGS, GENERATIONS
from dalle_model.evaluation.estimates import Estimate
from dalle_model.running.progress import report_progress

Row = dict[str, Any]
Numbers = NDArray[np.float64]
Vectors = NDArray[np.float32]

BLUR_RADII = (0, 1, 2, 4, 8)
"""Standard deviations in pixels of the blur on both sides (Figure 9 of the paper, whose pictures are 256
pixels wide)."""


@dataclass(slots=True)
class Drawn:
    """A batch: P prompts with N candidates each, in an order that does not depend on the file's."""

    prompts: list[str]
    sets: NDArray[np.object_]
    """[P]; `SEEN_CAPTION` where the caption occurs in training."""
    ids: list[str]
    """P x N."""
    paths: list[str]
    scores: Numbers
    """[P, N], of the CLIP that ranked them."""

    def winners(self, number: int) -> NDArray[np.int64]:
        """Places in `ids` of the best of each prompt's first `number` candidates, [P]."""
        scores = np.where(np.isnan(self.scores), -np.inf, self.scores)[:, :number]
        places: NDArray[np.int64] = np.arange(len(scores)) * self.scores.shape[1] + scores.argmax(1)
        return places


@dataclass(slots=True)
class Real:
    """What was found out about pictures that nobody drew."""

    captions: list[str] = field(default_factory=list)
    pair_ids: list[int] = field(default_factory=list)
    features: dict[int, list[Vectors]] = field(default_factory=lambda: {radius: [] for radius in BLUR_RADII})
    """Blur radius -> of the evaluator."""
    rebuilt: list[Vectors] = field(default_factory=list)
    psnr: list[Numbers] = field(default_factory=list)
    ssim: list[Numbers] = field(default_factory=list)
    tokens: list[NDArray[np.uint16]] = field(default_factory=list)


@dataclass(slots=True)
class Figures:
    """Rows of `schemas.FIGURES`, with what most of them have in common."""

    space: str
    is_by_reranker: bool
    rows: list[Row] = field(default_factory=list)

    def add(self, figure: str, pictures: str, found: Estimate, **more: Any) -> None:
        """Add a row; `more` are its other columns."""
        low, high = (None if math.isnan(end) else end for end in (found.low, found.high))
        bounds = {"value": found.value, "low": low, "high": high, "num_samples": found.num_samples}
        ordinary = {"prompt_set": None, "best_of": None, "blur_radius": None, "space": self.space, "note": None}
        self.rows.append({"figure": figure, "pictures": pictures, **ordinary, **bounds, **more})

    def headline(self, num_candidates: int) -> list[Row]:
        """Without curves: one picture and the best of all, no blur."""
        wanted = ("retrieval", "copies", "kid", "psnr", "ssim")
        return [
            row for row in self.rows if row["figure"] in wanted and row["best_of"] in (None, 1, num_candidates) and not row["blur_radius"]
        ]


def read_drawn(generations: Path) -> Drawn:
    """The pictures of a batch. Raises `ValueError` when its prompts have different numbers of candidates, or
    there are none."""
    columns = ["generation_id", "prompt_id", "prompt", "prompt_set", "candidate_index", "clip_score", "image_path"]
    rows = read_parquet(generations, GENERATIONS, columns).sort_by([("prompt_id", "ascending"), ("candidate_index", "ascending")])
    counts = set(rows["prompt_id"].value_counts().field("counts").to_pylist())
    if len(counts) != 1:
        found = f"has {min(counts)} to {max(counts)} candidates for a prompt" if counts else "holds no pictures"
        raise ValueError(f"{generations} {found}, but a batch has as many for each; draw it again")
    (number,) = counts
    firsts = rows.take(np.arange(0, rows.num_rows, number))
    return Drawn(
        prompts=firsts["prompt"].to_pylist(),
        sets=np.array(firsts["prompt_set"].to_pylist(), object),
        ids=rows["generation_id"].to_pylist(),
        paths=rows["image_path"].to_pylist(),
        scores=rows["clip_score"].to_numpy().astype(np.float64).reshape(-1, number),
    )


def embeddings(path: Path, ids: list[str], width: int) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """(places in `ids`, features) of a file, some at a time.

    Raises `ValueError` for features that are missing, of another length or no numbers.
    """
    place_of, found = {generation_id: place for place, generation_id in enumerate(ids)}, 0
    total = check_parquet(path, GENERATION_EMBEDDINGS).num_rows
    for batch in iter_file(path, GENERATION_EMBEDDINGS, ["generation_id", "image_embedding"], 4_096):
        vectors = np.stack(batch["image_embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
        is_odd = bool(width) and vectors.shape[1] != width
        if is_odd or not np.isfinite(vectors).all():
            what = f"have length {vectors.shape[1]}, not {width}" if is_odd else "are not numbers"
            raise ValueError(f"{path}: features of pictures {what}; delete the run that made them and score the pictures again")
        rows = np.array([place_of.get(generation_id, -1) for generation_id in batch["generation_id"].to_pylist()])
        yield rows[rows >= 0], vectors[rows >= 0]
        found += int((rows >= 0).sum())
        report_progress(found, total, "pictures")
    if found != len(ids):
        raise ValueError(f"{path} has features of {found} of {len(ids)} pictures; score the pictures again")


def sets_of(drawn: Drawn) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The sets of prompts in the order of their names, with the rows of their prompts."""
    for name in sorted(set(drawn.sets.tolist())):
        yield name, np.flatnonzero(drawn.sets == name)
