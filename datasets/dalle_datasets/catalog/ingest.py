"""From files to tables, exactly once: every function here may be called again at any time and then changes nothing.

A file counts once because its rows and its row in the ledger (path and content hash) are inserted in one
transaction. When a path comes back with other content its old rows are replaced, and when a file has gone they
are removed; `replaced_parts` remembers both. Nothing is known to the catalog that is not in a file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dalle_datasets import schemas
from dalle_datasets.catalog.migrations import transaction, utc_now
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import SchemaError, check_parquet, list_parts


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of artefact: its schema, and table -> the statement that fills it."""

    schema: pa.Schema
    inserts: Mapping[str, str]


_KINDS = {
    "pairs": _Kind(schemas.PAIRS, {"pairs": "insert_pairs"}),
    "dropped_pairs": _Kind(schemas.DROPPED_PAIRS, {"dropped_pairs": "insert_dropped_pairs"}),
    "text_tokens": _Kind(schemas.TEXT_TOKENS, {"text_tokens": "insert_text_tokens"}),
    "image_tokens": _Kind(schemas.IMAGE_TOKENS, {"image_token_shards": "insert_image_token_shards"}),
    "codebook_usage": _Kind(schemas.CODEBOOK_USAGE, {"codebook_usage": "insert_codebook_usage"}),
    "clip_scores": _Kind(schemas.CLIP_SCORES, {"clip_scores": "insert_clip_scores"}),
    "prompts": _Kind(schemas.PROMPTS, {"prompts": "insert_prompts"}),
    "generations": _Kind(schemas.GENERATIONS, {"generations": "insert_generations", "rerank_scores": "insert_rerank_scores"}),
    "rerank_scores": _Kind(schemas.RERANK_SCORES, {"rerank_scores": "insert_further_rerank_scores"}),
    "evaluations": _Kind(schemas.EVALUATIONS, {"evaluations": "insert_evaluations"}),
}

# What a job's result may name: things with a content id (found under `<kind>_id`), and files known by their path.
_NETWORKS = {"tokenizer": "tokenizer", "dvae": "checkpoint", "clip": "checkpoint", "transformer": "checkpoint"}
_FILES = ("text_tokens", "image_tokens", "codebook_usage", "clip_scores", "generations", "rerank_scores", "evaluations")


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


