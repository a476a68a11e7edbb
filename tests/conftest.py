"""A whole small data root without any network: what the pipeline's stages would have left, made in a second from drawn scenes.

And one Prefect server for the whole session, started only when a test asks for it.
"""

import hashlib
import json
import os
import random
import runpy
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.demo.emoji_scenes import PROMPT_SETS, Scene, caption_scene, draw_scene, prompts, split_scenes
from dalle_datasets.history import record_collection
from dalle_datasets.store import schemas
from dalle_datasets.store.ids import generation_id, pair_id, prompt_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit
from dalle_datasets.store.parquet import write_parquet, write_parts

# Before anything imports Prefect: no telemetry, no log lines between pytest's dots.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
from dalle_model.config.parsing import to_dict
from dalle_model.config.presets import preset

SOURCE = "emoji_scenes"
GRID = 4
CODEBOOK_SIZE = 32
IDS = {"pairs_id": "pairs0", "tokenizer_id": "bpe0", "dvae_id": "vae0", "clip_id": "clip0"}


class DataRoot:
    """Writes artefacts as the stages would; every method may be called alone."""

    def __init__(self, root: Path, num_pairs: int = 12, num_prompts: int = 2, num_candidates: int = 4) -> None:
        self.layout = Layout(root)
        self.num_prompts, self.num_candidates = num_prompts, num_candidates
        scenes = split_scenes(num_pairs)["training"][:num_pairs]
        self.pairs = [self._pair(scene, i) for i, scene in enumerate(scenes)]

    def collect(self) -> None:
        """Pairs in parts of eight, three kinds of drops, the images and measures behind them, and two records of collections."""
        write_parts(
            self.layout.pairs(SOURCE),
            pa.Table.from_pylist(self.pairs, schemas.PAIRS.with_metadata(None)),
            schemas.PAIRS,
            rows_per_part=8,
            row_group_size=4,
        )
        commit(self.layout.pairs(SOURCE), "inputs", {})
        drops = {
            "discover": [("robots_txt", "robots.txt disallows /private/")],
            "download": [("http_4xx", "HTTP 404"), ("http_4xx", "HTTP 404"), ("not_an_image", "text/html")],
            "filter": [("caption_short", "2 words"), ("duplicate_pair", "same pixels"), ("aspect_ratio", "6.0 : 1")],
        }
        for stage, reasons in drops.items():
            rows = [
                {
                    "candidate_id": f"{stage}{i}",
                    "source": SOURCE,
                    "stage": stage,
                    "reason": reason,
                    "detail": detail,
                    "caption": "a caption",
                    "image_url": f"http://127.0.0.1/{stage}/{i}.png",
                    "page_url": "http://127.0.0.1/",
                }
                for i, (reason, detail) in enumerate(reasons)
            ]
            write_parquet(
                self.layout.dropped(SOURCE) / f"{stage}.parquet",
                pa.Table.from_pylist(rows, schemas.DROPPED_PAIRS.with_metadata(None)),
                schemas.DROPPED_PAIRS,
            )
            if stage != "discover":  # once before the filters and once after them, as if they had been added later
                record_collection(self.layout, SOURCE, {"num_pages": 3}, datetime(2026, 1, 5, 6, tzinfo=UTC), was_skipped=True)
        self._measure([*self.pairs, *(self.pairs[i] | row for i, row in enumerate(rows))])

    def _measure(self, candidates: list[dict[str, Any]]) -> None:
        """Images and measures of candidates that look like pairs."""
        images = [{**row, "status": "ok", "error": None} for row in candidates]
        measures = [
            {
                "candidate_id": row["candidate_id"], "has_file_name": False, "num_caption_letters": 9, "boilerplate_share": 0.0,
                "has_markup": False, "has_personal": False, "language_probability": 1.0, "dictionary_share": 1.0,
                **{name: row[name] for name in ("num_caption_words", "language", "width", "height", "pixel_sha256")},
            }
            for row in candidates
        ]  # fmt: skip
        for folder, rows, schema in (
            (self.layout.images(SOURCE), images, schemas.IMAGES),
            (self.layout.measures(SOURCE), measures, schemas.MEASURES),
        ):
            write_parquet(folder / "part-00000.parquet", pa.Table.from_pylist(rows, schema.with_metadata(None)), schema)

    def tokenize_and_score(self) -> list[Path]:
        """Tokenizer, dVAE, tokens, CLIP and scores: their run directories."""
        folder = {
            name: self.layout.relative(path)
            for name, path in {
                "tokenizer": self.layout.tokenizer("bpe0"),
                "text": self.layout.text_tokens("bpe0"),
                "image": self.layout.image_tokens("vae0"),
                "scores": self.layout.clip_scores("clip0"),
                "pairs": self.layout.pairs(SOURCE),
            }.items()
        }
        pairs = {"pairs": folder["pairs"], "pairs_id": "pairs0"}
        rng = np.random.default_rng(0)
        ids = [pair["pair_id"] for pair in self.pairs]
        text = [{"pair_id": i, "text_tokens": [1, 2, 3], "num_text_tokens": 3, "is_truncated": False} for i in ids]
        tokens = rng.integers(0, CODEBOOK_SIZE // 2, (len(ids), GRID * GRID))
        images = [{"pair_id": i, "crop": 0, "image_tokens": row.tolist()} for i, row in zip(ids, tokens, strict=True)]
        scores = [
            {"pair_id": i, "clip_score": float(score), "image_embedding": unit_vector(i)}
            for i, score in zip(ids, rng.normal(0.3, 0.1, len(ids)), strict=True)
        ]
        write_parts(self.layout.text_tokens("bpe0"), pa.Table.from_pylist(text, schemas.TEXT_TOKENS), schemas.TEXT_TOKENS, 8, 4)
        write_parts(
            self.layout.image_tokens("vae0"),
            pa.Table.from_pylist(images, schemas.IMAGE_TOKENS.with_metadata(None)),
            schemas.IMAGE_TOKENS,
            8,
            4,
        )
        write_parts(
            self.layout.clip_scores("clip0"),
            pa.Table.from_pylist(scores, schemas.CLIP_SCORES.with_metadata(None)),
            schemas.CLIP_SCORES,
            8,
            4,
        )
        counts = np.bincount(tokens.ravel(), minlength=CODEBOOK_SIZE).tolist()
        usage = self.layout.run("tokenize-images-4") / "codebook_usage.parquet"
        rows = [{"image_token": i, "occurrences": count} for i, count in enumerate(counts)]
        write_parquet(usage, pa.Table.from_pylist(rows, schemas.CODEBOOK_USAGE), schemas.CODEBOOK_USAGE)
        originals = np.concatenate([self._pixels(scene) for scene in self._scenes("training", 8)], 1)
        sheet = np.concatenate([originals, np.clip(originals + rng.normal(0, 12, originals.shape), 0, 255)]).astype(np.uint8)
        reconstructions = self.layout.run("train-dvae-2") / "reconstructions.png"
        reconstructions.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(reconstructions)
        return [
            self.run("train-bpe-1", pairs, {"tokenizer_id": "bpe0", "tokenizer": folder["tokenizer"], "vocab_size": 490}),
            self.run(
                "train-dvae-2",
                pairs,
                {
                    "dvae_id": "vae0",
                    "checkpoint": "runs/train-dvae-2/checkpoint",
                    "psnr": 23.4,
                    "perplexity": 31.0,
                    "codes_used": 700,
                    "reconstructions": self.layout.relative(reconstructions),
                },
                curve("loss", "psnr", "kl_nats", "perplexity", "codes_used", "codes_dead", "top_code_share"),
            ),
            self.run(
                "tokenize-captions-3", {**pairs, "tokenizer": folder["tokenizer"], "tokenizer_id": "bpe0"}, {"text_tokens": folder["text"]}
            ),
            self.run(
                "tokenize-images-4",
                {**pairs, "dvae_id": "vae0"},
                {"image_tokens": folder["image"], "codebook_usage": self.layout.relative(usage), "codes_used": 16, "images_per_s": 900.0},
            ),
            self.run(
                "train-clip-5", {**pairs, "tokenizer_id": "bpe0", "dvae_id": "vae0"}, {"clip_id": "clip0", "checkpoint": "x"}, curve("loss")
            ),
            self.run("score-pairs-6", {**pairs, "clip_id": "clip0"}, {"clip_scores": folder["scores"], "num_scores": len(ids)}),
        ]

    def score_safety(self) -> Path:
        """Scores of a safety classifier: its run directory."""
        folder = self.layout.safety_scores("safe0")
        rows = [{"pair_id": pair["pair_id"], "nsfw_score": 0.01 * i, "watermark_score": 0.02} for i, pair in enumerate(self.pairs)]
        write_parts(folder, pa.Table.from_pylist(rows, schemas.SAFETY_SCORES.with_metadata(None)), schemas.SAFETY_SCORES, 8, 4)
        inputs = {"pairs": self.layout.relative(self.layout.pairs(SOURCE)), "pairs_id": "pairs0", "clip_id": "clip0"}
        return self.run("score-safety-6", inputs, {"safety_scores": self.layout.relative(folder), "safety_id": "safe0"})

    def reconstruct(self) -> Path:
        """What `dalle reconstruct` was asked for one pair: its run directory."""
        path = self.layout.run("reconstruct-3") / "reconstructions.parquet"
        pair = self.pairs[0]["pair_id"]
        row = {"dvae_id": "vae0", "picture": f"pair {pair}", "pair_id": pair, "psnr": 20.0, "num_codes": 1, "image_tokens": [1, 1]}
        write_parquet(path, pa.Table.from_pylist([row], schemas.RECONSTRUCTIONS.with_metadata(None)), schemas.RECONSTRUCTIONS)
        return self.run("reconstruct-3", {"dvae_id": "vae0"}, {"num_pictures": 1, "psnr": 20.0})

    def train(self, training_set_id: str) -> Path:
        """The transformer's run directory."""
        inputs = {
            "training_set": f"training_sets/{training_set_id}",
            "training_set_id": training_set_id,
            "dvae_id": "vae0",
            "tokenizer_id": "bpe0",
        }
        checkpoint = self.layout.run("train-transformer-7") / "checkpoint"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "config.json").write_text(json.dumps({"kind": "transformer", "id": "tf0", "config": {}}))
        result = {
            "transformer_id": "tf0",
            "checkpoint": "runs/train-transformer-7/checkpoint",
            "image_loss": 0.03,
            "num_parameters": 1_190_000,
        }
        norms = {"step": 190, "split": "gradients", "attention_00": 0.5, "mlp_00": 0.25}
        return self.run("train-transformer-7", inputs, result, [*curve("loss", "text_loss", "image_loss", "gradient_norm"), norms])

    def generate_and_judge(self) -> list[Path]:
        """Prompts of the three sets, noisy pictures for them, and verdicts: two run directories."""
        run_id, rng = "generate-images-8", np.random.default_rng(1)
        asked = [(name, text, scene) for name in PROMPT_SETS for text, scene in prompts(name, self.num_prompts, 64)]
        prompt_rows = [
            {"prompt_id": prompt_id(text), "prompt": text, "prompt_set": name, "expected": json.dumps({"object": scene.object})}
            for name, text, scene in asked
        ]
        write_parquet(
            self.layout.root / "prompts" / "p.parquet",
            pa.Table.from_pylist(prompt_rows, schemas.PROMPTS.with_metadata(None)),
            schemas.PROMPTS,
        )
        generations, verdicts = [], []
        for name, text, scene in asked:
            scores = rng.normal(0.3, 0.1, self.num_candidates)
            ranks = (-scores).argsort().argsort() + 1
            for i in range(self.num_candidates):
                path = self.layout.run(run_id) / "images" / f"{prompt_id(text)}-{i:03d}.png"
                noise = 8 * ranks[i]
                picture = np.clip(self._pixels(scene) + rng.normal(0, noise, (32, 32, 3)), 0, 255).astype(np.uint8)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
                made = generation_id(run_id, text, i)
                generations.append(
                    {
                        "generation_id": made,
                        "prompt_id": prompt_id(text),
                        "prompt": text,
                        "prompt_set": name,
                        "candidate_index": i,
                        "seed": i,
                        "image_tokens": rng.integers(0, CODEBOOK_SIZE, GRID * GRID).tolist(),
                        "clip_score": float(scores[i]),
                        "rank": int(ranks[i]),
                        "image_path": self.layout.relative(path),
                    }
                )
                right = dict(zip(("object", "color", "background", "layout"), (rng.random(4) < 1 - ranks[i] / 64).tolist(), strict=True))
                flags = {f"{key}_right": value for key, value in right.items()}
                verdicts.append({"generation_id": made, "prompt_set": name, **flags, "all_right": all(right.values())})
        generated, judged = self.layout.run(run_id) / "generations.parquet", self.layout.run("evaluate-9") / "evaluations.parquet"
        write_parquet(generated, pa.Table.from_pylist(generations, schemas.GENERATIONS), schemas.GENERATIONS)
        write_parquet(judged, pa.Table.from_pylist(verdicts, schemas.EVALUATIONS), schemas.EVALUATIONS)
        measured = self.layout.run("evaluate-9") / "figures.parquet"
        write_parquet(measured, pa.Table.from_pylist(self._figures(), schemas.FIGURES.with_metadata(None)), schemas.FIGURES)
        dropped = self.layout.run(run_id) / "dropped_prompts.parquet"
        row = {"prompt_id": prompt_id(""), "prompt": "", "prompt_set": "own", "reason": "empty", "detail": "line 7: it has no text"}
        write_parquet(dropped, pa.Table.from_pylist([row], schemas.DROPPED_PROMPTS.with_metadata(None)), schemas.DROPPED_PROMPTS)
        embeddings = self.layout.run(run_id) / "image_embeddings.parquet"
        vectors = [
            {"generation_id": row["generation_id"], "clip_id": "clip0", "image_embedding": unit_vector(row["seed"])} for row in generations
        ]
        write_parquet(
            embeddings,
            pa.Table.from_pylist(vectors, schemas.GENERATION_EMBEDDINGS.with_metadata(None)),
            schemas.GENERATION_EMBEDDINGS,
        )
        networks = {"transformer_id": "tf0", "dvae_id": "vae0", "clip_id": "clip0", "tokenizer_id": "bpe0"}
        inputs = {"prompts": "prompts/p.parquet", "prompts_id": "p0", **networks}
        result = {
            "generations": self.layout.relative(generated),
            "image_embeddings": self.layout.relative(embeddings),
            "dropped_prompts": self.layout.relative(dropped),
            "images": f"runs/{run_id}/images",
            "num_images": len(generations),
        }
        return [
            self.run(run_id, inputs, result),
            self.run(
                "evaluate-9",
                {
                    "generations": self.layout.relative(generated),
                    "generations_run": run_id,
                    "prompts": "prompts/p.parquet",
                    "prompts_id": "p0",
                },
                {"evaluations": self.layout.relative(judged), "figures": self.layout.relative(measured)},
            ),
        ]

    @staticmethod
    def _figures() -> list[dict[str, Any]]:
        """A few figures, as an evaluator would make them."""
        none = {"prompt_set": None, "best_of": None, "blur_radius": None, "low": None, "high": None, "note": None}
        unseen = {"prompt_set": "unseen_scene", "low": 0.1, "high": 0.4, "num_samples": 2, "space": "clip clip1"}
        return [
            {**none, **unseen, "figure": "retrieval", "pictures": "drawn", "best_of": 1, "value": 0.2},
            {**none, **unseen, "figure": "retrieval", "pictures": "drawn", "best_of": 4, "value": 0.25, "note": "only 2 prompts"},
            {**none, "figure": "retrieval", "pictures": "chance", "value": 0.01, "num_samples": 100, "space": "none"},
            {**none, **unseen, "figure": "retrieval", "pictures": "real", "prompt_set": None, "value": 0.5},
            {**none, **unseen, "figure": "copies", "pictures": "drawn", "best_of": 4, "value": 0.0, "low": 0.0},
            *({**none, **unseen, "figure": "frechet", "pictures": "drawn", "best_of": 4, "blur_radius": r, "value": 0.3} for r in (0, 8)),
            {**none, "figure": "psnr", "pictures": "reconstructed", "value": 23.4, "num_samples": 3, "space": "pixels"},
        ]

    def catalogue(self) -> str:
        """The whole pipeline's catalogue side: ingest, export the training set, publish. Returns the training set's id."""
        from dalle_datasets.catalog import ingest, snapshot
        from dalle_datasets.catalog.connection import connect
        from dalle_datasets.catalog.runs import log_networks, log_stage_times
        from dalle_datasets.catalog.training_sets import export_training_set

        layout = self.layout
        self.collect()
        runs = [*self.tokenize_and_score(), self.reconstruct(), self.score_safety()]
        with connect(layout.catalog) as con:
            ingest.ingest_pairs(con, layout, SOURCE)
            ingest.ingest_dropped_pairs(con, layout, SOURCE)
            ingest.ingest_collections(con, layout, SOURCE)
            for run in runs:
                ingest.ingest_run(con, layout, run)
            chosen = export_training_set(
                con, layout, query="captioned_pairs", min_clip_score_quantile=0.0, seed=0, rows_per_part=5, row_group_size=4, **IDS
            )
            ingest.ingest_training_set(con, layout, chosen.id)
            for run in [self.train(chosen.id), *self.generate_and_judge()]:
                ingest.ingest_run(con, layout, run)
            times = layout.stage_times("pipe-1")
            times.parent.mkdir(exist_ok=True)
            stages = ["discover", "download", "filter", "train dvae", "train clip", "train transformer", "generate images"]
            lines = [
                {"stage": stage, "was_skipped": False, "started_at": 1_790_000_000.0 + i, "duration_s": 10.0 + i}
                for i, stage in enumerate(stages)
            ]
            times.write_text("".join(json.dumps(line) + "\n" for line in lines))
            log_stage_times(con, layout, times)
            layout.networks("dvae").parent.mkdir(exist_ok=True)
            layout.networks("dvae").write_text(json.dumps(self._registration()) + "\n")
            log_networks(con, layout)
        snapshot.publish(layout)
        return chosen.id

    @staticmethod
    def _registration() -> dict[str, Any]:
        """The dVAE as its training registers it."""
        return {
            "at": "2026-01-05T06:00:00+00:00", "settings_id": "s0", "network_id": "vae0", "run_id": "train-dvae-2", "path": "x",
            "is_current": True, "why": "the first with these settings", "pairs_id": "pairs0", "num_pairs": 12, "metrics": {"psnr": 20.0},
        }  # fmt: skip

    def run(self, run_id: str, inputs: dict[str, str], result: dict[str, Any], metrics: list[dict[str, Any]] | None = None) -> Path:
        """A finished run directory, as `dalle_model.running.run_dir` writes it."""
        job, number = run_id.rsplit("-", 1)
        job, started = job.replace("-", "_"), 1_790_000_000.0 + 60 * int(number)
        overrides = {"dvae.codebook_size": CODEBOOK_SIZE, "sampling.num_images": self.num_candidates, "train_transformer.max_steps": 5}
        config = to_dict(preset("demo", {"paths.data_root": str(self.layout.root), **overrides}))
        folder = self.layout.run(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        made = {"job": job, "run_id": run_id, **result, "started_at": started, "duration_s": 1.5}
        (folder / "config.json").write_text(json.dumps({"job": job, "config": config, "inputs": inputs}))
        (folder / "job.json").write_text(json.dumps({"job": job, "git_commit": "c0ffee", "host": "here", "pid": 1}))
        if metrics:
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
            rates = {"pairs_per_s": 200.0, "data_wait_share": 0.01, "memory_bytes": 2**30, "num_processes": 1}
            (folder / "speed.jsonl").write_text("".join(json.dumps({"step": step, **rates}) + "\n" for step in range(10, 200, 10)))
        (folder / "result.json").write_text(json.dumps(made))
        return folder

    def _scenes(self, name: str, count: int) -> list[Scene]:
        return [scene for _, scene in prompts(name, count, 64)]

    def _pixels(self, scene: Scene) -> np.ndarray[Any, Any]:
        return draw_scene(scene, 32)

    def _pair(self, scene: Scene, number: int) -> dict[str, Any]:
        buffer = BytesIO()
        Image.fromarray(draw_scene(scene, 32)).save(buffer, "PNG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        caption = caption_scene(scene, random.Random(number))
        return {
            "pair_id": pair_id(digest, caption),
            "caption": caption,
            "image": buffer.getvalue(),
            "width": 32,
            "height": 32,
            "sha256": digest,
            "pixel_sha256": digest,
            "split": "validation" if number % 4 == 3 else "train",
            "num_caption_words": len(caption.split()),
            "aspect_ratio": 1.0,
            "language": "en",
            "source": SOURCE,
            "page_url": f"http://127.0.0.1/page/{number // 4}",
            "image_url": f"http://127.0.0.1/{number}.png",
            "candidate_id": f"c{number}",
        }


def unit_vector(seed: int, width: int = 8) -> list[np.float16]:
    """An embedding, as a CLIP would give."""
    vector = np.random.default_rng(seed).normal(size=width)
    return list((vector / np.linalg.norm(vector)).astype(np.float16))


def curve(*names: str) -> list[dict[str, Any]]:
    """Falling numbers of 20 steps of training, with validation at every tenth."""
    lines: list[dict[str, Any]] = []
    for step in range(0, 200, 10):
        numbers = {name: round(3 * 0.98**step + 0.3 * i, 4) for i, name in enumerate(names)}
        lines.append({"step": step, "split": "train", **numbers})
        if step % 50 == 0:
            lines.append({"step": step, "split": "validation", **{name: value + 0.2 for name, value in numbers.items()}})
    return lines


@pytest.fixture
def make_data_root(tmp_path: Path) -> Callable[..., DataRoot]:
    """A builder of data roots: `make_data_root(num_pairs=12)`; files only, nothing is catalogued."""

    def make(name: str = "data", **sizes: int) -> DataRoot:
        return DataRoot(tmp_path / name, **sizes)

    return make


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a script of `examples/` as a person does, in this process: `run_example("draw.py", folder, prompt)`, in the test's folder."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(Path(__file__).parents[1] / "examples" / name), run_name="__main__")

    return run


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty catalog, made once: migrations, views and their comments take seconds."""
    import duckdb

    from dalle_datasets.catalog.migrations import apply_views, migrate

    path = tmp_path_factory.mktemp("migrated") / "catalog.duckdb"
    with duckdb.connect(str(path)) as con:
        migrate(con)
        apply_views(con)
    return path


@pytest.fixture(scope="session")
def _catalogued_template(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("catalogued") / "data")
    root.catalogue()
    return root


@pytest.fixture
def catalogued_root(_catalogued_template: DataRoot, tmp_path: Path) -> DataRoot:
    """A data root with everything in it, catalogued and published; the test's own copy."""
    shutil.copytree(_catalogued_template.layout.root, tmp_path / "data")
    return DataRoot(tmp_path / "data")


@pytest.fixture(scope="session")
def traces() -> Callable[[Path, set[str], set[bytes]], list[str]]:
    """Says which files of a folder hold one of some texts or pictures: as bytes, in a column of Parquet, or in a table."""
    import duckdb
    import pyarrow.parquet as pq

    def found(root: Path, texts: set[str], pictures: set[bytes]) -> list[str]:
        def has(value: Any) -> bool:
            if isinstance(value, bytes):
                return value in pictures
            if isinstance(value, list | tuple):
                return any(map(has, value))
            return any(text in str(value) for text in texts)

        wanted = [*(text.encode() for text in texts), *(picture[40:] for picture in pictures)]
        where = []
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            data = path.read_bytes()
            if any(text in data for text in wanted):
                where.append(f"{path.relative_to(root)} (bytes: {[text for text in wanted if text in data][:3]})")
            if data[:4] == b"PAR1" and has([column.to_pylist() for column in pq.read_table(path, partitioning=None).columns]):
                where.append(f"{path.relative_to(root)} (columns)")
            if path.suffix == ".duckdb":
                with duckdb.connect(str(path), read_only=True) as con:
                    tables = con.execute("select table_name from duckdb_tables()").fetchall()
                    where += [f"{path.name} ({table})" for (table,) in tables if has(con.table(table).fetchall())]
        return where

    return found


@pytest.fixture(scope="session")
def migrated_database() -> Path:
    """Where a database of this Prefect version is kept that needs no migration, which takes 13 s of CPU; made by `prefect_server`."""
    from importlib import metadata

    return Path(tempfile.gettempdir()) / f"open-dalle-prefect-{metadata.version('prefect')}-{os.getuid()}.db"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """The address of a private server with a database of its own."""
    from flows.runtime.prefect_server import private_server

    home = tmp_path_factory.mktemp("prefect")
    template = migrated_database
    if template.exists():
        shutil.copy(template, home / "prefect.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        with private_server(home) as server:
            server.wait()
            if not template.exists():  # VACUUM INTO gives a consistent copy of a database in use
                partial = template.with_suffix(f".{os.getpid()}")
                with sqlite3.connect(home / "prefect.db") as database:
                    database.execute("vacuum into ?", (str(partial),))
                partial.rename(template)
            from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

            # Prefect may have been imported, with its settings, by an earlier test.
            with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: home}):
                yield server.url
