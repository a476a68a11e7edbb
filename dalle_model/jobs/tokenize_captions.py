"""Job: text tokens of every pair's caption, one Parquet part for each part of pairs."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.schemas import PAIRS, TEXT_TOKENS
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.progress import report_progress
from dalle_model.text import BpeTokenizer

SECTIONS = ("shards",)
VERSION = 1


def run(run: JobRun) -> dict[str, Any]:
    """Encode part by part; a part that an interrupted run finished is kept."""
    parts = list_parts(run.input_path("pairs"))
    tokenizer = BpeTokenizer.load(run.input_path("tokenizer"))
    directory = run.layout.text_tokens(tokenizer.id)
    made = []
    num_captions, num_truncated = 0, 0
    for i, part in enumerate(parts):
        # Pairs of other sources and dates share the folder, so the name says which pairs these are.
        path = directory / f"{run.inputs['pairs_id']}-{part.name}"
        if not path.exists():
            pairs = read_parquet(part, PAIRS, ["pair_id", "caption"])
            write_parquet(path, encode_pairs(tokenizer, pairs), TEXT_TOKENS, run.config.shards.row_group_size)
        is_truncated = read_parquet(path, TEXT_TOKENS, ["is_truncated"])["is_truncated"]
        num_captions += len(is_truncated)
        num_truncated += pc.sum(is_truncated, min_count=0).as_py()
        made.append(run.layout.relative(path))
        report_progress(i + 1, len(parts), "parts", captions=num_captions)
    return {
        "text_tokens": run.layout.relative(directory),
        "parts": made,
        "num_captions": num_captions,
        "num_truncated": num_truncated,
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
