"""The units of work of a batch of pictures: how prompts are cut into parts, and how the parts become one batch again."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dalle_datasets.store.parquet import SchemaError, atomic_path, check_parquet, open_parquet, read_parquet
from dalle_datasets.store.schemas import GENERATION_EMBEDDINGS, GENERATION_PARTS, GENERATIONS
from dalle_model.generated.contact_sheet import write_contact_sheet
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import ranks

PICTURES_PER_PART = 512
"""The most pictures that a kill can cost, and that are in memory at a time."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unit:
    """What is made together and written as one part of `generations/`: the same candidates of some prompts."""

    name: str
    prompts: list[Row]
    candidates: range

    @property
    def num_images(self) -> int:
        """How many pictures that is."""
        return len(self.prompts) * len(self.candidates)


def plan_units(prompts: list[Row], num_images: int) -> list[Unit]:
    """Cut prompts into units of at most `PICTURES_PER_PART` pictures; a prompt that asks for more is cut into slices of its candidates."""
    size = PICTURES_PER_PART // num_images
    if size:
        cuts = [(prompts[start : start + size], range(num_images)) for start in range(0, len(prompts), size)]
    else:
        slices = [range(start, min(start + PICTURES_PER_PART, num_images)) for start in range(0, num_images, PICTURES_PER_PART)]
        cuts = [([prompt], candidates) for prompt in prompts for candidates in slices]
    return [Unit(f"part-{i:05d}", some, candidates) for i, (some, candidates) in enumerate(cuts)]


def part_path(run: JobRun, name: str) -> Path:
    """The rows of one unit of work."""
    return run.run_dir / "generations" / f"{name}.parquet"


def is_whole(part: Path) -> bool:
    """Whether a part is there and can be read: one that was damaged, or written by an older version, is made again."""
    try:
        return part.exists() and bool(check_parquet(part, GENERATION_PARTS))
    except SchemaError:
        return False


def join_parts(run: JobRun, units: list[Unit], generations: Path, embeddings: Path) -> None:
    """`schemas.GENERATIONS` and `schemas.GENERATION_EMBEDDINGS` of all parts; one part, and the scores of one prompt, in memory.

    A part becomes a row group of both. Ranks are given here, because the candidates of a prompt may be spread over parts.
    """
    num_images = run.config.sampling.num_images
    options = {"compression": "zstd", "compression_level": 1}
    with (
        atomic_path(generations) as partial,
        atomic_path(embeddings) as partial_embeddings,
        pq.ParquetWriter(partial, GENERATIONS, **options) as rows,
        pq.ParquetWriter(partial_embeddings, GENERATION_EMBEDDINGS, **options) as vectors,
    ):
        for _, some in groupby(units, key=lambda unit: unit.prompts[0]["prompt_id"]):
            parts = [part_path(run, unit.name) for unit in some]
            scores = [read_parquet(part, GENERATION_PARTS, ["clip_score"])["clip_score"].to_numpy() for part in parts]
            places = np.concatenate([ranks(torch.from_numpy(own)).numpy() for own in np.concatenate(scores).reshape(-1, num_images)])
            for part, own in zip(parts, np.split(places, np.cumsum([len(one) for one in scores])[:-1]), strict=True):
                table = read_parquet(part, GENERATION_PARTS)
                table = table.append_column("rank", pa.array(own, pa.int32()))
                table = table.append_column("clip_id", pa.array([run.inputs["clip_id"]] * len(table), pa.string()))
                for schema, file in ((GENERATIONS, rows), (GENERATION_EMBEDDINGS, vectors)):
                    file.write_table(table.select(schema.names).cast(schema.with_metadata(None)).replace_schema_metadata(schema.metadata))


def write_contact_sheets(run: JobRun, units: list[Unit], generations: Path) -> list[Path]:
    """A web page for each unit, linked to one another."""
    columns = ["generation_id", "prompt_id", "prompt", "prompt_set", "seed", "clip_score", "rank", "image_path"]
    sheets = [run.run_dir / "contact_sheets" / f"{unit.name}.html" for unit in units]
    with open_parquet(generations) as file:
        for i, sheet in enumerate(sheets):
            links = {"previous": sheets[i - 1].name} if i else {}
            if i + 1 < len(sheets):
                links["next"] = sheets[i + 1].name
            title = f"{run.run_id}, page {i + 1} of {len(sheets)}"
            write_contact_sheet(sheet, run.layout.root, file.read_row_group(i, columns).to_pylist(), title, links)
    return sheets
