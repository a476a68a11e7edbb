"""Job: pictures for prompts. N candidates each, all of them scored by CLIP and ranked, all of them kept with their origin.

The unit of work is a handful of prompts, written as one part of `generations/`: any number of processes take units side by
side, a killed run continues after its last part, and a picture depends on its own seed alone, so nothing is repeated, lost or different.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dalle_datasets.identity import generation_id
from dalle_datasets.image_batches import MAX_PIXELS, centre
from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.parquet import atomic_path, read_parquet, write_parquet
from dalle_datasets.schemas import DROPPED_PROMPTS, GENERATIONS, PROMPTS
from dalle_datasets.token_batches import pad_tokens
from dalle_model.clip import Clip
from dalle_model.config.generation import SamplingConfig
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.jobs.claims import work_off
from dalle_model.jobs.contact_sheet import write_contact_sheet
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.pictures import save_picture
from dalle_model.jobs.progress import report_progress
from dalle_model.sampling.generate import FREE, candidate_seeds, sample_image_tokens
from dalle_model.sampling.rerank import load_scorer, ranks, score_candidates
from dalle_model.text import BpeTokenizer
from dalle_model.training.parallel import own_device
from dalle_model.transformer import DALLETransformer, load_transformer

SECTIONS = ("sampling",)
VERSION = 1
PICTURES_PER_PART = 512
"""About how many pictures a kill can cost; also what bounds the memory, whatever the number of prompts."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Networks:
    """Everything that takes part in making a picture."""

    tokenizer: BpeTokenizer
    transformer: DALLETransformer
    dvae: DVAE
    clip: Clip


@dataclass(frozen=True, slots=True)
class Batch:
    """The prompts of a run, cut into units of work."""

    units: dict[str, list[Row]]
    """Name of a part of `generations/` -> its prompts."""
    dropped: list[Row]
    """Prompts that cannot be used, with `reason` and `detail`."""
    images_per_s: float = 0.0
    """By this process."""


def work(run: JobRun) -> Batch:
    """Sample, decode, score, rank and save, part after part, until this process and those beside it have made all."""
    settings = run.config.sampling
    networks = load_networks(run)
    batch = open_batch(run, networks.tokenizer)
    num_images = {name: len(prompts) * settings.num_images for name, prompts in batch.units.items()}
    started, num_made = time.monotonic(), 0

    def make(name: str) -> None:
        nonlocal num_made
        write_parquet(part_path(run, name), make_part(run, networks, batch.units[name], name), GENERATIONS)
        num_made += num_images[name]

    def rate() -> float:
        return num_made / max(1e-9, time.monotonic() - started)

    def report(done: int) -> None:
        report_progress(done, sum(num_images.values()), "images", images_per_s=rate())

    work_off(run.run_dir / "claims", num_images, lambda name: part_path(run, name).exists(), make, report)
    return replace(batch, images_per_s=rate())


def finish(run: JobRun, batch: Batch) -> dict[str, Any]:
    """One file and the contact sheets of all parts."""
    parts = [part_path(run, name) for name in batch.units]
    generations = run.run_dir / "generations.parquet"
    join_parts(parts, generations)
    sheets = write_contact_sheets(run, parts)
    num_prompts = sum(map(len, batch.units.values()))
    return {
        "generations": run.layout.relative(generations),
        "images": run.layout.relative(run.run_dir / "images"),
        "contact_sheet": run.layout.relative(sheets[0]),
        "dropped_prompts": run.layout.relative(dropped_path(run)),
        "num_prompts": num_prompts,
        "num_images": num_prompts * run.config.sampling.num_images,
        "images_per_s": round(batch.images_per_s, 2),
        "dropped": dict(sorted(Counter(row["reason"] for row in batch.dropped).items())),
    }


