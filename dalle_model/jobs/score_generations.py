"""Job: let one more CLIP score and rank pictures that were generated earlier, so that scorers stand side by side.

`generate_images` ranks with one CLIP; run this once for each further one.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from dalle_datasets.parquet import check_parquet, write_parquet
from dalle_datasets.schemas import GENERATIONS, RERANK_SCORES
from dalle_model.clip import cosine
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.progress import report_progress
from dalle_model.sampling.rerank import load_scorer, ranks
from dalle_model.training.parallel import join_world

SECTIONS = ()
VERSION = 1
PICTURES_AT_ONCE = 256
COLUMNS = ["generation_id", "prompt_id", "prompt", "candidate_index", "image_path"]


def run(run: JobRun) -> dict[str, Any]:
    """Score every stored picture with its prompt, and rank the candidates of each prompt."""
    clip = load_scorer(run.input_path("clip"))
    clip.network.to(join_world().device)
    generations = run.input_path("generations")
    num_pictures = check_parquet(generations, GENERATIONS).num_rows
    scored: list[dict[str, Any]] = []
    with pq.ParquetFile(generations) as file:
        for batch in file.iter_batches(PICTURES_AT_ONCE, columns=COLUMNS):
            rows = batch.to_pylist()
            pixels = np.stack([np.asarray(Image.open(run.layout.root / row["image_path"]).convert("RGB")) for row in rows])
            images = clip.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
            prompts = {row["prompt"]: i for i, row in enumerate({row["prompt"]: row for row in rows}.values())}
            texts = clip.encode_texts(list(prompts))[[prompts[row["prompt"]] for row in rows]]
            for row, score in zip(rows, cosine(images, texts).tolist(), strict=True):
                ids = {"generation_id": row["generation_id"], "prompt_id": row["prompt_id"], "clip_id": clip.id}
                scored.append({**ids, "clip_score": score})
            report_progress(len(scored), num_pictures, "pictures")
    path = run.run_dir / "rerank_scores.parquet"
    write_parquet(path, pa.Table.from_pylist(rank_candidates(scored), RERANK_SCORES.with_metadata(None)), RERANK_SCORES)
    return {"rerank_scores": run.layout.relative(path), "clip_id": clip.id, "num_scores": len(scored)}


def rank_candidates(scored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `rank` among the candidates of their prompt."""
    candidates: dict[str, list[dict[str, Any]]] = {}
    for row in scored:
        candidates.setdefault(row["prompt_id"], []).append(row)
    return [
        {**row, "rank": rank}
        for some in candidates.values()
        for row, rank in zip(some, ranks(torch.tensor([row["clip_score"] for row in some])).tolist(), strict=True)
    ]
