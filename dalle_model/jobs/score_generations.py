"""Job: let one more CLIP score and rank pictures that were generated earlier, so that scorers stand side by side.

`generate_images` ranks with one CLIP; run this once for each further one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from dalle_datasets.store.parquet import atomic_path, check_parquet, list_column, open_parquet, write_parquet
from dalle_datasets.store.schemas import GENERATION_EMBEDDINGS, GENERATIONS, RERANK_SCORES
from dalle_model.clip import Clip, cosine
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import load_scorer
from dalle_model.training.parallel import own_device

PICTURES_AT_ONCE = 256
COLUMNS = ["generation_id", "prompt_id", "prompt", "image_path"]


def run(run: JobRun) -> dict[str, Any]:
    """Score every stored picture with its prompt, and rank the candidates of each prompt. Pictures are in memory a batch at a time."""
    clip = load_scorer(run.input_path("clip"))
    clip.network.to(own_device())
    generations, embeddings_path = run.input_path("generations"), run.run_dir / "image_embeddings.parquet"
    num_pictures = check_parquet(generations, GENERATIONS).num_rows
    scored: list[pa.Table] = []
    with (
        open_parquet(generations) as file,
        atomic_path(embeddings_path) as partial,
        pq.ParquetWriter(partial, GENERATION_EMBEDDINGS, compression="zstd", compression_level=1) as vectors,
    ):
        for batch in file.iter_batches(PICTURES_AT_ONCE, columns=COLUMNS):
            embeddings = embed_pictures(clip, [run.layout.root / path for path in batch["image_path"].to_pylist()])
            scores = cosine(embeddings, embed_texts(clip, batch["prompt"].to_pylist())).float().cpu().numpy()
            ids = {"generation_id": batch["generation_id"], "clip_id": pa.array([clip.id] * len(batch), pa.string())}
            column = list_column(embeddings.cpu().half().numpy(), GENERATION_EMBEDDINGS.field("image_embedding").type)
            vectors.write_table(pa.table({**ids, "image_embedding": column}, schema=GENERATION_EMBEDDINGS))
            scored.append(pa.table({**ids, "prompt_id": batch["prompt_id"], "clip_score": scores}))
            report_progress(sum(map(len, scored)), num_pictures, "pictures")
    path = run.run_dir / "rerank_scores.parquet"
    write_parquet(path, rank_candidates(pa.concat_tables(scored)), RERANK_SCORES)
    return {
        "rerank_scores": run.layout.relative(path),
        "image_embeddings": run.layout.relative(embeddings_path),
        "clip_id": clip.id,
        "num_scores": num_pictures,
    }


def embed_pictures(clip: Clip, paths: list[Path]) -> Tensor:
    """Embeddings [B, E] of picture files. Raises `OSError` naming the file that is missing or damaged."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return clip.encode_images(as_floats(as_tensor(pixels)))


def embed_texts(clip: Clip, prompts: list[str]) -> Tensor:
    """Embeddings [B, E] of prompts, most of which are repeated: each is encoded once."""
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return clip.encode_texts(list(places))[[places[prompt] for prompt in prompts]]


def rank_candidates(scored: pa.Table) -> pa.Table:
    """The rows with `rank` among the candidates of their prompt: 1 is the best, and among equal scores the earlier one is better."""
    prompts = scored["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((np.arange(len(scored)), -scored["clip_score"].to_numpy(), prompts))
    firsts = np.unique(prompts[order], return_index=True)[1]
    ranks = np.empty(len(scored), np.int32)
    ranks[order] = np.arange(len(scored)) - np.repeat(firsts, np.diff([*firsts, len(scored)])) + 1
    return scored.append_column("rank", pa.array(ranks))
