"""The pictures of a batch that somebody looks at: the best of each prompt, under names that say what they show."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import open_parquet

MAX_NAME_BYTES = 120
"""Of the words in a file's name; file systems take 255 bytes."""


def best_rows(layout: Layout, made: Mapping[str, Any], keep: int) -> Iterator[dict[str, Any]]:
    """The rows of the `keep` best candidates of each prompt, best first."""
    best: dict[str, list[dict[str, Any]]] = {}
    with open_parquet(layout.root / made["generations"]) as file:
        for batch in file.iter_batches(columns=["generation_id", "prompt_id", "prompt", "clip_score", "rank", "image_path"]):
            for row in batch.filter(pc.less_equal(batch["rank"], keep)).to_pylist():
                best.setdefault(row["prompt_id"], []).append(row)
    for rows in best.values():
        yield from sorted(rows, key=lambda row: int(row["rank"]))


def copy_best_pictures(layout: Layout, made: Mapping[str, Any], keep: int, output: Path, alone: bool) -> list[tuple[Path, dict[str, Any]]]:
    """Copy them to the folder `output`; returns the copies with their rows. Of many prompts (not `alone`), two may begin alike: their
    ids tell them apart."""
    output.mkdir(parents=True, exist_ok=True)
    copies = []
    for row in best_rows(layout, made, keep):
        source = layout.root / row["image_path"]
        name = file_name(row["prompt"], row["prompt_id"], alone)
        copy = output / f"{name}-{row['rank']}{source.suffix}"
        shutil.copyfile(source, copy)
        copies.append((copy, row))
    return copies


def file_name(prompt: str, prompt_id: str, alone: bool) -> str:
    """A prompt as a file name, in any script. Unless the words alone say which prompt it was (and it is `alone`), its id is in it too."""
    words = name = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    while len(name.encode()) > MAX_NAME_BYTES:
        name = name[:-1]
    is_plain = alone and name == words and prompt == words.replace("-", " ")
    return name if is_plain else f"{name or 'picture'}-{prompt_id[:8]}"
