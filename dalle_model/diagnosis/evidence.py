"""Evidence about trainings, read from files: curves of a run directory, finished or going on, and what its data hold.

No network is loaded and no catalog asked, so it works while a training runs, and on a machine that has neither torch nor DuckDB.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dalle_datasets.store.layout import RUN_CONFIG, Layout
from dalle_datasets.store.parquet import iter_batches, iter_file
from dalle_datasets.store.schemas import GENERATIONS, PAIRS, TRAINING_SET
from dalle_model.config.parsing import from_dict
from dalle_model.config.tree import Config
from dalle_model.evaluation.retrieval import COPY_SHARE, most_equal
from dalle_model.running.run_dir import is_under_way, read_result, read_status
from dalle_model.text import normalize_caption
from dalle_model.training.metrics import read_metrics

TRAININGS = ("train_dvae", "train_clip", "train_transformer")
MAX_TOKEN_ROWS = 100_000
"""Rows of a training set that are looked at; the pictures of all pairs are."""
MAX_DRAWN, MAX_KEPT_APART = 128, 128
"""Generated pictures, and validation pictures beside them, that are compared with training pictures."""
MAX_COMPARISONS = 2**30
"""Tokens to compare: a second or two."""
Points = Sequence[tuple[int, float]]
"""(step, value), by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training, as far as it is."""

    job: str
    run_id: str
    config: Config
    state: str
    """done, running, failed, or stopped: it goes on when it is run again."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    """Empty until it is done."""
    curves: Mapping[tuple[str, str], Points] = field(default_factory=dict)
    """(split, name) -> points; splits are train, validation and gradients."""
    speed: Mapping[str, Points] = field(default_factory=dict)
    num_spikes: int = 0
    """Updates that were reported as spikes and whose batch is kept; the newest eight at most."""
    has_failed_batch: bool = False
    """A loss or gradient was not finite."""

    def points(self, name: str, split: str = "validation") -> Points:
        """A curve; empty when nothing was logged."""
        return self.curves.get((split, name), ())

    def last(self, name: str, split: str = "validation") -> float | None:
        """The newest value of a curve."""
        points = self.points(name, split)
        return points[-1][1] if points else None

    def gradient_norms(self) -> Points:
        """The norm of the whole gradient; where none was clipped, that of the residual branches."""
        if logged := self.points("gradient_norm", "train"):
            return logged
        squares: dict[int, float] = {}
        for (split, _), points in self.curves.items():
            for step, value in points if split == "gradients" else ():
                squares[step] = squares.get(step, 0.0) + value**2
        return [(step, math.sqrt(value)) for step, value in sorted(squares.items())]

    @property
    def settings(self) -> Any:
        """The section of the configuration that says how this network is trained."""
        return getattr(self.config, self.job)

    @property
    def num_steps(self) -> int:
        """Updates made so far, to the last line of the log."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFacts:
    """What a source's pairs hold."""

    num_train: int
    num_validation: int
    num_leaked: int
    """Validation pairs whose picture, pixel by pixel, is a training picture, too."""
    num_known_captions: int
    """Validation pairs whose caption is one of a training pair, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """What a training set holds."""

    num_train: int
    """Training rows that were looked at."""
    num_validation: int
    num_leaked: int
    """Validation rows whose caption and picture, token by token, are those of a training row, too."""
    num_same_picture: int
    """Validation rows whose picture is, whatever its caption; two drawings that differ by little have the same tokens."""
    image_nats: float
    """Entropy of how often each image token occurs: what a token costs who knows nothing else."""
    text_nats: float
    """The same of text tokens; 0 when there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFacts:
    """Generated pictures for captions that training never saw, compared with training pictures."""

    run_id: str
    num_drawn: int
    num_copies: int
    num_kept_apart: int
    num_kept_apart_alike: int
    """Validation pictures that are as much like a training picture: what chance and flat pictures do."""


