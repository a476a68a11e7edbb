"""Job: text tokens of every pair's caption, one Parquet part for each part of pairs."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import PAIRS, TEXT_TOKENS
from dalle_model.running.parts import OutputParts, map_parts
from dalle_model.running.run_dir import JobRun
from dalle_model.text import BpeTokenizer


def run(run: JobRun) -> dict[str, Any]:
    """Encode part by part; a part that an interrupted run finished is kept."""
    tokenizer = BpeTokenizer.load(run.input_path("tokenizer"))
    directory = run.layout.text_tokens(tokenizer.id)
    parts = map_parts(
        OutputParts(run, directory, TEXT_TOKENS), lambda part: encode_pairs(tokenizer, read_parquet(part, PAIRS, ["pair_id", "caption"]))
    )
    are_truncated = [read_parquet(part, TEXT_TOKENS, ["is_truncated"])["is_truncated"] for part in parts]
    return {
        "text_tokens": run.layout.relative(directory),
        "num_captions": sum(map(len, are_truncated)),
        "num_truncated": sum(pc.sum(column, min_count=0).as_py() for column in are_truncated),
    }


def encode_pairs(tokenizer: BpeTokenizer, pairs: pa.Table) -> pa.Table:
    """`schemas.TEXT_TOKENS` of a table with `pair_id` and `caption`. Nothing is padded; long captions keep their beginning."""
    tokens = tokenizer.encode(pairs["caption"].to_pylist())
    kept = [ids[: tokenizer.max_text_tokens] for ids in tokens]
    return pa.table(
        {
            "pair_id": pairs["pair_id"],
            "text_tokens": pa.array(kept, TEXT_TOKENS.field("text_tokens").type),
            "num_text_tokens": pa.array([len(ids) for ids in kept], pa.int32()),
            "is_truncated": pa.array([len(ids) > tokenizer.max_text_tokens for ids in tokens], pa.bool_()),
        }
    )
