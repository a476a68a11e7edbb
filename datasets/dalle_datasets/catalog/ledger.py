"""Which files the catalog holds, and their rows, exactly once.

A file counts once because its rows and its row in the ledger (path and content hash) are inserted in one
transaction. When a path comes back with other content its old rows are replaced, and when a file has gone they
are removed; `replaced_parts` remembers both. A file of the same size and time as in the ledger is not read again.

Checking and hashing a file takes longer than inserting its rows, and needs no catalog. So `ingest_in_turns` lets go of the catalog
for it, and after half a second of inserting, too: `Progress` says what is done.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from dalle_datasets.catalog.connection import OnWait, connect
from dalle_datasets.catalog.migrations import transaction, utc_now
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store import schemas
from dalle_datasets.store.ids import file_sha256
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import SchemaError, check_parquet, list_parts, verify_parquet

_TURN_S = 0.5
"""A turn with the catalog ends with the first file after this."""
_RACY_S = 2.0
"""A file that was written less than this ago may be written again without its time changing: file systems count coarsely."""


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
    "figures": Kind(schemas.FIGURES, {"figures": "insert_figures"}),
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


class FileState(NamedTuple):
    """What tells that a file was not written again."""

    num_bytes: int
    modified_ns: int | None


class Known(NamedTuple):
    """What the ledger says of a file."""

    sha256: str
    state: FileState


@dataclass
class Progress:
    """What an ingest in turns has done, and what it needs before its next turn."""

    hashes: dict[tuple[Path, FileState], str] = field(default_factory=dict)
    """SHA-256 of files that were read and found whole."""
    done: set[Path] = field(default_factory=set)
    waiting: list[tuple[Path, pa.Schema]] = field(default_factory=list)
    """Files to be looked at again in the next turn."""
    turns: int = 0
    ends: float = 0.0
    num_in_turn: int = 0

    def begin_turn(self) -> None:
        """Start the clock anew."""
        self.waiting, self.ends, self.num_in_turn = [], time.monotonic() + _TURN_S, 0

    def finish(self, path: Path) -> None:
        """Remember that a file or run is done with."""
        self.done.add(path)
        self.num_in_turn += 1

    @property
    def is_over(self) -> bool:
        """Whether others should have the catalog now; never before something was done."""
        return bool(self.num_in_turn) and time.monotonic() >= self.ends


PROGRESS: ContextVar[Progress | None] = ContextVar("PROGRESS", default=None)
"""Of the ingest in turns that is running in this thread, if any."""


def ingest_in_turns(
    catalog_path: Path,
    ingest: Callable[[duckdb.DuckDBPyConnection], "Ingested"],
    lock_timeout_s: float = 60.0,
    on_wait: OnWait = None,
    task: str = "ingesting",
) -> "Ingested":
    """Call `ingest` with the live catalog, again and again until all is in it, letting go of the catalog to hash files in between.

    Raises what `connect` and `ingest` raise; what was ingested before stays.
    """
    progress, done = Progress(), Ingested()
    token = PROGRESS.set(progress)
    try:
        while True:
            with connect(catalog_path, lock_timeout_s, on_wait, task) as con:
                progress.begin_turn()
                turn = ingest(con)
            done += turn if not progress.turns else replace(turn, unchanged=0)  # what did not change is met in every turn
            progress.turns += 1
            if not progress.waiting:
                return done
            for path, schema in progress.waiting:
                state = state_of(path)
                if (path, state) not in progress.hashes:
                    progress.hashes[path, state] = _verified_sha256(path, schema)
    finally:
        PROGRESS.reset(token)


def ingest_folder(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, folder: Path, **values: str) -> Ingested:
    """All parts of a folder; parts that have vanished since are taken out. Raises `SchemaError` for a broken or foreign part.

    In turns: replaced and vanished parts are changed in one turn, so that nobody publishes rows that moved from one to another twice.
    """
    parts, prefix = list_parts(folder), layout.relative(folder) + "/"
    known = known_parts(con, kind, prefix)
    progress = PROGRESS.get()
    seen = progress.done if progress is not None else set()
    changed = [path for path in parts if path not in seen and _is_changed(known.get(layout.relative(path)), path)]
    gone = sorted(set(known) - {layout.relative(path) for path in parts})
    if progress is not None and changed and not _are_hashed(progress, changed, KINDS[kind].schema):
        return Ingested()
    is_moving = bool(gone) or any(layout.relative(path) in known for path in changed)
    done = Ingested(unchanged=len(parts) - len(changed))
    for path in changed:
        if progress is not None and progress.is_over and not is_moving:
            progress.waiting.append((path, KINDS[kind].schema))
            continue
        done += _ingest_changed(con, layout, kind, path, known.get(layout.relative(path)), **values)
    for relative in gone:
        with transaction(con):
            forget_part(con, relative, tuple(KINDS[kind].inserts), None)
    return done + Ingested(removed=len(gone))


def ingest_file(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, path: Path, **values: str) -> Ingested:
    """One file, unless the ledger has it with the same content. Raises `SchemaError` for a broken or foreign file."""
    relative, progress = layout.relative(path), PROGRESS.get()
    known = known_parts(con, kind, relative).get(relative)
    if not _is_changed(known, path):
        return Ingested(unchanged=1)
    if progress is not None and (progress.is_over or not _are_hashed(progress, [path], KINDS[kind].schema)):
        progress.waiting.append((path, KINDS[kind].schema))
        return Ingested()
    return _ingest_changed(con, layout, kind, path, known, **values)


def _is_changed(known: Known | None, path: Path) -> bool:
    return known is None or known.state != state_of(path)


def _are_hashed(progress: Progress, paths: list[Path], schema: pa.Schema) -> bool:
    """Whether all files have been read outside a turn; those that have not will be, before the next."""
    missing = [(path, schema) for path in paths if (path, state_of(path)) not in progress.hashes]
    progress.waiting += missing
    return not missing


def _ingest_changed(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, path: Path, known: Known | None, **values: str) -> Ingested:
    footer = check_parquet(path, KINDS[kind].schema)
    relative, state, progress = layout.relative(path), state_of(path), PROGRESS.get()
    hashed = progress.hashes.get((path, state)) if progress is not None else None
    digest = hashed or _verified_sha256(path, KINDS[kind].schema)
    if progress is not None:
        progress.finish(path)
    if state.modified_ns is not None and time.time_ns() - state.modified_ns < _RACY_S * 1e9:
        state = state._replace(modified_ns=None)
    if known is not None and known.sha256 == digest:
        if known.state != state:
            execute(con, "touch_part", part_path=relative, modified_ns=state.modified_ns)
        return Ingested(unchanged=1)
    with transaction(con):
        if known is not None:
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
        record_part(con, relative, kind, digest, footer.num_rows, state)
    return Ingested(added=int(known is None), replaced=int(known is not None))


def state_of(path: Path) -> FileState:
    """Size and time of a file; 0 bytes of no time when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return FileState(0, None)
    return FileState(found.st_size, found.st_mtime_ns)