def read_training(layout: Layout, run_id: str) -> Training:
    """One training's evidence. Raises `ValueError` when the directory is not that of a training or was made by another edition."""
    run_dir = layout.run(run_id)
    try:
        saved = json.loads((run_dir / RUN_CONFIG).read_text())
        job, config, inputs = saved["job"], from_dict(Config, saved["config"]), saved["inputs"]
    except FileNotFoundError:
        raise ValueError(f"{run_dir} holds no {RUN_CONFIG}, so it is no run; `dalle status` lists the runs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run_dir / RUN_CONFIG} cannot be read ({error}); it is damaged, or of another edition of open-dalle") from error
    if job not in TRAININGS:
        raise ValueError(f"{run_id} is a run of {job}, which trains nothing; name a run of {', '.join(TRAININGS)}")
    return Training(
        job=job,
        run_id=run_id,
        config=config,
        state=_state(run_dir),
        inputs=inputs,
        result=read_result(run_dir) or {},
        curves=_curves(read_metrics(run_dir / "metrics.jsonl")),
        speed={name: points for (_, name), points in _curves(read_metrics(run_dir / "speed.jsonl")).items()},
        num_spikes=len({path.name.rpartition("-")[0] for path in (run_dir / "spikes").glob("*.safetensors")}),
        has_failed_batch=any(run_dir.glob("failed_batch-*.safetensors")),
    )


def find_run(layout: Layout, name: str) -> str:
    """The run that a name or the beginning of one means. Raises `ValueError` when none does, or several do."""
    found = sorted(path.parent.name for path in layout.runs.glob("*/config.json") if path.parent.name.startswith(name))
    if name in found or len(found) == 1:
        return name if name in found else found[0]
    if found:
        raise ValueError(f"run {name!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}; write more of it")
    trainings = sorted(path.parent.name for path in layout.runs.glob("train-*/config.json"))
    raise ValueError(f"run {name!r} does not exist in {layout.runs}; the trainings there are: {', '.join(trainings) or 'none yet'}")


def read_pairs(folder: Path) -> PairFacts | None:
    """What the pairs of a source hold; None when there are none. Takes 16 bytes of memory a pair."""
    pictures: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": []}
    captions: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": []}
    for batch in iter_batches(folder, PAIRS, ["split", "pixel_sha256", "caption"], 65_536):
        for split in pictures:
            rows = batch.filter(pc.equal(batch["split"], split))
            pictures[split].append(_hashes(rows["pixel_sha256"].to_pylist()))
            captions[split].append(_hashes([_plain(text) for text in rows["caption"].to_pylist()]))
    if not pictures["train"]:
        return None
    trained_on, kept_apart = np.concatenate(pictures["train"]), np.concatenate(pictures["validation"])
    return PairFacts(
        num_train=len(trained_on),
        num_validation=len(kept_apart),
        num_leaked=int(np.isin(kept_apart, trained_on).sum()),
        num_known_captions=int(np.isin(np.concatenate(captions["validation"]), np.concatenate(captions["train"])).sum()),
    )


def read_tokens(folder: Path, config: Config) -> TokenFacts | None:
    """What a training set holds; None when it is not there or has no rows."""
    image_counts, text_counts = np.zeros(config.dvae.codebook_size, np.int64), np.zeros(65_536, np.int64)
    trained_on: dict[bytes, set[str]] = {}
    kept_apart: list[tuple[bytes, str]] = []
    num_train = 0
    for split, captions, images, text in _token_rows(folder):
        pictures = [row.tobytes() for row in images]
        if split == "train":
            image_counts += np.bincount(images.ravel(), minlength=len(image_counts))[: len(image_counts)]
            text_counts += np.bincount(text, minlength=len(text_counts))
            for picture, caption in zip(pictures, captions, strict=True):
                trained_on.setdefault(picture, set()).add(_plain(caption))
            num_train += len(images)
        else:
            kept_apart += zip(pictures, map(_plain, captions), strict=True)
    if not num_train:
        return None
    return TokenFacts(
        num_train=num_train,
        num_validation=len(kept_apart),
        num_leaked=sum(caption in trained_on.get(picture, ()) for picture, caption in kept_apart),
        num_same_picture=sum(picture in trained_on for picture, _ in kept_apart),
        image_nats=entropy(image_counts),
        text_nats=entropy(text_counts),
    )


def image_entropy(folder: Path, codebook_size: int) -> float:
    """Entropy in nats of how often each image token occurs in the training rows of a training set; 0 when there are none."""
    counts = np.zeros(codebook_size, np.int64)
    for split, _, images, _ in _token_rows(folder):
        if split == "train":
            counts += np.bincount(images.ravel(), minlength=codebook_size)[:codebook_size]
    return entropy(counts)


