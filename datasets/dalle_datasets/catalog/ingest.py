"""Ingestion of files into tables. Every function is idempotent: a second call changes nothing.

Nothing is known to the catalog that is not in a file; `ledger` sees to it that each file counts once.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import duckdb

from dalle_datasets.catalog.artifacts import (
    ARTIFACTS,
    ingest_clip_scores,
    ingest_safety_scores,
    ingest_text_tokens,
    register_image_token_shards,
)
from dalle_datasets.catalog.ledger import (
    KINDS,
    Ingested,
    execute,
    forget_part,
    ingest_folder,
    known_parts,
    read_json,
    record_part,
    state_of,
)
from dalle_datasets.catalog.migrations import transaction
from dalle_datasets.catalog.runs import forget_lineage, forget_run, log_networks, log_run, log_stage_times, record_made
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, Layout


def ingest_pairs(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """The pairs of a source. Raises `SchemaError` for a broken or foreign part."""
    return ingest_folder(con, layout, "pairs", layout.pairs(source))


def ingest_dropped_pairs(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """The dropped candidates of a source, of all its stages."""
    return ingest_folder(con, layout, "dropped_pairs", layout.dropped(source))


def ingest_collections(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """What each collection of a source brought; the outcomes of the candidates stay in Parquet."""
    return ingest_folder(con, layout, "collected", layout.collections(source))


def ingest_training_set(con: duckdb.DuckDBPyConnection, layout: Layout, training_set_id: str) -> Ingested:
    """An exported training set and its lineage, from its manifest."""
    path = layout.training_set(training_set_id) / "manifest.json"
    manifest = read_json(path)
    relative, content = layout.relative(path), path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    old = known_parts(con, "training_set", relative).get(relative)
    if old is not None and old.sha256 == digest:
        return Ingested(unchanged=1)
    with transaction(con):
        if old is not None:
            forget_part(con, relative, ("training_sets",), digest)
        forget_lineage(con, training_set_id)
        execute(con, "insert_training_set", file=str(path), part_path=relative)
        record_made(con, training_set_id, "training_set", manifest["path"], training_set_id)
        for role, parent in manifest["inputs"].items():
            execute(con, "insert_lineage", child_id=training_set_id, parent_id=parent, role=role)
        record_part(con, relative, "training_set", digest, manifest["num_rows"], state_of(path))
    return Ingested(added=int(old is None), replaced=int(old is not None))


def ingest_run(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """Everything a finished run left: the run itself and the files its result names, whatever the job."""
    done = log_run(con, layout, run_dir)
    result, inputs = read_json(run_dir / RUN_RESULT), read_json(run_dir / RUN_CONFIG)["inputs"]
    for artifact in ARTIFACTS.values():
        if artifact.ingest is not None and artifact.path_key in result:
            done += artifact.ingest(con, layout, run_dir, {**inputs, **result})
    return done


def ingest_made(con: duckdb.DuckDBPyConnection, layout: Layout, run_dirs: Iterable[Path]) -> Ingested:
    """Everything that finished runs left, and which networks serve since."""
    done = sum((ingest_run(con, layout, run_dir) for run_dir in run_dirs), Ingested())
    return done + log_networks(con, layout)


def ingest_source(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """All that was collected of a source: pairs, drops, and what each collection brought."""
    return ingest_pairs(con, layout, source) + ingest_dropped_pairs(con, layout, source) + ingest_collections(con, layout, source)


def ingest_everything(con: duckdb.DuckDBPyConnection, layout: Layout) -> Ingested:
    """Every artefact under the data root that the catalog knows how to read, found by its place."""
    done = Ingested()
    for kind, name in (("pairs", "pairs"), ("dropped_pairs", "dropped"), ("collected", "collections")):
        for folder in sorted((layout.root / name).glob("*/")):
            done += ingest_folder(con, layout, kind, folder)
    for kind, function in (
        ("text_tokens", ingest_text_tokens),
        ("image_tokens", register_image_token_shards),
        ("clip_scores", ingest_clip_scores),
        ("safety_scores", ingest_safety_scores),
    ):
        for folder in sorted((layout.root / kind).glob("*=*/")):
            done += function(con, layout, folder.name.partition("=")[2])
    for manifest in sorted((layout.root / "training_sets").glob("*/manifest.json")):
        done += ingest_training_set(con, layout, manifest.parent.name)
    for result in sorted((layout.root / "runs").glob(f"*/{RUN_RESULT}")):
        done += ingest_run(con, layout, result.parent)
    done += log_networks(con, layout)
    for path in sorted((layout.root / "stage_times").glob("*.jsonl")):
        done += log_stage_times(con, layout, path)
    return done + forget_gone(con, layout)


def forget_gone(con: duckdb.DuckDBPyConnection, layout: Layout) -> Ingested:
    """Take out the rows of files and runs that are no longer there."""
    num_removed = 0
    for relative, kind, *_ in con.execute(read_sql("ingest", "ledger").text).fetchall():
        if (layout.root / relative).exists():
            continue
        with transaction(con):
            if kind == "training_set":
                forget_lineage(con, (layout.root / relative).parent.name)
            forget_part(con, relative, ("training_sets",) if kind == "training_set" else tuple(KINDS[kind].inserts), None)
        num_removed += 1
    for (run_id,) in con.execute(read_sql("ingest", "run_ids").text).fetchall():
        if not (layout.run(run_id) / RUN_RESULT).exists():
            with transaction(con):
                forget_run(con, run_id)
            num_removed += 1
    return Ingested(removed=num_removed)
