"""Job: learn the text vocabulary from the captions of the training pairs, or take one over: as it is, or with tokens added."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalle_datasets.store.parquet import iter_batches
from dalle_datasets.store.schemas import PAIRS
from dalle_model.config.start import different_sizes
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.text import BpeTokenizer, normalize_caption

CAPTIONS_PER_BATCH = 10_000


def run(run: JobRun) -> dict[str, Any]:
    """Train, publish the vocabulary under its id, and count how captions fit into the text positions."""
    pairs = run.input_path("pairs")
    tokenizer = begin(run, pairs)
    directory = run.layout.tokenizer(tokenizer.id)
    publish(tokenizer, directory)
    num_captions, longest, num_truncated = 0, 0, 0
    for captions in _caption_batches(pairs):
        lengths = [len(ids) for ids in tokenizer.encode(captions)]
        num_captions += len(lengths)
        longest = max(longest, *lengths)
        num_truncated += sum(length > tokenizer.max_text_tokens for length in lengths)
        report_progress(num_captions, num_captions, "captions")
    begun = {} if not begins(run) else {"known_words_share": known_words_share(pairs, tokenizer)}
    return {
        **begun,
        "tokenizer_id": tokenizer.id,
        "tokenizer": run.layout.relative(directory),
        "vocab_size": tokenizer.vocab_size,
        "num_captions": num_captions,
        "longest_caption_tokens": longest,
        "truncated_share": num_truncated / num_captions,
    }


def begins(run: JobRun) -> bool:
    """Whether there is a vocabulary to begin from."""
    return "tokenizer" in run.inputs or "start" in run.inputs


def begin(run: JobRun, pairs: Path) -> BpeTokenizer:
    """The vocabulary of the captions, the one that is taken over, or that with new tokens. Raises `ValueError` when it does not fit."""
    config = run.config.tokenizer
    if not begins(run):
        return BpeTokenizer.train(_training_captions(pairs), config)
    name = "tokenizer" if "tokenizer" in run.inputs else "start"
    tokenizer = BpeTokenizer.load(run.input_path(name))
    if tokenizer.id != run.inputs[f"{name}_id"]:
        raise ValueError(f"{run.input_path(name)} holds tokenizer {tokenizer.id}, not {run.inputs[f'{name}_id']}; import the model again")
    compared = ["max_text_tokens", "lowercase"] + (["vocab_size"] if tokenizer.vocab_size > config.vocab_size else [])
    found, wanted = ({f"tokenizer.{name}": getattr(holder, name) for name in compared} for holder in (tokenizer, config))
    if different := different_sizes(found, wanted):
        raise ValueError(f"tokenizer {tokenizer.id} does not fit these settings: {different}; set these as the files have them")
    return tokenizer if name == "tokenizer" else tokenizer.extended(_training_captions(pairs), config.vocab_size)


def known_words_share(pairs: Path, tokenizer: BpeTokenizer) -> float:
    """Share of the words of all captions that are one token: what a vocabulary from elsewhere knows of them."""
    counts = Counter(word for caption in _training_captions(pairs) for word in normalize_caption(caption, tokenizer.lowercase).split())
    words = list(counts)
    known = sum(counts[word] for word, ids in zip(words, tokenizer.encode(words), strict=True) if len(ids) == 1)
    return known / max(1, counts.total())


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
