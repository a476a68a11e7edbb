"""Writer of prompts as a Parquet file: the demo's three sets, captions of validation pairs, or given ones."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dalle_datasets.config import SourceConfig
from dalle_datasets.demo.emoji_scenes import PROMPT_SETS, prompts
from dalle_datasets.store.ids import content_id, prompt_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import iter_batches, write_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, PAIRS, PROMPTS

VALIDATION = "validation"
SEEN_CAPTION = "seen_caption"
"""The set of the prompts whose captions occur in training, whatever set they came from."""


def scene_prompts(source: SourceConfig, num_prompts: int) -> pa.Table:
    """`num_prompts` of each of the demo's sets, with the scene each asks for. A prompt is listed once, in the first set that has it."""
    rows: dict[str, dict[str, str | None]] = {}
    for prompt_set in PROMPT_SETS:
        for prompt, scene in prompts(prompt_set, num_prompts, source.num_scenes):
            rows.setdefault(prompt, {"prompt_set": prompt_set, "expected": json.dumps(asdict(scene), sort_keys=True)})
    return _table([{"prompt": prompt, **row} for prompt, row in rows.items()])


def validation_prompts(pairs: Path, num_prompts: int) -> pa.Table:
    """Captions of the first pairs that no network was trained on; those that occur in training, too, come
    last.

    Raises `ValueError` when there is no such pair.
    """
    captions: dict[str, None] = {}
    trained_on: list[NDArray[np.int64]] = [_hashes([])]  # 8 bytes a pair, since there may be millions
    for batch in iter_batches(pairs, PAIRS, ["caption", "split"], 10_000):
        is_kept_apart = pc.equal(batch["split"], VALIDATION)
        captions |= dict.fromkeys(batch.filter(is_kept_apart)["caption"].to_pylist())
        trained_on.append(_hashes(batch.filter(pc.invert(is_kept_apart))["caption"].to_pylist()))
    if not captions:
        raise ValueError(f"{pairs} holds no validation pairs to take prompts from; raise filter.validation_share or give prompts")
    is_seen = dict(zip(captions, np.isin(_hashes(captions), np.concatenate(trained_on)), strict=True))
    chosen = sorted(captions, key=lambda caption: is_seen[caption])[:num_prompts]
    return _table([{"prompt": caption, "prompt_set": VALIDATION, "expected": None} for caption in chosen])


def _hashes(captions: Iterable[str]) -> NDArray[np.int64]:
    """64 bits of each caption whatever its case, the same within this process."""
    return np.fromiter((hash(caption.lower()) for caption in captions), np.int64)


def write_prompts(layout: Layout, prompts: pa.Table, dropped: pa.Table | None = None, query: str = "") -> dict[str, str]:
    """Write prompts under the id of their content; returns the inputs of `generate_images` that name them.

    `dropped` are the rows (`schemas.DROPPED_PROMPTS`) that could not be read as prompts, `query` the SQL whose rows they are: it is
    kept in the file and is part of the id.
    """
    lines = [json.dumps({**row, "image": row["image"] and content_id(row["image"])}, sort_keys=True) for row in prompts.to_pylist()]
    prompts_id = content_id("prompts", *lines, *((query,) if query else ()))[:12]
    path = layout.prompts(prompts_id)
    write_parquet(
        path, prompts, PROMPTS, metadata={"query": query}
    )  # again if need be: the id says nothing about the version of the schema
    inputs = {"prompts": layout.relative(path), "prompts_id": prompts_id}
    if dropped is not None and dropped.num_rows:
        reasons = content_id("dropped prompts", *(json.dumps(row, sort_keys=True) for row in dropped.to_pylist()))[:12]
        path = layout.prompts(f"dropped-{reasons}")
        write_parquet(path, dropped, DROPPED_PROMPTS)
        inputs["dropped_prompts"] = layout.relative(path)
    return inputs


def _table(rows: list[dict[str, str | None]]) -> pa.Table:
    return pa.Table.from_pylist([{"prompt_id": prompt_id(str(row["prompt"])), **row} for row in rows], schema=PROMPTS.with_metadata(None))
