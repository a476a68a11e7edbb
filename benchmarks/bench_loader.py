"""Pairs per second from a training set's Parquet to tensors, against what one GPU consumes: `python benchmarks/bench_loader.py`.

The need is arithmetic, not a measurement: 60% of a measured 788 TFLOP/s (an H200's bf16 matrix products) over the work of a pair.
"""

import argparse
import random
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from dalle_datasets.loading.token_batches import TokenBatches
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import TRAINING_SET
from dalle_model.config.model import StreamShape, TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.jobs.train_transformer import encode_batch
from dalle_model.text import BpeTokenizer
from dalle_model.transformer.cost import training_flops_per_token

USEFUL_FLOPS = 0.6 * 788e12
WORDS = ("a", "the", "red", "old", "small", "photo", "of", "with", "in", "front", "house", "river", "cat", "child", "street", "night")


def write_training_set(folder: Path, num_rows: int, stream: StreamShape) -> BpeTokenizer:
    """Random pairs: captions of 6 to 24 words and uniform image tokens, which compress worse than real ones."""
    rng, words = np.random.default_rng(0), random.Random(0)
    captions = [" ".join(words.choices(WORDS, k=words.randint(6, 24))) for _ in range(num_rows)]
    tokenizer = BpeTokenizer.train(captions[:2_000], TokenizerConfig(vocab_size=1_000, max_text_tokens=stream.max_text_tokens))
    image = rng.integers(0, stream.codebook_size, (num_rows, stream.num_image_tokens)).astype(np.uint16)
    columns = {
        "pair_id": np.arange(num_rows),
        "crop": np.zeros(num_rows, np.int64),
        "split": ["train"] * num_rows,
        "caption": captions,
        "source": ["bench"] * num_rows,
        "page_url": [""] * num_rows,
        "text_tokens": [tokens[: stream.max_text_tokens] for tokens in tokenizer.encode(captions)],
        "image_tokens": list(image),
    }
    schema = TRAINING_SET.with_metadata(None)
    table = pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema)
    write_parts(folder, table, TRAINING_SET, rows_per_part=20_000, row_group_size=1_000)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="*", default=["small", "large"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    for name in arguments.presets:
        config = preset(name)
        stream = config.stream
        need = USEFUL_FLOPS / (training_flops_per_token(config.transformer, stream) * stream.num_positions)
        print(f"{name}: {stream.max_text_tokens} + {stream.num_image_tokens} tokens; one H200 would consume {need:,.0f} pairs/s")
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = write_training_set(Path(folder), arguments.rows, stream)
            pairs = TokenBatches(
                Path(folder),
                "train",
                text_vocab_size=tokenizer.vocab_size,
                max_text_tokens=stream.max_text_tokens,
                codebook_size=stream.codebook_size,
                num_image_tokens=stream.num_image_tokens,
            )
            num_batches = arguments.rows // arguments.batch_size  # one epoch, reading included
            for what, dropout in (("stored text tokens", 0.0), ("captions encoded with BPE dropout", 0.1)):
                started = time.process_time()
                for i, batch in enumerate(islice(pairs.batches(arguments.batch_size, seed=0), num_batches)):
                    encode_batch(batch, tokenizer, dropout, i)
                rate = num_batches * arguments.batch_size / (time.process_time() - started)
                print(f"  {what:36s} {rate:9,.0f} pairs per CPU second   {rate / need:6.1f}x the need")


if __name__ == "__main__":
    main()
