"""Job: image tokens of every pair's picture, one Parquet part for each part of pairs.

A part is the unit of work: pairs in, tokens out, by whichever process comes first. Decoding runs
ahead of the network in threads: one batch is being made while another is in the network. A picture that cannot be
decoded loses its tokens, not the batch: it gets a row with its reason in the `dropped` folder beside the parts.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.loading.image_batches import Pixels, centre, transformer_augmentation
from dalle_datasets.loading.row_order import seeded_random
from dalle_datasets.store.parquet import check_parquet, open_parquet, read_parquet, write_parquet
from dalle_datasets.store.schemas import CODEBOOK_USAGE, DROPPED_PAIRS, IMAGE_TOKENS, PAIRS
from dalle_model.config.model import DVAEConfig
from dalle_model.config.tokenizing import TokenizeImagesConfig
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.image_tokenizer import ImageTokenizer, bytes_per_picture
from dalle_model.dvae.loss import codebook_perplexity
from dalle_model.precision import Precision, faster_precision
from dalle_model.running.parts import OutputParts, map_parts
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.training.parallel import own_device

Decoded = list[tuple[dict[str, Any], Pixels | ImageError]]
"""Rows of pairs, each with its crops [crops, side, side, 3] or the reason why there are none."""

_COPIED = ("candidate_id", "source", "caption", "image_url", "page_url")


def work(run: JobRun) -> dict[str, float]:
    """Tokenise part after part, until this process and those beside it have made all; returns this process's rates."""
    tokenizer, parts = open_tokenizer(run), output_parts(run)
    progress = Progress(sum(check_parquet(part, PAIRS).num_rows for part in parts.sources))
    map_parts(parts, lambda source: tokenize_pairs(run, tokenizer, source, progress), progress.settle)
    return progress.rates(num_threads(run.config.tokenize_images), tokenizer.busy_s)


def open_tokenizer(run: JobRun) -> ImageTokenizer:
    """The run's dVAE on this process's device; opened once for any number of shards."""
    settings = run.config.tokenize_images
    model = load_dvae(run.input_path("dvae"), run.inputs["dvae_id"]).to(own_device())
    settings = replace(settings, precision=encoder_precision(model, settings))
    return ImageTokenizer(model, settings.precision, largest_batch(model.config, settings))


def encoder_precision(model: DVAE, settings: TokenizeImagesConfig) -> Precision:
    """The configured one; for `auto` fp16 on a GPU, as the released code does, and elsewhere what is faster for a few pictures."""
    device = next(model.parameters()).device
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        return "fp16"
    few = min(8, largest_batch(model.config, settings))
    tokenizers: dict[str, ImageTokenizer] = {kind: ImageTokenizer(model, kind, few) for kind in ("fp32", "bf16")}
    images = np.zeros((few, model.config.image_size, model.config.image_size, 3), np.uint8)
    return faster_precision(lambda precision: list(tokenizers[precision].stream([images])), device)


def output_parts(run: JobRun) -> OutputParts:
    """Where the tokens go, and what they depend on besides the pairs."""
    settings = run.config.tokenize_images
    made_from = {
        "dvae_id": run.inputs["dvae_id"],
        "random_crops": str(settings.random_crops),
        "seed": str(run.config.seed),
        "precision": settings.precision,
    }
    return OutputParts(run, run.layout.image_tokens(run.inputs["dvae_id"]), IMAGE_TOKENS, made_from)


def finish(run: JobRun, rates: dict[str, float]) -> dict[str, Any]:
    """The job's result once every part is there, and how often each token was used. Raises `SchemaError` when one is missing."""
    parts = output_parts(run)
    parts.remove_stale()
    OutputParts(run, parts.directory / "dropped", DROPPED_PAIRS).remove_stale()
    paths = [parts.path_of(source) for source in parts.sources]
    num_images = sum(check_parquet(path, IMAGE_TOKENS).num_rows for path in paths)
    occurrences = count_tokens(paths, load_dvae(run.input_path("dvae")).config.codebook_size)
    usage_path = run.run_dir / "codebook_usage.parquet"
    usage = pa.table({"image_token": np.arange(len(occurrences), dtype=np.int32), "occurrences": occurrences})
    write_parquet(usage_path, usage, CODEBOOK_USAGE)
    dropped = [reason for path in paths for reason in _dropped_reasons(parts.directory / "dropped" / path.name)]
    return {
        "image_tokens": run.layout.relative(parts.directory),
        "num_images": num_images,
        "codes_used": int((occurrences > 0).sum()),
        "perplexity": codebook_perplexity(torch.from_numpy(occurrences)),
        "codebook_usage": run.layout.relative(usage_path),
        "dropped": {reason: dropped.count(reason) for reason in sorted(set(dropped))},
        **rates,
    }


class Progress:
    """Pictures done so far, by any process, and the rate of this process in this execution."""

    def __init__(self, num_pictures: int) -> None:
        self.num_pictures, self._started = num_pictures, time.monotonic()
        self._own = self._in_part = self._in_finished_parts = 0
        self.decode_s = 0.0
        """Seconds spent decoding, of all threads together."""

    def rates(self, num_threads: int, network_s: float) -> dict[str, float]:
        """Pictures a second overall, and what each part could do if the other cost nothing."""
        seconds = {"images_per_s": time.monotonic() - self._started, "network_images_per_s": network_s}
        seconds["decode_images_per_s"] = self.decode_s / num_threads
        return {name: round(self._own / value, 1) for name, value in seconds.items() if self._own and value}

    def add(self, num_pictures: int) -> None:
        """Report further finished pictures of the current part."""
        self._own += num_pictures
        self._in_part += num_pictures
        self._report()

    def settle(self, num_pictures: int) -> None:
        """Say how many pictures are in finished parts."""
        self._in_finished_parts, self._in_part = num_pictures, 0
        self._report()

    def _report(self) -> None:
        rate = self._own / max(1e-9, time.monotonic() - self._started)
        report_progress(self._in_finished_parts + self._in_part, self.num_pictures, "images", images_per_s=rate)


