"""Job: how well every caption fits its picture, according to CLIP; one Parquet part for each part of pairs.

The embeddings of the pictures are kept beside the scores: generated pictures are compared with them to find copies.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dalle_datasets.loading.image_batches import centre
from dalle_datasets.store.parquet import check_parquet, list_column, open_parquet, read_parquet
from dalle_datasets.store.schemas import CLIP_SCORES, PAIRS
from dalle_model.clip import Clip, cosine
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.running.parts import OutputParts, map_parts
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import load_scorer
from dalle_model.training.parallel import own_device

PAIRS_AT_ONCE = 128


def work(run: JobRun) -> Path:
    """Score part after part, until this process and those beside it have made all; returns their folder.

    Scores are raw cosines of the whole pictures' centres.
    """
    clip = load_scorer(run.input_path("clip"))
    clip.network.to(own_device())
    directory = run.layout.clip_scores(clip.id)
    map_parts(OutputParts(run, directory, CLIP_SCORES), lambda part: score_part(clip, part))
    return directory


def finish(run: JobRun, directory: Path) -> dict[str, Any]:
    """How many scores there are, and their mean."""
    out = OutputParts(run, directory, CLIP_SCORES)
    parts = [out.path_of(source) for source in out.sources]
    scores = [read_parquet(part, CLIP_SCORES, ["clip_score"])["clip_score"] for part in parts]
    num_scores = sum(map(len, scores))
    return {
        "clip_scores": run.layout.relative(directory),
        "num_scores": num_scores,
        "mean_score": sum(pc.sum(column, min_count=0).as_py() for column in scores) / max(1, num_scores),
    }


def score_part(clip: Clip, part: Path) -> pa.Table:
    """`schemas.CLIP_SCORES` of one part of pairs, a bounded number of pictures in memory."""
    check_parquet(part, PAIRS)
    side = clip.about["preprocess_cfg"]["size"]
    nobody = np.random.default_rng(0)  # `centre` draws nothing from it
    schema = CLIP_SCORES.with_metadata(None)
    scored: list[pa.Table] = []
    with open_parquet(part) as file:
        for batch in file.iter_batches(PAIRS_AT_ONCE, columns=["pair_id", "caption", "image"]):
            decoded = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in batch["image"].to_pylist())
            pictures = np.stack([centre(picture, side, nobody) for picture in decoded])
            embeddings = clip.encode_images(as_floats(as_tensor(pictures)))
            scores = cosine(embeddings, clip.encode_texts(batch["caption"].to_pylist()))
            columns = {
                "pair_id": batch["pair_id"],
                "clip_score": scores.float().cpu().numpy(),
                "image_embedding": list_column(embeddings.cpu().half().numpy(), schema.field("image_embedding").type),
            }
            scored.append(pa.table(columns, schema=schema))
    return pa.concat_tables(scored) if scored else schema.empty_table()