def read_copies(layout: Layout, transformer: Training) -> CopyFacts | None:
    """The newest pictures that a transformer drew for captions it was not trained on; None when there are none."""
    training_set = layout.root / transformer.inputs.get("training_set", "none")
    drawn = _newest_drawing(layout, str(transformer.result.get("transformer_id", "")))
    if drawn is None or not training_set.is_dir():
        return None
    run_id, path = drawn
    parts = list(_token_rows(training_set))
    trained_on = np.concatenate([images for split, _, images, _ in parts if split == "train"])
    kept_apart = [images for split, _, images, _ in parts if split == "validation"]
    known = {
        _plain(text) for batch in iter_batches(training_set, TRAINING_SET, ["caption"], 65_536) for text in batch["caption"].to_pylist()
    }
    pictures: list[NDArray[np.uint16]] = []
    for batch in iter_file(path, GENERATIONS, ["prompt", "rank", "image_tokens"]):
        best = batch.filter(pc.equal(batch["rank"], 1))
        images = _image_rows(best["image_tokens"])
        pictures += [row for row, prompt in zip(images, best["prompt"].to_pylist(), strict=True) if _plain(prompt) not in known]
    pictures = [row for row in pictures if len(row) == trained_on.shape[1]][:MAX_DRAWN]
    if not pictures:
        return None
    trained_on = trained_on[: max(1, MAX_COMPARISONS // (trained_on.shape[1] * (MAX_DRAWN + MAX_KEPT_APART)))]
    others = np.concatenate(kept_apart)[:MAX_KEPT_APART] if kept_apart else trained_on[:0]
    return CopyFacts(
        run_id=run_id,
        num_drawn=len(pictures),
        num_copies=_num_alike(np.stack(pictures), trained_on),
        num_kept_apart=len(others),
        num_kept_apart_alike=_num_alike(others, trained_on),
    )


def entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in nats of how often each token occurs; 0 when there are none."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())


def _state(run_dir: Path) -> str:
    if read_result(run_dir) is not None:
        return "done"
    if is_under_way(run_dir):
        return "running"
    return "failed" if read_status(run_dir) == "failed" else "stopped"


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Points]:
    """Every number of every split; a step that a continued training repeated counts once, a figure that was no number not at all."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "split") and isinstance(value, int | float):
                found.setdefault((str(line.get("split", "")), name), {})[int(line["step"])] = float(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def _token_rows(folder: Path) -> Iterator[tuple[str, list[str], NDArray[np.uint16], NDArray[np.int64]]]:
    """(split, captions, image tokens [rows, I], text tokens one after the other), until `MAX_TOKEN_ROWS` rows were given."""
    left = MAX_TOKEN_ROWS
    for batch in iter_batches(folder, TRAINING_SET, ["split", "caption", "text_tokens", "image_tokens"], 8_192):
        for split in ("train", "validation"):
            rows = batch.filter(pc.equal(batch["split"], split))
            if rows.num_rows:
                text = pc.list_flatten(rows["text_tokens"]).to_numpy(zero_copy_only=False).astype(np.int64)
                yield split, rows["caption"].to_pylist(), _image_rows(rows["image_tokens"]), text
        left -= batch.num_rows
        if left <= 0:
            return


def _image_rows(column: pa.Array) -> NDArray[np.uint16]:
    """[rows, I]."""
    tokens: NDArray[np.uint16] = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return tokens.reshape(len(column), -1) if len(column) else tokens.reshape(0, 0)


def _newest_drawing(layout: Layout, transformer_id: str) -> tuple[str, Path] | None:
    """The newest finished run that drew with a transformer, and its generations."""
    found = []
    for path in layout.runs.glob("generate-images-*/result.json"):
        try:
            inputs, made = json.loads((path.parent / RUN_CONFIG).read_text())["inputs"], json.loads(path.read_text())
        except (OSError, ValueError, KeyError):
            continue
        generations = layout.root / str(made.get("generations", "none"))
        if transformer_id and inputs.get("transformer_id") == transformer_id and generations.is_file():
            found.append((float(made.get("started_at", 0)), path.parent.name, generations))
    return max(found)[1:] if found else None


def _num_alike(pictures: NDArray[np.uint16], trained_on: NDArray[np.uint16]) -> int:
    """How many of the pictures have a training picture with which they share nearly all tokens."""
    return int((most_equal(pictures, trained_on) >= COPY_SHARE).sum())


def _hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    """64 bits of each text, the same within this process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def _plain(text: str) -> str:
    """A caption whatever its case and spaces."""
    return normalize_caption(text, lowercase=True)
