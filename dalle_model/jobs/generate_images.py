"""Job: pictures for prompts. N candidates each, all of them scored by CLIP and ranked, all of them kept with their origin.

The unit of work is a handful of prompts, or a slice of one prompt's candidates, written as one part of `generations/`: any number of
processes take units side by side, a killed run continues after its last part, and a picture depends on its own seed alone, so nothing is
repeated, lost or different. Memory depends on the size of a unit, whatever the number of prompts and of candidates.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from dalle_datasets.loading.token_batches import pad_tokens
from dalle_datasets.store.ids import generation_id
from dalle_datasets.store.parquet import list_column, read_parquet, write_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, GENERATION_PARTS, PROMPTS
from dalle_model.dvae.pixels import as_bytes
from dalle_model.generated.image_files import save_picture
from dalle_model.generated.units import Unit, is_whole, join_parts, part_path, plan_units, write_contact_sheets
from dalle_model.generator import NETWORKS, Networks, decode_batches, known_image_tokens, load_networks
from dalle_model.prompt_checks import sort_out
from dalle_model.running.claims import run_units
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.sampling.rerank import embed_candidates, score_embeddings
from dalle_model.text import BpeTokenizer

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The prompts of a run, cut into units of work."""

    units: list[Unit]
    dropped: list[Row]
    """Prompts that cannot be used, with `reason` and `detail`."""
    images_per_s: float = 0.0
    """By this process."""


def work(run: JobRun) -> Batch:
    """Sample, decode, score and save, part after part, until this process and those beside it have made all."""
    directories = {kind: run.input_path(kind) for kind in NETWORKS}
    networks = load_networks(directories, run.inputs, run.config.sampling.precision)
    batch = open_batch(run, networks.tokenizer)
    units = {unit.name: unit for unit in batch.units}
    num_images = sum(unit.num_images for unit in batch.units)
    started, num_made, num_done = time.monotonic(), 0, 0

    def make(name: str) -> None:
        nonlocal num_made
        table = make_part(run, networks, units[name], lambda num_in_part: report(num_done, num_in_part))
        write_parquet(part_path(run, name), table, GENERATION_PARTS)
        num_made += units[name].num_images

    def rate(num_in_part: int = 0) -> float:
        return (num_made + num_in_part) / max(1e-9, time.monotonic() - started)

    def report(done: int, num_in_part: int = 0) -> None:
        nonlocal num_done
        num_done = done
        report_progress(done + num_in_part, num_images, "images", images_per_s=rate(num_in_part))

    sizes = {unit.name: unit.num_images for unit in batch.units}
    run_units(run.run_dir / "claims", sizes, lambda name: is_whole(part_path(run, name)), make, report)
    return replace(batch, images_per_s=rate())


def finish(run: JobRun, batch: Batch) -> dict[str, Any]:
    """All parts in one file, with ranks, another one of their embeddings, and contact sheets."""
    generations, embeddings = run.run_dir / "generations.parquet", run.run_dir / "image_embeddings.parquet"
    join_parts(run, batch.units, generations, embeddings)
    sheets = write_contact_sheets(run, batch.units, generations)
    num_images = sum(unit.num_images for unit in batch.units)
    return {
        "generations": run.layout.relative(generations),
        "image_embeddings": run.layout.relative(embeddings),
        "images": run.layout.relative(run.run_dir / "images"),
        "contact_sheet": run.layout.relative(sheets[0]),
        "dropped_prompts": run.layout.relative(dropped_path(run)),
        "num_prompts": num_images // run.config.sampling.num_images,
        "num_images": num_images,
        "images_per_s": round(batch.images_per_s, 2),
        "dropped": dict(sorted(Counter(row["reason"] for row in batch.dropped).items())),
    }


def open_batch(run: JobRun, tokenizer: BpeTokenizer) -> Batch:
    """Read the prompts, keep the reasons of those that cannot be used, and cut the rest into units.

    Rows that were no prompts already when their file was read are the input `dropped_prompts`, if there are any.
    Raises `ValueError` when no usable prompt is left.
    """
    settings = run.config.sampling
    unread = read_parquet(run.input_path("dropped_prompts"), DROPPED_PROMPTS).to_pylist() if "dropped_prompts" in run.inputs else []
    prompts, unusable = sort_out(read_parquet(run.input_path("prompts"), PROMPTS).to_pylist(), tokenizer, settings.truncate_prompts)
    dropped = unread + unusable
    write_parquet(dropped_path(run), pa.Table.from_pylist(dropped, DROPPED_PROMPTS.with_metadata(None)), DROPPED_PROMPTS)
    if not prompts:
        raise ValueError(
            f"none of the {len(dropped)} prompts can be used; the first is {dropped[0]['prompt']!r}: {dropped[0]['detail']}"
            if dropped
            else f"{run.input_path('prompts')} holds no prompts; give some"
        )
    return Batch(plan_units(prompts, settings.num_images), dropped)


