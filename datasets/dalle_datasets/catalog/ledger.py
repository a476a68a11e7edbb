"""Which files the catalog holds, and their rows, exactly once.

A file counts once because its rows and its row in the ledger (path and content hash) are inserted in one
transaction. When a path comes back with other content its old rows are replaced, and when a file has gone they
are removed; `replaced_parts` remembers both.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dalle_datasets.catalog.migrations import transaction, utc_now
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store import schemas
from dalle_datasets.store.ids import file_sha256
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import SchemaError, check_parquet, list_parts


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of artefact: its schema, and table -> the statement that fills it."""

    schema: pa.Schema
    inserts: Mapping[str, str]


KINDS = {
    "pairs": Kind(schemas.PAIRS, {"pairs": "insert_pairs"}),
    "dropped_pairs": Kind(schemas.DROPPED_PAIRS, {"dropped_pairs": "insert_dropped_pairs"}),
    "collected": Kind(schemas.COLLECTED, {"collections": "insert_collection", "collection_counts": "insert_collection_counts"}),
    "text_tokens": Kind(schemas.TEXT_TOKENS, {"text_tokens": "insert_text_tokens"}),
    "image_tokens": Kind(schemas.IMAGE_TOKENS, {"image_token_shards": "insert_image_token_shards"}),
    "codebook_usage": Kind(schemas.CODEBOOK_USAGE, {"codebook_usage": "insert_codebook_usage"}),
    "clip_scores": Kind(schemas.CLIP_SCORES, {"clip_scores": "insert_clip_scores"}),
    "safety_scores": Kind(schemas.SAFETY_SCORES, {"safety_scores": "insert_safety_scores"}),
    "prompts": Kind(schemas.PROMPTS, {"prompts": "insert_prompts"}),
    "dropped_prompts": Kind(schemas.DROPPED_PROMPTS, {"dropped_prompts": "insert_dropped_prompts"}),
    "generations": Kind(schemas.GENERATIONS, {"generations": "insert_generations", "rerank_scores": "insert_rerank_scores"}),
    "rerank_scores": Kind(schemas.RERANK_SCORES, {"rerank_scores": "insert_further_rerank_scores"}),
    "evaluations": Kind(schemas.EVALUATIONS, {"evaluations": "insert_evaluations"}),
}
"""The kinds whose files are Parquet parts."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest changed, in files."""

    added: int = 0
    replaced: int = 0
    removed: int = 0
    unchanged: int = 0

    def __add__(self, other: "Ingested") -> "Ingested":
        return Ingested(
            added=self.added + other.added,
            replaced=self.replaced + other.replaced,
            removed=self.removed + other.removed,
            unchanged=self.unchanged + other.unchanged,
        )


def ingest_folder(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, folder: Path, **values: str) -> Ingested:
    """All parts of a folder; parts that have vanished since are taken out. Raises `SchemaError` for a broken or foreign part."""
    parts = list_parts(folder)
    done = Ingested()
    for path in parts:
        done += ingest_file(con, layout, kind, path, **values)
    prefix = layout.relative(folder) + "/"
    gone = set(known_parts(con, kind, prefix)) - {layout.relative(path) for path in parts}
    for relative in sorted(gone):
        with transaction(con):
            forget_part(con, relative, tuple(KINDS[kind].inserts), None)
    return done + Ingested(removed=len(gone))


def ingest_file(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, path: Path, **values: str) -> Ingested:
    """One file, unless the ledger has it with the same content."""
    footer = check_parquet(path, KINDS[kind].schema)
    relative = layout.relative(path)
    digest = file_sha256(path)
    old = known_parts(con, kind, relative).get(relative)
    if old == digest:
        return Ingested(unchanged=1)
    with transaction(con):
        if old is not None:
            forget_part(con, relative, tuple(KINDS[kind].inserts), digest)
        try:
            for insert in KINDS[kind].inserts.values():
                declared = {parameter.name for parameter in read_sql("ingest", insert).parameters}
                given = {"file": str(path), "part_path": relative, **values}
                execute(con, insert, **{name: given[name] for name in declared})
        except duckdb.Error as error:
            raise SchemaError(
                f"{path} cannot be read ({str(error).splitlines()[0]}); delete it and run the stage that writes it again"
            ) from error
        record_part(con, relative, kind, digest, footer.num_rows, path.stat().st_size)
    return Ingested(added=int(old is None), replaced=int(old is not None))


def known_parts(con: duckdb.DuckDBPyConnection, kind: str, prefix: str) -> dict[str, str]:
    """Paths that begin with `prefix` to content hashes."""
    return dict(con.execute(read_sql("ingest", "parts_under").text, {"artifact_kind": kind, "folder": prefix}).fetchall())


def forget_part(con: duckdb.DuckDBPyConnection, relative: str, tables: tuple[str, ...], new: str | None) -> None:
    """Take the rows of a part out of its tables and the ledger, and remember that; `new` is the hash of what takes its place."""
    execute(con, "record_replacement", part_path=relative, new_sha256=new, now=utc_now())
    for table in (*tables, "ingested_parts"):
        con.execute(read_sql("ingest", "remove_part").with_identifiers(table=table), {"part_path": relative})


def record_part(con: duckdb.DuckDBPyConnection, relative: str, kind: str, digest: str, num_rows: int, num_bytes: int) -> None:
    """Write a part into the ledger; belongs in the transaction that inserts its rows."""
    execute(
        con, "record_part", part_path=relative, artifact_kind=kind, sha256=digest, num_rows=num_rows, num_bytes=num_bytes, now=utc_now()
    )


def execute(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> None:
    """Run `sql/ingest/<name>.sql`."""
    con.execute(read_sql("ingest", name).text, values)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ValueError` when it is missing or broken."""
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run the stage that writes it again") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete it and run the stage that writes it again") from error
    return value
