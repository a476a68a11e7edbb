"""Job: learn the text vocabulary from the captions of the training pairs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalle_datasets.store.parquet import iter_batches
from dalle_datasets.store.schemas import PAIRS
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.text import BpeTokenizer

CAPTIONS_PER_BATCH = 10_000


def run(run: JobRun) -> dict[str, Any]:
    """Train, publish the vocabulary under its id, and count how captions fit into the text positions."""
    pairs = run.input_path("pairs")
    tokenizer = BpeTokenizer.train(_training_captions(pairs), run.config.tokenizer)
    directory = run.layout.tokenizer(tokenizer.id)
    publish(tokenizer, directory)
    num_captions, longest, num_truncated = 0, 0, 0
    for captions in _caption_batches(pairs):
        lengths = [len(ids) for ids in tokenizer.encode(captions)]
        num_captions += len(lengths)
        longest = max(longest, *lengths)
        num_truncated += sum(length > tokenizer.max_text_tokens for length in lengths)
        report_progress(num_captions, num_captions, "captions")
    return {
        "tokenizer_id": tokenizer.id,
        "tokenizer": run.layout.relative(directory),
        "vocab_size": tokenizer.vocab_size,
        "num_captions": num_captions,
        "longest_caption_tokens": longest,
        "truncated_share": num_truncated / num_captions,
    }


def publish(tokenizer: BpeTokenizer, directory: Path) -> None:
    """Write the vocabulary so that its folder appears whole; one that is already there has the same content."""
    if directory.exists():
        BpeTokenizer.load(directory)  # says so if it is damaged
        return
    partial = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    tokenizer.save(partial)
    try:
        partial.rename(directory)
    except OSError:
        shutil.rmtree(partial)
        BpeTokenizer.load(directory)  # another process was faster


def _caption_batches(pairs: Path) -> Iterator[list[str]]:
    """Captions of the training split, a bounded number at a time."""
    for batch in iter_batches(pairs, PAIRS, ["caption", "split"], CAPTIONS_PER_BATCH):
        captions = [row["caption"] for row in batch.to_pylist() if row["split"] == "train"]
        if captions:
            yield captions


def _training_captions(pairs: Path) -> Iterator[str]:
    for captions in _caption_batches(pairs):
        yield from captions