def dropped_path(run: JobRun) -> Path:
    """The prompts that cannot be used."""
    return run.run_dir / "dropped_prompts.parquet"


def make_part(run: JobRun, networks: Networks, unit: Unit, report: Callable[[int], None]) -> pa.Table:
    """The pictures of a unit as `schemas.GENERATION_PARTS`; their files are saved on the way. `report` is told how many are made."""
    settings = run.config.sampling
    directory = run.run_dir / "images" / unit.name
    directory.mkdir(parents=True, exist_ok=True)
    # A GPU captures its step once for each call. A CPU may take minutes for a batch: each is reported.
    is_on_gpu = networks.transformer.image_head.weight.is_cuda
    prompts_at_once = len(unit.prompts) if is_on_gpu else max(1, settings.batch_size // len(unit.candidates))
    made: list[pa.Table] = []
    for start in range(0, len(unit.prompts), prompts_at_once):
        prompts = unit.prompts[start : start + prompts_at_once]
        seeds = candidate_seeds(run.config.seed, [row["prompt"] for row in prompts], settings.num_images)
        seeds = seeds[:, unit.candidates.start : unit.candidates.stop]
        text_tokens = torch.from_numpy(pad_tokens([row["text_tokens"] for row in prompts], networks.tokenizer.max_text_tokens))
        known = torch.stack([known_image_tokens(row["image"], networks.dvae, settings.image_prompt_share) for row in prompts])
        image_tokens = sample_image_tokens(networks.transformer, text_tokens, len(unit.candidates), settings, seeds, known)
        for prompt, tokens, prompt_seeds in zip(prompts, image_tokens, seeds.tolist(), strict=True):
            made.append(save_candidates(run, networks, prompt, dict(zip(unit.candidates, prompt_seeds, strict=True)), tokens, directory))
            report(len(made) * len(unit.candidates))
    return pa.concat_tables(made)


def save_candidates(run: JobRun, networks: Networks, prompt: Row, seeds: dict[int, int], image_tokens: Tensor, directory: Path) -> pa.Table:
    """Decode, score and save candidates (index -> seed) of one prompt, whose tokens are [N, num_image_tokens]."""
    settings = run.config.sampling
    rows = [
        {
            "generation_id": generation_id(run.run_id, prompt["prompt_id"], i),
            "prompt_id": prompt["prompt_id"],
            "prompt": prompt["prompt"],
            "prompt_set": prompt["prompt_set"],
            "candidate_index": i,
            "seed": seed,
            "image_path": run.layout.relative(directory / f"{prompt['prompt_id']}-{i:04d}.{settings.image_format}"),
        }
        for i, seed in seeds.items()
    ]
    pictures = save_pictures(run, rows, decode_batches(networks.dvae, image_tokens, settings.batch_size))
    embeddings = embed_candidates(networks.clip, pictures)
    columns = {
        **{name: [row[name] for row in rows] for name in rows[0]},
        "clip_score": score_embeddings(networks.clip, prompt["prompt"], embeddings).numpy(),
        "image_tokens": list_column(image_tokens.cpu().numpy(), GENERATION_PARTS.field("image_tokens").type),
        "image_embedding": list_column(embeddings.half().numpy(), GENERATION_PARTS.field("image_embedding").type),
    }
    return pa.table({name: columns[name] for name in GENERATION_PARTS.names}, schema=GENERATION_PARTS.with_metadata(None))


def save_pictures(run: JobRun, candidates: list[Row], batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Pass batches of pictures on, saving each picture under its candidate's path with its origin inside."""
    rows = iter(candidates)
    for images in batches:
        for picture, row in zip(as_bytes(images), rows, strict=False):
            origin = {name: row[name] for name in ("prompt", "generation_id", "prompt_id", "candidate_index", "seed")}
            networks = {name: run.inputs[name] for name in ("transformer_id", "dvae_id", "tokenizer_id")}
            save_picture(run.layout.root / row["image_path"], picture, {**origin, **networks, "run_id": run.run_id})
        yield images
