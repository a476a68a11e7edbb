"""Job: image tokens of every pair's picture, one Parquet part for each part of pairs.

Decoding runs ahead of the network in threads: one batch is being made while another is in the network. A picture that
cannot be decoded loses its tokens, not the batch: it gets a row with its reason in the `dropped` folder beside the parts.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle_datasets.image_batches import Pixels, centre, transformer_augmentation
from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.row_order import seeded_random
from dalle_datasets.schemas import CODEBOOK_USAGE, DROPPED_PAIRS, IMAGE_TOKENS
from dalle_model.config.model import DVAEConfig
from dalle_model.config.tokenizing import TokenizeImagesConfig
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.loss import codebook_perplexity
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.parts import map_parts
from dalle_model.jobs.progress import report_progress
from dalle_model.jobs.train_dvae import as_floats, as_tensor
from dalle_model.training.loop import autocast
from dalle_model.training.parallel import join_world, wait_for_all

SECTIONS = ("tokenize_images", "shards")
VERSION = 1

Decoded = list[tuple[dict[str, Any], Pixels | ImageError]]
"""Rows of pairs, each with its crops [crops, side, side, 3] or the reason why there are none."""

_COPIED = ("candidate_id", "source", "caption", "image_url", "page_url")


def run(run: JobRun) -> dict[str, Any]:
    """Tokenise part by part; a part that an interrupted run finished is kept."""
    settings, seed = run.config.tokenize_images, run.config.seed
    world = join_world()
    model = load_dvae(run.input_path("dvae")).to(world.device).to(memory_format=torch.channels_last)
    directory = run.layout.image_tokens(run.inputs["dvae_id"])
    pairs = run.input_path("pairs")
    own = list_parts(pairs)[world.rank :: world.size]
    progress = Progress(sum(pq.read_metadata(part).num_rows for part in own), is_shown=world.is_main)

    def make(part: Path) -> pa.Table:
        tokens, dropped = tokenize_part(model, part, settings, run.config.download.max_pixels, seed, progress)
        path = directory / "dropped" / f"{pairs.name}-{part.name}"
        if dropped.num_rows:
            write_parquet(path, dropped, DROPPED_PAIRS)
        else:
            path.unlink(missing_ok=True)
        return tokens

    made_from = {
        "dvae_id": run.inputs["dvae_id"],
        "random_crops": str(settings.random_crops),
        "seed": str(seed),
        "precision": settings.precision,
    }
    parts = map_parts(run, directory, IMAGE_TOKENS, make, made_from, world.rank, world.size)
    wait_for_all(world)
    if not world.is_main:
        return {}
    occurrences = count_tokens(parts, model.config.codebook_size)
    usage_path = run.run_dir / "codebook_usage.parquet"
    usage = pa.table({"image_token": np.arange(len(occurrences), dtype=np.int32), "occurrences": occurrences})
    write_parquet(usage_path, usage, CODEBOOK_USAGE)
    dropped = [reason for part in parts for reason in _dropped_reasons(directory / "dropped" / part.name)]
    return {
        "image_tokens": run.layout.relative(directory),
        "num_images": sum(pq.read_metadata(part).num_rows for part in parts),
        "codes_used": int((occurrences > 0).sum()),
        "perplexity": codebook_perplexity(torch.from_numpy(occurrences)),
        "codebook_usage": run.layout.relative(usage_path),
        "dropped": {reason: dropped.count(reason) for reason in sorted(set(dropped))},
        **progress.rates(settings.decode_threads),
    }


class Progress:
    """Pictures done so far and how many a second, counted over this execution and this process only."""

    def __init__(self, num_pictures: int, is_shown: bool = True) -> None:
        self.is_shown = is_shown
        self.num_pictures, self.done, self._started = num_pictures, 0, time.monotonic()
        self.decode_s = self.network_s = 0.0
        """Seconds spent in each part: of all decoding threads together, and of the network."""

    def rates(self, num_threads: int) -> dict[str, float]:
        """Pictures a second overall, and what each part could do if the other cost nothing."""
        seconds = {"images_per_s": time.monotonic() - self._started, "network_images_per_s": self.network_s}
        seconds["decode_images_per_s"] = self.decode_s / num_threads
        return {name: round(self.done / value, 1) for name, value in seconds.items() if self.done and value}

    def add(self, num_pictures: int) -> None:
        """Say that so many more pictures have their tokens."""
        self.done += num_pictures
        rate = self.done / max(1e-9, time.monotonic() - self._started)
        if self.is_shown:
            report_progress(self.done, self.num_pictures, "images", images_per_s=rate)


def tokenize_part(
    model: DVAE, part: Path, settings: TokenizeImagesConfig, max_pixels: int, seed: int, progress: Progress
) -> tuple[pa.Table, pa.Table]:
    """`schemas.IMAGE_TOKENS` of one part of pairs, in its order, and `schemas.DROPPED_PAIRS` of pictures that could not be decoded."""
    device, side = next(model.parameters()).device, model.config.image_size
    num_crops = max(1, settings.random_crops)
    pair_ids: list[int] = []
    tokens: list[NDArray[np.uint16]] = []
    dropped: list[dict[str, str]] = []
    num_rows = max(1, largest_batch(model.config, settings) // num_crops)
    for rows in _decoded(part, side, settings, max_pixels, seed, num_rows, progress):
        good = [(row, crops) for row, crops in rows if not isinstance(crops, ImageError)]
        dropped += [_dropped_row(row, error) for row, error in rows if isinstance(error, ImageError)]
        if good:
            images = np.concatenate([crops for _, crops in good])
            pair_ids += [row["pair_id"] for row, _ in good]
            started = time.monotonic()
            with autocast(settings.precision, device):
                tokens.append(model.tokenize(as_floats(_moved(as_tensor(images), device))).cpu().numpy().astype(np.uint16))
            progress.network_s += time.monotonic() - started
        progress.add(len(rows))
    flat = np.concatenate(tokens).ravel() if tokens else np.empty(0, np.uint16)
    num_tokens = model.config.num_image_tokens
    offsets = np.arange(len(pair_ids) * num_crops + 1, dtype=np.int32) * num_tokens
    table = pa.table(
        {
            "pair_id": np.repeat(np.array(pair_ids, np.int64), num_crops),
            "crop": np.tile(np.arange(num_crops, dtype=np.int16), len(pair_ids)),
            "image_tokens": pa.ListArray.from_arrays(offsets, flat, type=IMAGE_TOKENS.field("image_tokens").type),
        }
    )
    return table, pa.Table.from_pylist(dropped, schema=DROPPED_PAIRS.with_metadata(None))


def largest_batch(dvae: DVAEConfig, settings: TokenizeImagesConfig) -> int:
    """Pictures per forward pass that `batch_size` and `batch_memory_gb` allow, at least 1.

    At its widest a pass holds about four activations of the first group (input, skip, and two of the residual branch) and,
    at its end, the logits twice, in fp32.
    """
    first_group = 4 * dvae.hidden_width * (dvae.image_size // dvae.stem_patch_size) ** 2
    logits = 2 * dvae.codebook_size * dvae.num_image_tokens
    return max(1, min(settings.batch_size, int(settings.batch_memory_gb * 1e9 / (4 * max(first_group, logits)))))


def count_tokens(parts: list[Path], codebook_size: int) -> NDArray[np.int64]:
    """How often each token occurs in the parts, int64 [codebook_size]."""
    occurrences = np.zeros(codebook_size, np.int64)
    for part in parts:
        with pq.ParquetFile(part) as file:
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
    with ThreadPoolExecutor(settings.decode_threads) as threads, pq.ParquetFile(part) as file:
        ahead: list[tuple[dict[str, Any], Future[tuple[Pixels | ImageError, float]]]] | None = None
        for batch in file.iter_batches(num_rows, columns=columns):
            submitted = [(row, threads.submit(timed_crops, row)) for row in batch.to_pylist()]
            if ahead is not None:
                yield finished(ahead)
            ahead = submitted
        if ahead is not None:
            yield finished(ahead)


def _moved(images: Tensor, device: torch.device) -> Tensor:
    """The bytes on the network's device, through pinned memory if that is a GPU."""
    return images.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else images


def _dropped_row(row: dict[str, Any], error: ImageError) -> dict[str, str]:
    return {"stage": "tokenize", "reason": error.reason, "detail": error.detail, **{name: row[name] for name in _COPIED}}


def _dropped_reasons(path: Path) -> list[str]:
    return read_parquet(path, DROPPED_PAIRS, ["reason"])["reason"].to_pylist() if path.exists() else []
