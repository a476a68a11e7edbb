"""Job: do the pictures show what was asked for? Of the demo's scenes a strict checker judges every candidate, of other prompts CLIP does.

CLIP's choice is compared with chance in both cases.
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
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import best_of, bootstrap_interval, load_scorer

GROUP_SIZES = (1, 4, 8, 16, 32, 64, 128, 256, 512)
"""The n of "best of n" in the table, as far as there are candidates."""
PICTURES_AT_ONCE = 512
COLUMNS = ["generation_id", "prompt_id", "prompt_set", "candidate_index", "clip_score", "image_path"]


def run(run: JobRun) -> dict[str, Any]:
    """Judge all candidates, store the verdicts, and make the agreement table with the interval of reranking's lift.

    With the input `clip` the prompts are taken for free text, and the result is `retrieval`.
    """
    if "clip" in run.inputs:
        return retrieval(run)
    asked = asked_scenes(run.input_path("prompts"))
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


def retrieval(run: JobRun) -> dict[str, Any]:
    """How often a picture is more like its own prompt than like every other prompt of the batch, beside chance.

    "n=1" counts every candidate, "n=k" CLIP's best of k. The CLIP that judges is the one that chose, so best-of-k is an upper bound.
    Raises `ValueError` for a batch of one prompt.
    """
    rows = read_parquet(
        run.input_path("generations"), GENERATIONS, ["generation_id", "prompt_id", "prompt", "candidate_index", "clip_score"]
    )
    prompts = {row["prompt_id"]: row["prompt"] for row in rows.select(["prompt_id", "prompt"]).to_pylist()}
    if len(prompts) < 2:
        raise ValueError(f"{run.input_path('generations')} has one prompt; how well pictures are told apart takes two, so draw more")
    texts = load_scorer(run.input_path("clip")).encode_texts(list(prompts.values())).float().cpu().numpy()
    places = {prompt_id: place for place, prompt_id in enumerate(prompts)}
    right: dict[str, bool] = {}
    prompt_of = dict(zip(rows["generation_id"].to_pylist(), rows["prompt_id"].to_pylist(), strict=True))
    with open_parquet(run.input_path("image_embeddings")) as file:
        for batch in file.iter_batches(PICTURES_AT_ONCE, columns=["generation_id", "image_embedding"]):
            pictures = np.stack(batch["image_embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
            nearest = (pictures @ texts.T).argmax(1)
            ids = batch["generation_id"].to_pylist()
            right |= {id: bool(place == places[prompt_of[id]]) for id, place in zip(ids, nearest, strict=True)}
            report_progress(len(right), rows.num_rows, "pictures")
    judged: dict[str, list[tuple[float, float]]] = {}
    for row in rows.sort_by("candidate_index").to_pylist():
        judged.setdefault(row["prompt_id"], []).append((float(right[row["generation_id"]]), row["clip_score"]))
    values, scores = np.moveaxis(np.array(list(judged.values())), 2, 0)
    table = {f"n={n}": float(best_of(values, scores, n).mean()) for n in GROUP_SIZES if n <= scores.shape[1]}
    return {"retrieval": {**table, "chance": 1 / len(prompts)}, "num_prompts": len(prompts)}


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
