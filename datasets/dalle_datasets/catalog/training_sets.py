"""Export of a training set: the rows that a SQL query selects, shuffled once, as Parquet with a content id."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dalle_datasets.catalog.queries import bind
from dalle_datasets.catalog.sql_files import SqlFile, read_sql
from dalle_datasets.sources.blocked import BlockList, read_blocks
from dalle_datasets.store.ids import content_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path, remove_stale, write_parquet
from dalle_datasets.store.schemas import TRAINING_SET


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """An exported training set."""

    id: str
    path: str
    """Folder of the parts, relative to the data root."""
    num_pairs: int
    """Different pairs of both splits."""
    num_validation: int
    """Different pairs of the validation split."""


def export_training_set(
    con: duckdb.DuckDBPyConnection,
    layout: Layout,
    *,
    query: str,
    pairs_id: str,
    tokenizer_id: str,
    dvae_id: str,
    clip_id: str,
    min_clip_score_quantile: float,
    seed: int,
    rows_per_part: int,
    row_group_size: int,
    safety_id: str = "",
    max_nsfw_score: float = 0.5,
    max_watermark_score: float = 0.5,
    params: Mapping[str, Any] | None = None,
) -> TrainingSet:
    """Run `sql/training_sets/<query>.sql` on a catalog and write what it selects, unless that has been done.

    The published copy will do, and keeps no writer waiting; `ingest_training_set` then makes the set known to the live catalog.

    The id is a hash of the query's text, its parameters, and the content of every file it can read; equal ids mean equal
    files. `pairs_id` only names the pairs in the lineage. The safety parameters count for queries that ask for safety scores;
    `params` are the query's own, as values or as text. Raises `ValueError` for an unknown query or parameter, when the query selects
    nothing, when it asks for safety scores and there are none, and when the catalog holds what was forgotten.
    """
    refuse_forgotten(con, read_blocks(layout), "no training set is made")
    file = read_sql("training_sets", query)
    if fixed := sorted(set(params or {}) & {"root", "tokenizer_id", "dvae_id", "clip_id", "safety_id"}):
        raise ValueError(f"{fixed[0]} of a training set follows from the settings; choose networks with --with, not with --param")
    asks_for_safety = "safety_id" in _declared(file)
    if asks_for_safety and not safety_id:
        raise ValueError(
            f"sql/training_sets/{query}.sql needs safety scores, but no classifier gives them; "
            "set safety.classifier to zero_shot or head and run `dalle run score_pairs`"
        )
    parameters: dict[str, Any] = {
        "tokenizer_id": tokenizer_id,
        "dvae_id": dvae_id,
        "clip_id": clip_id,
        "min_clip_score_quantile": min_clip_score_quantile,
    }
    made_from = {"tokenizer": tokenizer_id, "dvae": dvae_id, "clip": clip_id, "pairs": pairs_id}
    if asks_for_safety:
        parameters |= {"safety_id": safety_id, "max_nsfw_score": max_nsfw_score, "max_watermark_score": max_watermark_score}
        made_from["safety"] = safety_id
    given = bind(
        file, {"root": str(layout.root), **{name: parameters[name] for name in _declared(file) & set(parameters)}, **(params or {})}
    )
    parameters |= {name: given[name] for name in params or {}}
    ids = {"tokenizer_id": tokenizer_id, "dvae_id": dvae_id, "clip_id": clip_id, "safety_id": parameters.get("safety_id", "")}
    inputs = con.execute(read_sql("ingest", "training_set_inputs").text, ids).fetchall()
    sizes = {"seed": seed, "rows_per_part": rows_per_part, "row_group_size": row_group_size}
    training_set_id = content_id("training_set", file.text, json.dumps([parameters, sizes, inputs], sort_keys=True))
    folder = layout.training_set(training_set_id)
    if not (folder / "manifest.json").exists():
        counts = _export(con, folder, file, given, parameters, sizes)
        manifest = {
            "training_set_id": training_set_id,
            "query": query,
            "query_sql": file.text,
            "parameters": {**parameters, **sizes},
            "tokenizer_id": tokenizer_id,
            "dvae_id": dvae_id,
            "clip_id": clip_id,
            **counts,
            "path": layout.relative(folder),
            "inputs": made_from,
        }
        with atomic_path(folder / "manifest.json") as partial:
            partial.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    made = json.loads((folder / "manifest.json").read_text())
    return TrainingSet(id=training_set_id, path=made["path"], num_pairs=made["num_pairs"], num_validation=made["num_validation"])


def refuse_forgotten(con: duckdb.DuckDBPyConnection, blocks: BlockList, outcome: str) -> None:
    """Raise `ValueError` if the catalog holds pairs that are on the block list, e.g. because their files were brought back by hand.

    `outcome` says there what does not happen.
    """
    if not len(blocks):
        return
    reader = con.execute(read_sql("ingest", "places_of_pairs").text).to_arrow_reader(10_000)
    is_there = (
        blocks.has_address(row["image_url"], row["page_url"]) or blocks.has_picture(row["sha256"], row["pixel_sha256"])
        for batch in reader
        for row in batch.to_pylist()
    )
    if num_pairs := sum(is_there):
        raise ValueError(f"{num_pairs} pairs of the catalog are on the block list, so {outcome}; take them out with `dalle forget --yes`")


def _declared(file: SqlFile) -> set[str]:
    return {parameter.name for parameter in file.parameters}


def _export(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    file: SqlFile,
    values: dict[str, Any],
    parameters: dict[str, Any],
    sizes: dict[str, int],
) -> dict[str, Any]:
    """Write the parts and `query.sql`, and return the counts for the manifest."""
    con.execute(f"create or replace temp table chosen_pairs as {file.text}", values)
    try:
        con.execute(read_sql("ingest", "remove_repeated_rows").text)
        result = con.execute(read_sql("ingest", "training_set_counts").text)
        names = [column[0] for column in result.description]
        counts = dict(zip(names, result.fetchall()[0], strict=True))
        if not counts["num_rows"]:
            raise ValueError(
                f"sql/training_sets/{file.name}.sql selects no pairs (tokenizer {parameters['tokenizer_id']}, "
                f"dVAE {parameters['dvae_id']}, CLIP {parameters['clip_id']}); lower catalog.min_clip_score_quantile, "
                "loosen the filters, or tokenise and score the pairs first"
            )
        # not con.sql(…, params=…): that keeps every value as a boxed one, outside DuckDB's memory limit
        shuffled = con.execute(read_sql("ingest", "shuffled_training_set").text, {"seed": sizes["seed"]})
        reader = shuffled.to_arrow_reader(min(sizes["rows_per_part"], 10_000))
        paths = []
        for number, batch in enumerate(_cut(reader, sizes["rows_per_part"])):
            path = folder / f"part-{number:05d}.parquet"
            write_parquet(path, batch, TRAINING_SET, sizes["row_group_size"])
            paths.append(path)
    finally:
        con.execute("drop table if exists chosen_pairs")
    remove_stale(folder, keep=paths)
    with atomic_path(folder / "query.sql") as partial:
        partial.write_text(file.text)
    return counts


def _cut(reader: pa.RecordBatchReader, num_rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `num_rows` rows (the last may be shorter), whatever sizes DuckDB's batches have."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        while (have := sum(item.num_rows for item in waiting)) >= num_rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, num_rows)
            waiting = table.slice(num_rows).to_batches() if have > num_rows else []
    if sum(item.num_rows for item in waiting):
        yield pa.Table.from_batches(waiting)
