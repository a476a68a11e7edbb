"""Job: how likely is each picture not safe for work, or marked with a watermark; one Parquet part for each part of pairs.

It reads the embeddings that `score_pairs` left beside the CLIP scores, so that no picture is decoded again and another choice of
prompts or another trained head costs seconds. Nothing is dropped here: a training set's query says how high is too high.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from dalle_datasets.store.parquet import check_parquet, open_parquet, read_parquet
from dalle_datasets.store.schemas import CLIP_SCORES, SAFETY_SCORES
from dalle_model.running.parts import OutputParts, map_parts
from dalle_model.running.run_dir import JobRun
from dalle_model.safety import SCORES, Classifier, load_classifier
from dalle_model.sampling.rerank import load_scorer

PAIRS_AT_ONCE = 8_192


def run(run: JobRun) -> dict[str, Any]:
    """Score part by part; a part that an interrupted run finished is kept."""
    clip = load_scorer(run.input_path("clip"))
    classifier = load_classifier(run.config.safety_classifier, run.config.safety, clip)
    directory = run.layout.safety_scores(classifier.id)
    embeddings = OutputParts(run, run.layout.clip_scores(clip.id), CLIP_SCORES)

    def score(part: Path) -> pa.Table:
        if not embeddings.is_made(part):
            raise ValueError(
                f"score_safety: {embeddings.path_of(part)} does not hold the embeddings of {part} by CLIP {clip.id}; run score_pairs first"
            )
        return score_part(classifier, embeddings.path_of(part))

    parts = map_parts(OutputParts(run, directory, SAFETY_SCORES, keeps_rows=False), score)
    columns = [read_parquet(part, SAFETY_SCORES, list(SCORES)) for part in parts]
    num_scores = sum(table.num_rows for table in columns)
    means = {f"mean_{name}": sum(pc.sum(table[name], min_count=0).as_py() for table in columns) / max(1, num_scores) for name in SCORES}
    return {"safety_scores": run.layout.relative(directory), "safety_id": classifier.id, "num_scores": num_scores, **means}


def score_part(classifier: Classifier, path: Path) -> pa.Table:
    """`schemas.SAFETY_SCORES` of one part of `schemas.CLIP_SCORES`."""
    check_parquet(path, CLIP_SCORES)
    scored = [SAFETY_SCORES.empty_table()]
    with open_parquet(path) as file:
        for batch in file.iter_batches(PAIRS_AT_ONCE, columns=["pair_id", "image_embedding"]):
            values = np.asarray(batch["image_embedding"].flatten()).astype(np.float32).reshape(batch.num_rows, -1)
            scores = classifier.score(torch.from_numpy(values)).numpy()
            scored.append(pa.table({"pair_id": batch["pair_id"], **dict(zip(SCORES, scores.T, strict=True))}, schema=SAFETY_SCORES))
    return pa.concat_tables(scored)