def open_batch(run: JobRun, tokenizer: BpeTokenizer) -> Batch:
    """Read the prompts, keep the reasons of those that cannot be used, and cut the rest into units.

    Raises `ValueError` when none is left.
    """
    settings = run.config.sampling
    prompts, dropped = sort_out(read_parquet(run.input_path("prompts"), PROMPTS).to_pylist(), tokenizer, settings)
    write_parquet(dropped_path(run), pa.Table.from_pylist(dropped, DROPPED_PROMPTS.with_metadata(None)), DROPPED_PROMPTS)
    if not prompts:
        raise ValueError(
            f"none of the {len(dropped)} prompts can be used; the first is {dropped[0]['prompt']!r}: {dropped[0]['detail']}"
            if dropped
            else f"{run.input_path('prompts')} holds no prompts; give some"
        )
    size = max(1, PICTURES_PER_PART // settings.num_images)
    return Batch({f"part-{start // size:05d}": prompts[start : start + size] for start in range(0, len(prompts), size)}, dropped)


def part_path(run: JobRun, name: str) -> Path:
    """The rows of one unit of work."""
    return run.run_dir / "generations" / f"{name}.parquet"


def dropped_path(run: JobRun) -> Path:
    """The prompts that cannot be used."""
    return run.run_dir / "dropped_prompts.parquet"


def load_networks(run: JobRun) -> Networks:
    """Read all checkpoints. Raises `ValueError` when one is missing or damaged, or when they do not belong together."""
    device = own_device()
    for kind in ("transformer", "dvae", "clip", "tokenizer"):
        about = run.input_path(kind) / "config.json"
        found = json.loads(about.read_text())["id"] if about.exists() else None
        if found is not None and found != run.inputs[f"{kind}_id"]:
            wanted = run.inputs[f"{kind}_id"]
            raise ValueError(f"{about.parent} is {kind} {found}, but the run asks for {kind} {wanted}; correct the path or the id")
    made_from = {name: run.inputs[name] for name in ("dvae_id", "tokenizer_id")}
    clip = load_scorer(run.input_path("clip"))
    clip.network.to(device)
    return Networks(
        tokenizer=BpeTokenizer.load(run.input_path("tokenizer")),
        transformer=load_transformer(run.input_path("transformer"), made_from).to(device),
        dvae=load_dvae(run.input_path("dvae")).to(device),
        clip=clip,
    )


def sort_out(rows: list[Row], tokenizer: BpeTokenizer, settings: SamplingConfig) -> tuple[list[Row], list[Row]]:
    """(prompts that can be used, with their `text_tokens`; prompts that cannot, with `reason` and `detail`)."""
    usable: list[Row] = []
    dropped: list[Row] = []
    seen: set[str] = set()
    for row, tokens in zip(rows, tokenizer.encode([row["prompt"] for row in rows]), strict=True):
        if not tokens:
            dropped.append({**row, "reason": "empty", "detail": "it has no text"})
        elif row["prompt_id"] in seen:
            dropped.append({**row, "reason": "duplicate", "detail": "the same prompt stands further up"})
        elif len(tokens) > tokenizer.max_text_tokens and not settings.truncate_prompts:
            detail = (
                f"{len(tokens)} tokens, but the transformer reads {tokenizer.max_text_tokens}; "
                "shorten it or set sampling.truncate_prompts=true"
            )
            dropped.append({**row, "reason": "too_long", "detail": detail})
        elif row["image"] is not None and (problem := image_problem(row["image"])):
            dropped.append({**row, "reason": "bad_image", "detail": problem})
        else:
            seen.add(row["prompt_id"])
            usable.append({**row, "text_tokens": tokens[: tokenizer.max_text_tokens]})
    return usable, dropped


def image_problem(image: bytes) -> str | None:
    """Why a prompt's picture cannot be completed, if so."""
    try:
        decode_image(image, MAX_PIXELS)
    except ImageError as error:
        return str(error)
    return None


def make_part(run: JobRun, networks: Networks, prompts: list[Row], name: str) -> pa.Table:
    """All candidates of some prompts as `schemas.GENERATIONS`; their pictures are saved on the way."""
    settings = run.config.sampling
    seeds = candidate_seeds(run.config.seed, [row["prompt"] for row in prompts], settings.num_images)
    text_tokens = torch.from_numpy(pad_tokens([row["text_tokens"] for row in prompts], networks.tokenizer.max_text_tokens))
    known = torch.stack([known_image_tokens(row["image"], networks.dvae, settings.image_prompt_share) for row in prompts])
    image_tokens = sample_image_tokens(networks.transformer, text_tokens, settings.num_images, settings, seeds, known)
    directory = run.run_dir / "images" / name
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for prompt, tokens, prompt_seeds in zip(prompts, image_tokens, seeds.tolist(), strict=True):
        candidates = [
            {
                "generation_id": generation_id(run.run_id, prompt["prompt_id"], i),
                "prompt_id": prompt["prompt_id"],
                "prompt": prompt["prompt"],
                "prompt_set": prompt["prompt_set"],
                "candidate_index": i,
                "seed": seed,
                "image_tokens": candidate.tolist(),
                "image_path": run.layout.relative(directory / f"{prompt['prompt_id']}-{i:04d}.{settings.image_format}"),
            }
            for i, (candidate, seed) in enumerate(zip(tokens, prompt_seeds, strict=True))
        ]
        pictures = save_pictures(run, candidates, decode_batches(networks.dvae, tokens, settings.batch_size))
        scores = score_candidates(networks.clip, prompt["prompt"], pictures)
        for row, score, rank in zip(candidates, scores.tolist(), ranks(scores).tolist(), strict=True):
            rows.append({**row, "clip_score": score, "rank": rank})
    return pa.Table.from_pylist(rows, GENERATIONS.with_metadata(None))


def known_image_tokens(image: bytes | None, dvae: DVAE, share: float) -> Tensor:
    """int64 [num_image_tokens]: the tokens of the upper rows of a prompt's picture, `FREE` for all that is to be made."""
    config = dvae.config
    known = torch.full((config.num_image_tokens,), FREE)
    if image is not None:
        pixels = centre(np.asarray(decode_image(image, MAX_PIXELS)), config.image_size, np.random.default_rng(0))
        num_known = max(1, round(share * config.image_grid_size)) * config.image_grid_size
        images = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
        known[:num_known] = dvae.tokenize(images.to(next(dvae.parameters()).device))[0, :num_known].cpu()
    return known


def decode_batches(dvae: DVAE, tokens: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Pictures [B, 3, H, W] of tokens [N, num_image_tokens], rounded to the 256 levels that a file keeps."""
    for start in range(0, len(tokens), batch_size):
        yield (dvae.decode_tokens(tokens[start : start + batch_size]) * 255).round() / 255


def save_pictures(run: JobRun, candidates: list[Row], batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Pass batches of pictures on, saving each picture under its candidate's path with its origin inside."""
    rows = iter(candidates)
    for images in batches:
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for picture, row in zip(pixels, rows, strict=False):
            origin = {name: row[name] for name in ("prompt", "generation_id", "prompt_id", "candidate_index", "seed")}
            networks = {name: run.inputs[name] for name in ("transformer_id", "dvae_id", "tokenizer_id")}
            save_picture(run.layout.root / row["image_path"], picture, {**origin, **networks, "run_id": run.run_id})
        yield images


def join_parts(parts: list[Path], path: Path) -> None:
    """One file of all parts, a part at a time in memory."""
    with atomic_path(path) as partial, pq.ParquetWriter(partial, GENERATIONS, compression="zstd", compression_level=1) as writer:
        for part in parts:
            writer.write_table(read_parquet(part, GENERATIONS).replace_schema_metadata(GENERATIONS.metadata))


def write_contact_sheets(run: JobRun, parts: list[Path]) -> list[Path]:
    """A web page for each part, linked to one another."""
    sheets = [run.run_dir / "contact_sheets" / f"{part.stem}.html" for part in parts]
    for i, (part, sheet) in enumerate(zip(parts, sheets, strict=True)):
        links = {"previous": sheets[i - 1].name} if i else {}
        if i + 1 < len(sheets):
            links["next"] = sheets[i + 1].name
        rows = read_parquet(
            part, GENERATIONS, ["generation_id", "prompt_id", "prompt", "prompt_set", "seed", "clip_score", "rank", "image_path"]
        )
        write_contact_sheet(sheet, run.layout.root, rows.to_pylist(), f"{run.run_id}, page {i + 1} of {len(sheets)}", links)
    return sheets
