"""Finished runs in the catalog: settings, result, curves, speed, and what was made from what.

A run is known by the content of its files; when one of them has changed, all rows of the run are replaced.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from dalle_datasets.catalog.artifacts import made_in, unfinished
from dalle_datasets.catalog.ledger import PROGRESS, Ingested, execute, read_json
from dalle_datasets.catalog.migrations import transaction
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, Layout

_CURVES = {"metrics.jsonl": ("run_metrics", "insert_run_metrics"), "speed.jsonl": ("run_speed", "insert_run_speed")}
"""File of a run -> its table and the statement that fills it."""


def log_run(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """A finished run: settings, result, curves, what it made from what. Raises `ValueError` for an unfinished one."""
    progress = PROGRESS.get()
    if progress is not None and run_dir in progress.done:
        return Ingested()
    read = {name: run_dir / name for name in (RUN_CONFIG, RUN_RESULT, *_CURVES)}
    if not read[RUN_RESULT].exists():
        raise unfinished(run_dir)
    saved, result = read_json(read[RUN_CONFIG]), read_json(read[RUN_RESULT])
    provenance = read_json(run_dir / "job.json") if (run_dir / "job.json").exists() else {}
    checkpoints = list(_checkpoints(layout, run_dir, result))
    content = b"".join(path.read_bytes() for path in read.values() if path.exists())
    digest = hashlib.sha256(content + json.dumps(checkpoints).encode()).hexdigest()
    run_id = run_dir.name
    if progress is not None:
        progress.finish(run_dir)
    old = con.execute(read_sql("ingest", "run_content").text, {"run_id": run_id}).fetchall()
    if old == [(digest,)]:
        return Ingested(unchanged=1)
    timings = {name: value for name, value in result.items() if name.endswith("_s") and isinstance(value, int | float)}
    lasting = {name: value for name, value in result.items() if name not in timings and name not in ("started_at", "job", "run_id")}
    config = {name: value for name, value in saved["config"].items() if name != "paths"}
    started_at = result.get("started_at")
    with transaction(con):
        forget_run(con, run_id)
        execute(
            con,
            "insert_run",
            run_id=run_id,
            job=saved["job"],
            config=_canonical(config),
            inputs=_canonical(saved["inputs"]),
            result=_canonical(lasting),
            files_sha256=digest,
            git_commit=provenance.get("git_commit"),
            provenance=_canonical(provenance),
            timings=_canonical(timings),
            started_at=None if started_at is None else datetime.fromtimestamp(started_at, UTC).replace(tzinfo=None),
            duration_s=result.get("duration_s"),
        )
        for name, (_, insert) in _CURVES.items():
            if read[name].exists():
                execute(con, insert, file=str(read[name]), run_id=run_id)
        for checkpoint in checkpoints:
            execute(con, "insert_checkpoint", run_id=run_id, **checkpoint)
        for artifact_id, kind, path in made_in(result, saved["inputs"]):
            record_made(con, artifact_id, kind, path, run_id)
        for role, parent in _parents(saved["inputs"]).items():
            execute(con, "insert_lineage", child_id=run_id, parent_id=parent, role=role)
    return Ingested(added=int(not old), replaced=int(bool(old)))


def _checkpoints(layout: Layout, run_dir: Path, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The folders of weights and training states that a run keeps, by path."""
    folders = {path for path in (run_dir / "checkpoints").glob("*/") if path.suffix != ".partial"}
    named = layout.root / str(result.get("checkpoint") or "none")
    for folder in sorted(folders | ({named} if named.is_dir() and named.is_relative_to(run_dir) else set())):
        is_state = (folder / "state.json").exists()
        about = folder / ("state.json" if is_state else "config.json")
        files = [path for path in folder.iterdir() if path.is_file()]
        if about in files:
            yield {
                "path": layout.relative(folder),
                "kind": "state" if is_state else "weights",
                "step": _step(read_json(about), result),
                "num_bytes": sum(path.stat().st_size for path in files),
            }


def _step(about: Mapping[str, Any], result: Mapping[str, Any]) -> int | None:
    step = about.get("step", about.get("config", {}).get("step") if isinstance(about.get("config"), dict) else None)
    return step if isinstance(step, int) else None


def log_stage_times(con: duckdb.DuckDBPyConnection, layout: Layout, path: Path) -> Ingested:
    """How long the stages of one pipeline run took, from its `stage_times/<pipeline_run_id>.jsonl`.

    One JSON object a line: {"stage": "train dvae", "was_skipped": false, "started_at": seconds since 1970, "duration_s": 12.3}.
    """
    remove = read_sql("ingest", "remove_run").with_identifiers(table="stage_times", column="pipeline_run_id")
    with transaction(con):
        num_old = con.execute(remove, {"run_id": path.stem}).fetchall()[0][0]
        execute(con, "insert_stage_times", file=str(path), pipeline_run_id=path.stem)
    return Ingested(added=int(not num_old), replaced=int(num_old > 0))


def log_networks(con: duckdb.DuckDBPyConnection, layout: Layout) -> Ingested:
    """The history of every role's networks, from `networks/<role>.jsonl`."""
    remove = read_sql("ingest", "remove_run").with_identifiers(table="network_history", column="role")
    done = Ingested()
    for path in sorted(layout.networks("x").parent.glob("*.jsonl")):
        with transaction(con):
            num_old = con.execute(remove, {"run_id": path.stem}).fetchall()[0][0]
            execute(con, "insert_network_history", file=str(path), role=path.stem)
        done += Ingested(added=int(not num_old), replaced=int(num_old > 0))
    return done


def forget_run(con: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Take out a run with its curves, its checkpoints, what it made and what it was made from."""
    for table in ("runs", "checkpoints", *(table for table, _ in _CURVES.values())):
        con.execute(read_sql("ingest", "remove_run").with_identifiers(table=table, column="run_id"), {"run_id": run_id})
    forget_lineage(con, run_id)


def forget_lineage(con: duckdb.DuckDBPyConnection, made_by: str) -> None:
    """Take out what a run or training set made, and what it was made from."""
    for table, column in (("artifacts", "made_by"), ("lineage", "child_id")):
        con.execute(read_sql("ingest", "remove_run").with_identifiers(table=table, column=column), {"run_id": made_by})


def record_made(con: duckdb.DuckDBPyConnection, artifact_id: str, kind: str, path: str, made_by: str) -> None:
    """One thing that a run or an export made."""
    execute(con, "insert_artifact", artifact_id=artifact_id, kind=kind, path=path, made_by=made_by)


def _parents(inputs: Mapping[str, str]) -> dict[str, str]:
    """Role to id: an input's content id where it has one, else its path. `role` says what a network is
    for."""
    roles = {name.removesuffix("_id") for name in inputs} - {"role"}
    return {role: inputs.get(f"{role}_id", inputs.get(role, "")) for role in sorted(roles)}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