def _verified_sha256(path: Path, schema: pa.Schema) -> str:
    """SHA-256 of a part, after its pages' checksums and its ids were found right: damage is not catalogued. Raises `SchemaError`."""
    verify_parquet(path, schema)
    return file_sha256(path)


def known_parts(con: duckdb.DuckDBPyConnection, kind: str, prefix: str) -> dict[str, Known]:
    """Paths that begin with `prefix`, and what the ledger says of them."""
    rows = con.execute(read_sql("ingest", "parts_under").text, {"artifact_kind": kind, "folder": prefix}).fetchall()
    return {path: Known(digest, FileState(num_bytes, modified_ns)) for path, digest, num_bytes, modified_ns in rows}


def forget_part(con: duckdb.DuckDBPyConnection, relative: str, tables: tuple[str, ...], new: str | None) -> None:
    """Take the rows of a part out of its tables and the ledger, and remember that; `new` is the hash of what takes its place."""
    execute(con, "record_replacement", part_path=relative, new_sha256=new, now=utc_now())
    for table in (*tables, "ingested_parts"):
        con.execute(read_sql("ingest", "remove_part").with_identifiers(table=table), {"part_path": relative})


def record_part(con: duckdb.DuckDBPyConnection, relative: str, kind: str, digest: str, num_rows: int, state: FileState) -> None:
    """Write a part into the ledger; belongs in the transaction that inserts its rows."""
    values = {"num_rows": num_rows, "num_bytes": state.num_bytes, "modified_ns": state.modified_ns}
    execute(con, "record_part", part_path=relative, artifact_kind=kind, sha256=digest, now=utc_now(), **values)


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
