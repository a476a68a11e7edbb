"""A migrated catalog, and builders of rows so that a test shows only the columns it is about."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dalle_datasets.catalog.queries import bind
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.parquet import write_parquet

_ROWS: dict[str, dict[str, Any]] = {
    "pairs": {
        "pair_id": 1, "caption": "a red apple", "width": 64, "height": 64, "sha256": "s", "pixel_sha256": "p", "split": "train",
        "num_caption_words": 3, "aspect_ratio": 1.0, "language": "en", "source": "web", "page_url": "http://site/1",
        "image_url": "http://site/1.png", "candidate_id": "c", "part_path": "pairs/web/part-00000.parquet",
    },
    "dropped_pairs": {
        "candidate_id": "c", "source": "web", "stage": "filter", "reason": "caption_short", "detail": "2 words", "caption": "red apple",
        "image_url": "http://site/1.png", "page_url": "http://site/1", "part_path": "dropped/web/filter.parquet",
    },
    "collections": {
        "collection_id": "web-1", "source": "web", "number": 1, "finished_at": "2026-01-01 00:00:00", "facts": '{"num_pages": 5}',
        "part_path": "collections/web/run-00001.parquet",
    },
    "collection_counts": {
        "collection_id": "web-1", "host": "site", "stage": "kept", "reason": "", "num_candidates": 1,
        "part_path": "collections/web/run-00001.parquet",
    },
    "text_tokens": {
        "pair_id": 1, "tokenizer_id": "bpe", "text_tokens": [7, 8], "num_text_tokens": 2, "is_truncated": False,
        "part_path": "text_tokens/tokenizer=bpe/part-00000.parquet",
    },
    "image_token_shards": {
        "part_path": "image_tokens/dvae=vae/part-00000.parquet", "dvae_id": "vae", "num_images": 1, "min_image_tokens": 4,
        "max_image_tokens": 4, "min_pair_id": 1, "max_pair_id": 1,
    },
    "codebook_usage": {"dvae_id": "vae", "image_token": 0, "occurrences": 4, "part_path": "runs/tokenize-images-1/codebook_usage.parquet"},
    "clip_scores": {"pair_id": 1, "clip_id": "clip", "clip_score": 0.5, "part_path": "clip_scores/clip=clip/part-00000.parquet"},
    "safety_scores": {
        "pair_id": 1, "safety_id": "safe", "nsfw_score": 0.1, "watermark_score": 0.2, "part_path": "safety_scores/safety=safe/p.parquet",
    },
    "runs": {
        "run_id": "run", "job": "train_dvae", "config": "{}", "inputs": "{}", "result": "{}", "files_sha256": "f", "git_commit": "abc",
        "provenance": "{}", "timings": "{}", "started_at": "2026-01-01 00:00:00", "duration_s": 1.0,
    },
    "run_metrics": {"run_id": "run", "step": 0, "split": "train", "name": "loss", "value": 1.0},
    "checkpoints": {"run_id": "run", "path": "runs/run/checkpoints/best", "kind": "weights", "step": 4, "num_bytes": 100},
    "run_speed": {"run_id": "run", "step": 10, "name": "pairs_per_s", "value": 2.0},
    "artifacts": {"artifact_id": "vae", "kind": "dvae", "path": "runs/run/checkpoints", "made_by": "run"},
    "lineage": {"child_id": "run", "parent_id": "pairs", "role": "pairs"},
    "stage_times": {
        "pipeline_run_id": "pipe", "position": 0, "stage": "collect", "was_skipped": False,
        "started_at": "2026-01-01 00:00:00", "duration_s": 1.0,
    },
    "network_history": {
        "role": "dvae", "position": 0, "registered_at": "2026-01-01 00:00:00", "settings_id": "s", "network_id": "vae", "run_id": "run",
        "path": "runs/run/dvae", "became_current": True, "why": "policy always", "pairs_id": "pairs", "num_pairs": 9, "metrics": "{}",
    },
    "training_sets": {
        "training_set_id": "set", "query": "captioned_pairs", "query_sql": "select 1", "parameters": "{}", "tokenizer_id": "bpe",
        "dvae_id": "vae", "clip_id": "clip", "num_rows": 2, "num_pairs": 2, "num_validation": 1, "num_sources": 1, "num_pages": 2,
        "sources": ["web"], "path": "training_sets/set", "part_path": "training_sets/set/manifest.json",
    },
    "prompts": {"prompt_id": "p", "prompt": "a red apple", "prompt_set": "training", "expected": None, "part_path": "p.parquet"},
    "dropped_prompts": {
        "run_id": "gen", "prompt_id": "p", "prompt": "", "prompt_set": "own", "reason": "empty", "detail": "line 2: it has no text",
        "part_path": "runs/gen/dropped_prompts.parquet",
    },
    "generations": {
        "generation_id": "g", "run_id": "gen", "prompt_id": "p", "prompt": "a red apple", "prompt_set": "training", "candidate_index": 0,
        "seed": 1, "image_path": "runs/gen/images/g.png", "part_path": "runs/gen/generations.parquet",
    },
    "rerank_scores": {"generation_id": "g", "clip_id": "clip", "clip_score": 0.5, "rank": 1, "part_path": "runs/gen/generations.parquet"},
    "evaluations": {
        "generation_id": "g", "run_id": "eval", "prompt_set": "training", "object_right": True, "color_right": True,
        "background_right": True, "layout_right": True, "all_right": True, "part_path": "runs/eval/evaluations.parquet",
    },
    "figures": {
        "run_id": "eval", "generations_run": "gen", "figure": "retrieval", "pictures": "drawn", "prompt_set": "validation", "best_of": 4,
        "blur_radius": None, "value": 0.3, "low": 0.1, "high": 0.5, "num_samples": 9, "space": "clip other", "note": None,
        "part_path": "runs/eval/figures.parquet",
    },
    "ingested_parts": {
        "part_path": "pairs/web/part-00000.parquet", "artifact_kind": "pairs", "sha256": "s", "num_rows": 1, "num_bytes": 10,
        "ingested_at": "2026-01-01 00:00:00",
    },
    "replaced_parts": {
        "part_path": "pairs/web/part-00000.parquet", "artifact_kind": "pairs", "old_sha256": "old", "new_sha256": "new", "num_old_rows": 3,
        "ingested_at": "2026-01-01 00:00:00",
    },
}  # fmt: skip


class Catalog:
    """A migrated catalog."""

    def __init__(self, path: Path) -> None:
        self.con = duckdb.connect(str(path))

    def add(self, table: str, *rows: dict[str, Any], **same: Any) -> None:
        """Insert rows; columns that are not given have ordinary values. Without rows, one row of `same`."""
        for row in rows or ({},):
            values = {**_ROWS[table], **same, **row}
            names, marks = ", ".join(values), ", ".join(f"${name}" for name in values)
            self.con.execute(f"insert into {table} ({names}) values ({marks})", values)

    def query(self, name: str, /, folder: str = "queries", **params: Any) -> list[tuple[Any, ...]]:
        """Rows of a file."""
        file = read_sql(folder, name)
        return self.con.execute(file.text, bind(file, params) or None).fetchall()

    def column(self, name: str, index: int, /, folder: str = "queries", **params: Any) -> list[Any]:
        """One column of a file's rows."""
        return [row[index] for row in self.query(name, folder, **params)]

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Rows of a table, sorted."""
        return sorted(self.con.execute(f"select {', '.join(columns)} from {table}").fetchall())


@pytest.fixture
def catalog(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    made = Catalog(Path(shutil.copy(migrated, tmp_path_factory.mktemp("catalog"))))
    yield made
    made.con.close()


@pytest.fixture
def write(tmp_path: Path):
    """Write rows as an artefact under the data root (`tmp_path`); columns that are not given have ordinary values."""

    def write_rows(relative: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> Path:
        ordinary = {
            "string": "x",
            "int64": 0,
            "int32": 0,
            "int16": 0,
            "float": 0.0,
            "double": 0.0,
            "bool": False,
            "binary": b"",
            "uint16": 0,
        }
        filled = [{f.name: ordinary.get(str(f.type), []) for f in schema} | row for row in rows]
        path = tmp_path / relative
        write_parquet(path, pa.Table.from_pylist(filled, schema.with_metadata(None)), schema)
        return path

    return write_rows
