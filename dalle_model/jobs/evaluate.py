"""Job: do the pictures show what was asked for? Of the demo's scenes a strict checker judges every candidate.

With the input `evaluator`, a CLIP, all figures of `dalle_model.evaluation.measure` are made, for any prompts.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.demo.emoji_checker import ATTRIBUTES, EmojiChecker, right_attributes
from dalle_datasets.demo.emoji_scenes import Scene
from dalle_datasets.store.parquet import check_parquet, open_parquet, read_parquet, write_parquet
from dalle_datasets.store.schemas import EVALUATIONS, GENERATIONS, PROMPTS
from dalle_model.evaluation.measure import measure
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import GROUP_SIZES, best_of, bootstrap_interval

PICTURES_AT_ONCE = 512
COLUMNS = ["generation_id", "prompt_id", "prompt_set", "candidate_index", "clip_score", "image_path"]


def run(run: JobRun) -> dict[str, Any]:
    """Measure the pictures where there is an evaluator, and judge those of known scenes.

    Raises `ValueError` when there is neither.
    """
    asked = asked_scenes(run.input_path("prompts"))
    if "evaluator" not in run.inputs:
        return check(run, asked)
    return measure(run) | (check(run, asked) if asked else {})


def check(run: JobRun, asked: dict[str, Scene]) -> dict[str, Any]:
    """Judge all candidates, store the verdicts, and make the agreement table with the interval of reranking's
    lift."""
    rows = judge(run, run.input_path("generations"), asked)
    if not rows:
        raise ValueError(f"no picture of {run.input_path('generations')} was made for a prompt whose scene is known; nothing can be judged")
    path = run.run_dir / "evaluations.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, EVALUATIONS.with_metadata(None)), EVALUATIONS)
    agreement, lift, num_prompts = {}, {}, {}
    for prompt_set in dict.fromkeys(row["prompt_set"] for row in rows):
        right, scores = by_prompt([row for row in rows if row["prompt_set"] == prompt_set])
        agreement[prompt_set] = agreement_table(right, scores)
        lift[prompt_set] = lift_of_reranking(right["all"], scores)
        num_prompts[prompt_set] = len(scores)
    return {"evaluations": run.layout.relative(path), "agreement": agreement, "lift": lift, "num_prompts": num_prompts}


def asked_scenes(prompts: Path) -> dict[str, Scene]:
    """prompt_id -> scene, for the prompts whose scene is known."""
    rows = read_parquet(prompts, PROMPTS, ["prompt_id", "expected"]).to_pylist()
    return {row["prompt_id"]: Scene(**json.loads(row["expected"])) for row in rows if row["expected"]}


def judge(run: JobRun, generations: Path, asked: dict[str, Scene]) -> list[dict[str, Any]]:
    """`schemas.EVALUATIONS` with the columns that ranking needs, for every picture whose scene is known."""
    total = check_parquet(generations, GENERATIONS).num_rows
    checker = EmojiChecker()
    rows: list[dict[str, Any]] = []
    done = 0
    with open_parquet(generations) as file:
        for batch in file.iter_batches(PICTURES_AT_ONCE, columns=COLUMNS):
            some = [row for row in batch.to_pylist() if row["prompt_id"] in asked]
            if some:
                pictures = np.stack([np.asarray(Image.open(run.layout.root / row["image_path"]).convert("RGB")) for row in some])
                for row, seen in zip(some, checker.recognise(pictures), strict=True):
                    right = right_attributes(seen, asked[row["prompt_id"]])
                    rows.append({**row, **{f"{name}_right": value for name, value in right.items()}})
            done += len(batch)
            report_progress(done, total, "pictures")
    return rows


def by_prompt(rows: list[dict[str, Any]]) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """(attribute -> right [P, N] as 0 or 1, CLIP scores [P, N]) with candidates in the order they were drawn."""
    candidates: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["candidate_index"])):
        candidates.setdefault(row["prompt_id"], []).append(row)
    right = {
        name: np.array([[float(row[f"{name}_right"]) for row in some] for some in candidates.values()]) for name in (*ATTRIBUTES, "all")
    }
    return right, np.array([[row["clip_score"] for row in some] for some in candidates.values()])


def agreement_table(right: dict[str, NDArray[np.float64]], scores: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Share right for "n=1" (every candidate counts), "n=k" (CLIP's best of k) and "any" (is there one at all?)."""
    num_candidates = scores.shape[1]
    sizes = [n for n in GROUP_SIZES if n <= num_candidates]
    table = {f"n={n}": {name: float(best_of(values, scores, n).mean()) for name, values in right.items()} for n in sizes}
    return {**table, "any": {name: float(values.max(1).mean()) for name, values in right.items()}}


def lift_of_reranking(right: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """How much more often all attributes are right in CLIP's best of n than without a choice, with its 95% interval over prompts."""
    lifts = {}
    for n in GROUP_SIZES[1:]:
        if n <= scores.shape[1]:
            mean, low, high = bootstrap_interval(best_of(right, scores, n) - right.mean(1))
            lifts[f"n={n}"] = {"mean": mean, "low": low, "high": high}
    return lifts
