"""The kinds of artefact that runs make: how each is known, and how its rows come into the catalog.

A new kind is an entry in `ARTIFACTS`; a run whose result names it is then ingested whatever its job.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from dalle_datasets.catalog.ledger import Ingested, ingest_file, ingest_folder, read_json
from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, Layout

IngestMade = Callable[[duckdb.DuckDBPyConnection, Layout, Path, Mapping[str, Any]], Ingested]
"""Ingest what the run in a directory made, given what its inputs and its result name."""


def ingest_text_tokens(con: duckdb.DuckDBPyConnection, layout: Layout, tokenizer_id: str) -> Ingested:
    """The text tokens of a tokenizer."""
    return ingest_folder(con, layout, "text_tokens", layout.text_tokens(tokenizer_id), tokenizer_id=tokenizer_id)


def register_image_token_shards(con: duckdb.DuckDBPyConnection, layout: Layout, dvae_id: str) -> Ingested:
    """The image token parts of a dVAE: where they lie; the tokens stay there. Pictures that could not be tokenised are dropped pairs."""
    folder = layout.image_tokens(dvae_id)
    return ingest_folder(con, layout, "image_tokens", folder, dvae_id=dvae_id) + ingest_folder(
        con, layout, "dropped_pairs", folder / "dropped"
    )


def ingest_codebook_usage(con: duckdb.DuckDBPyConnection, layout: Layout, dvae_id: str, path: Path) -> Ingested:
    """How often each image token of a dVAE occurs, from the file that `tokenize_images` names in its result."""
    return ingest_file(con, layout, "codebook_usage", path, dvae_id=dvae_id)


def ingest_clip_scores(con: duckdb.DuckDBPyConnection, layout: Layout, clip_id: str) -> Ingested:
    """The scores that a CLIP gave to pairs."""
    return ingest_folder(con, layout, "clip_scores", layout.clip_scores(clip_id), clip_id=clip_id)


def ingest_safety_scores(con: duckdb.DuckDBPyConnection, layout: Layout, safety_id: str) -> Ingested:
    """The scores that a safety classifier gave to pictures."""
    return ingest_folder(con, layout, "safety_scores", layout.safety_scores(safety_id), safety_id=safety_id)


def finished_run(run_dir: Path, output: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Inputs and result of a finished run that made `output`. Raises `ValueError` when it has not finished or made something else."""
    if not (run_dir / RUN_RESULT).exists():
        raise unfinished(run_dir)
    result = read_json(run_dir / RUN_RESULT)
    if output not in result:
        raise ValueError(f"{run_dir / 'result.json'} names no {output}: it is a run of {result.get('job')}")
    inputs: dict[str, str] = read_json(run_dir / RUN_CONFIG)["inputs"]
    return inputs, result


def unfinished(run_dir: Path) -> ValueError:
    """The error of a run that has no result yet."""
    return ValueError(f"{run_dir} holds no result.json: the run has not finished; run the stage again, it resumes")


def log_generations(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """The prompts, those left out, pictures and CLIP ranks of a finished `generate_images` run (call `log_run` too)."""
    inputs, result = finished_run(run_dir, "generations")
    done = ingest_file(con, layout, "prompts", layout.root / inputs["prompts"])
    if "dropped_prompts" in result:
        done += ingest_file(con, layout, "dropped_prompts", layout.root / result["dropped_prompts"], run_id=run_dir.name)
    return done + ingest_file(
        con, layout, "generations", layout.root / result["generations"], run_id=run_dir.name, clip_id=inputs["clip_id"]
    )


def log_rerank_scores(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """What a further CLIP thinks of finished generations (call `log_run` too)."""
    _, result = finished_run(run_dir, "rerank_scores")
    return ingest_file(con, layout, "rerank_scores", layout.root / result["rerank_scores"])


def log_evaluations(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """The checker's verdicts of a finished `evaluate` run (call `log_run` too)."""
    _, result = finished_run(run_dir, "evaluations")
    return ingest_file(con, layout, "evaluations", layout.root / result["evaluations"], run_id=run_dir.name)


def log_figures(con: duckdb.DuckDBPyConnection, layout: Layout, run_dir: Path) -> Ingested:
    """The figures of a finished `evaluate` run (call `log_run` too)."""
    inputs, result = finished_run(run_dir, "figures")
    path = layout.root / result["figures"]
    return ingest_file(con, layout, "figures", path, run_id=run_dir.name, generations_run=inputs["generations_run"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """How the catalog knows and reads one kind of artefact."""

    path_key: str
    """The name of the result that has its path."""
    has_id: bool = False
    """Whether the result has a content id, `<kind>_id`; what has none is known by its path."""
    ingest: IngestMade | None = None
    """What brings its rows into their tables; None when there are none."""


ARTIFACTS = {
    "tokenizer": Artifact(path_key="tokenizer", has_id=True),
    "dvae": Artifact(path_key="checkpoint", has_id=True),
    "clip": Artifact(path_key="checkpoint", has_id=True),
    "transformer": Artifact(path_key="checkpoint", has_id=True),
    "text_tokens": Artifact(
        path_key="text_tokens",
        ingest=lambda con, layout, _, named: ingest_text_tokens(con, layout, named["tokenizer_id"]),
    ),
    "image_tokens": Artifact(
        path_key="image_tokens",
        ingest=lambda con, layout, _, named: register_image_token_shards(con, layout, named["dvae_id"]),
    ),
    "codebook_usage": Artifact(
        path_key="codebook_usage",
        ingest=lambda con, layout, _, named: ingest_codebook_usage(
            con,
            layout,
            named["dvae_id"],
            layout.root / named["codebook_usage"],
        ),
    ),
    "clip_scores": Artifact(
        path_key="clip_scores",
        ingest=lambda con, layout, _, named: ingest_clip_scores(con, layout, named["clip_id"]),
    ),
    "safety": Artifact(
        path_key="safety_scores",
        has_id=True,
        ingest=lambda con, layout, _, named: ingest_safety_scores(con, layout, named["safety_id"]),
    ),
    "generations": Artifact(
        path_key="generations",
        ingest=lambda con, layout, run_dir, _: log_generations(con, layout, run_dir),
    ),
    "image_embeddings": Artifact(path_key="image_embeddings"),
    "rerank_scores": Artifact(
        path_key="rerank_scores",
        ingest=lambda con, layout, run_dir, _: log_rerank_scores(con, layout, run_dir),
    ),
    "evaluations": Artifact(
        path_key="evaluations",
        ingest=lambda con, layout, run_dir, _: log_evaluations(con, layout, run_dir),
    ),
    "evaluator": Artifact(path_key="checkpoint", has_id=True),
    "figures": Artifact(
        path_key="figures",
        ingest=lambda con, layout, run_dir, _: log_figures(con, layout, run_dir),
    ),
}
"""Kind of artefact -> how the catalog knows and reads it."""


def made_in(result: Mapping[str, Any], inputs: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Id, kind and path of what a run made, which excludes what it was given."""
    for kind, artifact in ARTIFACTS.items():
        name = f"{kind}_id" if artifact.has_id else artifact.path_key
        if isinstance(result.get(name), str) and not (artifact.has_id and name in inputs):
            yield result[name], kind, result.get(artifact.path_key, "")