def ingest_pairs(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """The pairs of a source. Raises `SchemaError` for a broken or foreign part."""
    return _ingest_folder(con, layout, "pairs", layout.pairs(source))


def ingest_dropped_pairs(con: duckdb.DuckDBPyConnection, layout: Layout, source: str) -> Ingested:
    """The dropped candidates of a source, of all its stages."""
    return _ingest_folder(con, layout, "dropped_pairs", layout.dropped(source))


def ingest_text_tokens(con: duckdb.DuckDBPyConnection, layout: Layout, tokenizer_id: str) -> Ingested:
    """The text tokens of a tokenizer."""
    return _ingest_folder(con, layout, "text_tokens", layout.text_tokens(tokenizer_id), tokenizer_id=tokenizer_id)


def register_image_token_shards(con: duckdb.DuckDBPyConnection, layout: Layout, dvae_id: str) -> Ingested:
    """The image token parts of a dVAE: where they lie; the tokens stay there. Pictures that could not be tokenised are dropped pairs."""
    folder = layout.image_tokens(dvae_id)
    return _ingest_folder(con, layout, "image_tokens", folder, dvae_id=dvae_id) + _ingest_folder(
        con, layout, "dropped_pairs", folder / "dropped"
    )


def ingest_codebook_usage(con: duckdb.DuckDBPyConnection, layout: Layout, dvae_id: str, path: Path) -> Ingested:
    """How often each image token of a dVAE occurs, from the file that `tokenize_images` names in its result."""
    return _ingest_file(con, layout, "codebook_usage", path, dvae_id=dvae_id)


def ingest_clip_scores(con: duckdb.DuckDBPyConnection, layout: Layout, clip_id: str) -> Ingested:
    """The scores that a CLIP gave to pairs."""
    return _ingest_folder(con, layout, "clip_scores", layout.clip_scores(clip_id), clip_id=clip_id)


def ingest_training_set(con: duckdb.DuckDBPyConnection, layout: Layout, training_set_id: str) -> Ingested:
    """An exported training set and its lineage, from its manifest."""
    path = layout.training_set(training_set_id) / "manifest.json"
    manifest = _read_json(path)
    relative, content = layout.relative(path), path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    old = _ledger(con, "training_set", relative).get(relative)
    if old == digest:
        return Ingested(unchanged=1)
    with transaction(con):
        _forget(con, relative, "training_set", ("training_sets",), digest, known=old is not None)
        _forget_lineage(con, training_set_id)
        _run(con, "insert_training_set", file=str(path), part_path=relative)
        _record_made(con, training_set_id, "training_set", manifest["path"], training_set_id)
        for role, parent in manifest["inputs"].items():
            _run(con, "insert_lineage", child_id=training_set_id, parent_id=parent, role=role)
        _record(con, relative, "training_set", digest, manifest["num_rows"], len(content))
    return Ingested(added=int(old is None), replaced=int(old is not None))


def log_run(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """A finished run: settings, result, loss curves, what it made from what. Raises `ValueError` for an unfinished one."""
    files = {name: run_dir / name for name in ("config.json", "result.json", "job.json", "metrics.jsonl")}
    if not files["result.json"].exists():
        raise ValueError(f"{run_dir} holds no result.json: the run has not finished; run the stage again, it resumes")
    saved, result = _read_json(files["config.json"]), _read_json(files["result.json"])
    provenance = _read_json(files["job.json"]) if files["job.json"].exists() else {}
    read = ("config.json", "result.json", "metrics.jsonl")
    digest = hashlib.sha256(b"".join(files[name].read_bytes() for name in read if files[name].exists())).hexdigest()
    run_id = run_dir.name
    old = con.execute(read_sql("ingest", "run_content").text, {"run_id": run_id}).fetchall()
    if old == [(digest,)]:
        return Ingested(unchanged=1)
    timings = {name: value for name, value in result.items() if name.endswith("_s") and isinstance(value, int | float)}
    lasting = {name: value for name, value in result.items() if name not in timings and name not in ("started_at", "job", "run_id")}
    config = {name: value for name, value in saved["config"].items() if name != "paths"}
    started_at = result.get("started_at")
    with transaction(con):
        for table in ("runs", "run_metrics"):
            con.execute(read_sql("ingest", "remove_run").with_identifiers(table=table, column="run_id"), {"run_id": run_id})
        _forget_lineage(con, run_id)
        _run(
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
        if files["metrics.jsonl"].exists():
            _run(con, "insert_run_metrics", file=str(files["metrics.jsonl"]), run_id=run_id)
        for kind, path_key in _NETWORKS.items():
            if f"{kind}_id" in result and f"{kind}_id" not in saved["inputs"]:
                _record_made(con, result[f"{kind}_id"], kind, result.get(path_key, ""), run_id)
        for kind in _FILES:
            if isinstance(result.get(kind), str):
                _record_made(con, result[kind], kind, result[kind], run_id)
        for role, parent in _parents(saved["inputs"]).items():
            _run(con, "insert_lineage", child_id=run_id, parent_id=parent, role=role)
    return Ingested(added=int(not old), replaced=int(bool(old)))


def log_generations(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """The prompts, pictures and CLIP ranks of a finished `generate_images` run (call `log_run` too)."""
    inputs, result = _finished_run(run_dir, "generations")
    return _ingest_file(con, layout, "prompts", layout.root / inputs["prompts"]) + _ingest_file(
        con, layout, "generations", layout.root / result["generations"], run_id=run_dir.name, clip_id=inputs["clip_id"]
    )


def log_rerank_scores(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """What a further CLIP thinks of finished generations (call `log_run` too)."""
    _, result = _finished_run(run_dir, "rerank_scores")
    return _ingest_file(con, layout, "rerank_scores", layout.root / result["rerank_scores"])


def log_evaluations(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """The checker's verdicts of a finished `evaluate` run (call `log_run` too)."""
    _, result = _finished_run(run_dir, "evaluations")
    return _ingest_file(con, layout, "evaluations", layout.root / result["evaluations"], run_id=run_dir.name)


def ingest_run(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """Everything a finished run left: the run itself and the files its result names, whatever the job."""
    done = log_run(con, layout, run_dir)
    result, inputs = _read_json(run_dir / "result.json"), _read_json(run_dir / "config.json")["inputs"]
    named = {**inputs, **result}
    if "text_tokens" in result:
        done += ingest_text_tokens(con, layout, named["tokenizer_id"])
    if "image_tokens" in result:
        done += register_image_token_shards(con, layout, named["dvae_id"])
    if "codebook_usage" in result:
        done += ingest_codebook_usage(con, layout, named["dvae_id"], layout.root / result["codebook_usage"])
    if "clip_scores" in result:
        done += ingest_clip_scores(con, layout, named["clip_id"])
    if "generations" in result:
        done += log_generations(con, layout, run_dir)
    if "rerank_scores" in result:
        done += log_rerank_scores(con, layout, run_dir)
    if "evaluations" in result:
        done += log_evaluations(con, layout, run_dir)
    return done


def log_stage_times(con: duckdb.DuckDBPyConnection, layout: Layout, path: Path) -> Ingested:
    """How long the stages of one pipeline run took, from its `stage_times/<pipeline_run_id>.jsonl`.

    One JSON object a line: {"stage": "train dvae", "was_skipped": false, "started_at": seconds since 1970, "duration_s": 12.3}.
    """
    remove = read_sql("ingest", "remove_run").with_identifiers(table="stage_times", column="pipeline_run_id")
    with transaction(con):
        num_old = con.execute(remove, {"run_id": path.stem}).fetchall()[0][0]
        _run(con, "insert_stage_times", file=str(path), pipeline_run_id=path.stem)
    return Ingested(added=int(not num_old), replaced=int(num_old > 0))


def ingest_everything(con: duckdb.DuckDBPyConnection, layout: Layout) -> Ingested:
    """Every artefact under the data root that the catalog knows how to read, found by its place."""
    done = Ingested()
    for kind, base in (("pairs", layout.root / "pairs"), ("dropped_pairs", layout.root / "dropped")):
        for folder in sorted(base.glob("*/")):
            done += _ingest_folder(con, layout, kind, folder)
    for kind, function in (
        ("text_tokens", ingest_text_tokens),
        ("image_tokens", register_image_token_shards),
        ("clip_scores", ingest_clip_scores),
    ):
        for folder in sorted((layout.root / kind).glob("*=*/")):
            done += function(con, layout, folder.name.partition("=")[2])
    for manifest in sorted((layout.root / "training_sets").glob("*/manifest.json")):
        done += ingest_training_set(con, layout, manifest.parent.name)
    for result in sorted((layout.root / "runs").glob("*/result.json")):
        done += ingest_run(con, layout, result.parent)
    for path in sorted((layout.root / "stage_times").glob("*.jsonl")):
        done += log_stage_times(con, layout, path)
    return done


def _ingest_folder(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, folder: Path, **values: str) -> Ingested:
    """All parts of a folder; parts that have vanished since are taken out."""
    parts = list_parts(folder)
    done = Ingested()
    for path in parts:
        done += _ingest_file(con, layout, kind, path, **values)
    prefix = layout.relative(folder) + "/"
    gone = set(_ledger(con, kind, prefix)) - {layout.relative(path) for path in parts}
    for relative in sorted(gone):
        with transaction(con):
            _forget(con, relative, kind, tuple(_KINDS[kind].inserts), None)
    return done + Ingested(removed=len(gone))


def _ingest_file(con: duckdb.DuckDBPyConnection, layout: Layout, kind: str, path: Path, **values: str) -> Ingested:
    """One file, unless the ledger has it with the same content."""
    footer = check_parquet(path, _KINDS[kind].schema)
    relative = layout.relative(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    old = _ledger(con, kind, relative).get(relative)
    if old == digest:
        return Ingested(unchanged=1)
    with transaction(con):
        _forget(con, relative, kind, tuple(_KINDS[kind].inserts), digest, known=old is not None)
        try:
            for insert in _KINDS[kind].inserts.values():
                declared = {parameter.name for parameter in read_sql("ingest", insert).parameters}
                given = {"file": str(path), "part_path": relative, **values}
                _run(con, insert, **{name: given[name] for name in declared})
        except duckdb.Error as error:
            raise SchemaError(
                f"{path} cannot be read ({str(error).splitlines()[0]}); delete it and run the stage that writes it again"
            ) from error
        _record(con, relative, kind, digest, footer.num_rows, path.stat().st_size)
    return Ingested(added=int(old is None), replaced=int(old is not None))


def _ledger(con: duckdb.DuckDBPyConnection, kind: str, prefix: str) -> dict[str, str]:
    """Paths that begin with `prefix` to content hashes."""
    return dict(con.execute(read_sql("ingest", "parts_under").text, {"artifact_kind": kind, "folder": prefix}).fetchall())


def _forget(con: duckdb.DuckDBPyConnection, relative: str, kind: str, tables: tuple[str, ...], new: str | None, known: bool = True) -> None:
    """Take the rows of a part out of its tables and the ledger, and remember that."""
    if not known:
        return
    _run(con, "record_replacement", part_path=relative, new_sha256=new, now=utc_now())
    for table in (*tables, "ingested_parts"):
        con.execute(read_sql("ingest", "remove_part").with_identifiers(table=table), {"part_path": relative})


def _record(con: duckdb.DuckDBPyConnection, relative: str, kind: str, digest: str, num_rows: int, num_bytes: int) -> None:
    _run(con, "record_part", part_path=relative, artifact_kind=kind, sha256=digest, num_rows=num_rows, num_bytes=num_bytes, now=utc_now())


def _forget_lineage(con: duckdb.DuckDBPyConnection, made_by: str) -> None:
    for table, column in (("artifacts", "made_by"), ("lineage", "child_id")):
        con.execute(read_sql("ingest", "remove_run").with_identifiers(table=table, column=column), {"run_id": made_by})


def _record_made(con: duckdb.DuckDBPyConnection, artifact_id: str, kind: str, path: str, made_by: str) -> None:
    _run(con, "insert_artifact", artifact_id=artifact_id, kind=kind, path=path, made_by=made_by)


def _parents(inputs: Mapping[str, str]) -> dict[str, str]:
    """Role to id: an input's content id where it has one, else its path."""
    roles = {name.removesuffix("_id") for name in inputs}
    return {role: inputs.get(f"{role}_id", inputs.get(role, "")) for role in sorted(roles)}


def _finished_run(run_dir: Path, output: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Inputs and result of a finished run that made `output`."""
    if not (run_dir / "result.json").exists():
        raise ValueError(f"{run_dir} holds no result.json: the run has not finished; run the stage again, it resumes")
    result = _read_json(run_dir / "result.json")
    if output not in result:
        raise ValueError(f"{run_dir / 'result.json'} names no {output}: it is a run of {result.get('job')}")
    inputs: dict[str, str] = _read_json(run_dir / "config.json")["inputs"]
    return inputs, result


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run the stage that writes it again") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete it and run the stage that writes it again") from error
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _run(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> None:
    con.execute(read_sql("ingest", name).text, values)