def tokenize_pairs(run: JobRun, tokenizer: ImageTokenizer, source: Path, progress: Progress) -> pa.Table:
    """`schemas.IMAGE_TOKENS` of one part of pairs, in its order.

    Pictures that could not be decoded are `schemas.DROPPED_PAIRS` in a file of the same name in the folder `dropped`.
    """
    check_parquet(source, PAIRS)
    settings, config = run.config.tokenize_images, tokenizer.model.config
    num_crops = max(1, settings.random_crops)
    pair_ids: list[int] = []
    dropped: list[dict[str, str]] = []

    def batches() -> Iterator[Pixels]:
        num_rows = max(1, tokenizer.batch_size // num_crops)
        for rows in _decoded(source, config.image_size, settings, run.config.download.max_pixels, run.config.seed, num_rows, progress):
            good = [(row, crops) for row, crops in rows if not isinstance(crops, ImageError)]
            dropped.extend(_dropped_row(row, error) for row, error in rows if isinstance(error, ImageError))
            pair_ids.extend(row["pair_id"] for row, _ in good)
            if good:
                images = np.concatenate([crops for _, crops in good])
                yield from (images[start : start + tokenizer.batch_size] for start in range(0, len(images), tokenizer.batch_size))
            progress.add(len(rows))

    tokens = list(tokenizer.stream(batches()))
    path = output_parts(run).path_of(source)
    dropped_path = path.parent / "dropped" / path.name
    if dropped:
        write_parquet(dropped_path, pa.Table.from_pylist(dropped, schema=DROPPED_PAIRS.with_metadata(None)), DROPPED_PAIRS)
    else:
        dropped_path.unlink(missing_ok=True)
    flat = np.concatenate(tokens).ravel() if tokens else np.empty(0, np.uint16)
    offsets = np.arange(len(pair_ids) * num_crops + 1, dtype=np.int32) * config.num_image_tokens
    return pa.table(
        {
            "pair_id": np.repeat(np.array(pair_ids, np.int64), num_crops),
            "crop": np.tile(np.arange(num_crops, dtype=np.int16), len(pair_ids)),
            "image_tokens": pa.ListArray.from_arrays(offsets, flat, type=IMAGE_TOKENS.field("image_tokens").type),
        }
    )


def num_threads(settings: TokenizeImagesConfig) -> int:
    """Threads that decode pictures."""
    return settings.decode_threads or os.cpu_count() or 1


def largest_batch(dvae: DVAEConfig, settings: TokenizeImagesConfig) -> int:
    """Pictures per forward pass that `batch_size` and `batch_memory_gb` allow, at least 1."""
    return max(1, min(settings.batch_size, int(settings.batch_memory_gb * 1e9 / bytes_per_picture(dvae, settings.precision))))


def count_tokens(parts: list[Path], codebook_size: int) -> NDArray[np.int64]:
    """How often each token occurs in the parts, int64 [codebook_size]."""
    occurrences = np.zeros(codebook_size, np.int64)
    for part in parts:
        with open_parquet(part) as file:
            for batch in file.iter_batches(columns=["image_tokens"]):
                occurrences += np.bincount(batch["image_tokens"].flatten().to_numpy(), minlength=codebook_size)
    return occurrences


def _decoded(
    part: Path, side: int, settings: TokenizeImagesConfig, max_pixels: int, seed: int, num_rows: int, progress: Progress
) -> Iterator[Decoded]:
    """Batches of a part's rows with their crops [crops, side, side, 3]; the next batch is decoded while this one is used."""

    def crops(row: dict[str, Any]) -> Pixels | ImageError:
        try:
            pixels = np.asarray(decode_image(row["image"], max_pixels))
        except ImageError as error:
            return error
        if not settings.random_crops:
            return centre(pixels, side, seeded_random())[None]
        keys = [(seed, row["pair_id"], crop) for crop in range(settings.random_crops)]
        return np.stack([transformer_augmentation(pixels, side, seeded_random(*key)) for key in keys])

    def timed_crops(row: dict[str, Any]) -> tuple[Pixels | ImageError, float]:
        started = time.monotonic()
        return crops(row), time.monotonic() - started

    def finished(ahead: list[tuple[dict[str, Any], Future[tuple[Pixels | ImageError, float]]]]) -> Decoded:
        rows = [(row, *future.result()) for row, future in ahead]
        progress.decode_s += sum(seconds for _, _, seconds in rows)
        return [(row, made) for row, made, _ in rows]

    columns = ["pair_id", "image", *_COPIED]
    with ThreadPoolExecutor(num_threads(settings)) as threads, open_parquet(part) as file:
        ahead: list[tuple[dict[str, Any], Future[tuple[Pixels | ImageError, float]]]] | None = None
        for batch in file.iter_batches(num_rows, columns=columns):
            submitted = [(row, threads.submit(timed_crops, row)) for row in batch.to_pylist()]
            if ahead is not None:
                yield finished(ahead)
            ahead = submitted
        if ahead is not None:
            yield finished(ahead)


def _dropped_row(row: dict[str, Any], error: ImageError) -> dict[str, str]:
    return {"stage": "tokenize", "reason": error.reason, "detail": error.detail, **{name: row[name] for name in _COPIED}}


def _dropped_reasons(path: Path) -> list[str]:
    return read_parquet(path, DROPPED_PAIRS, ["reason"])["reason"].to_pylist() if path.exists() else []
