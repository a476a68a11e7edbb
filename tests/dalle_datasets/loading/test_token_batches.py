"""Batches are a pure function of (seed, step): shuffled, complete, resumable, the same for any number of readers."""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dalle_datasets.loading.token_batches import NO_TOKEN, TokenBatches, pad_tokens
from dalle_datasets.store.parquet import SchemaError, write_parts
from dalle_datasets.store.schemas import TRAINING_SET

NUM_ROWS = 230  # 200 to train on, 30 to validate with


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rows = [
        {
            "pair_id": i,
            "split": "validation" if i % 23 in (3, 4, 5) else "train",
            "caption": f"caption {i}",
            "text_tokens": [i % 50] * (1 + i % 4),
            "image_tokens": [i % 90, 1, 2, i % 7],
        }
        for i in range(NUM_ROWS)
    ]
    table = pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None))
    write_parts(tmp_path / "set", table, TRAINING_SET, rows_per_part=100, row_group_size=16)
    return tmp_path / "set"


def open_set(directory: Path, split: str = "train", **changes: Any) -> TokenBatches:
    sizes = {"text_vocab_size": 50, "max_text_tokens": 3, "codebook_size": 90, "num_image_tokens": 4, "window_rows": 64}
    return TokenBatches(directory, split, **{**sizes, **changes})


def ids(batches: TokenBatches, num_steps: int, batch_size: int = 8, **place: int) -> list[list[int]]:
    return [batch.pair_ids.tolist() for batch in islice(batches.batches(batch_size, seed=1, **place), num_steps)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def test_rows_come_with_everything_that_belongs_to_them(directory: Path) -> None:
    batch = next(open_set(directory).batches(8, seed=1))
    for pair_id, caption, text, image in zip(batch.pair_ids, batch.captions, batch.text_tokens, batch.image_tokens, strict=True):
        assert caption == f"caption {pair_id}"
        assert text.tolist() == ([pair_id % 50] * min(3, 1 + pair_id % 4) + [NO_TOKEN] * 3)[:3]
        assert image.tolist() == [pair_id % 90, 1, 2, pair_id % 7]


def test_an_epoch_shows_every_row_of_the_split_once_and_the_next_one_in_another_order(directory: Path) -> None:
    steps = ids(open_set(directory), 50)
    first, second = flat(steps[:25]), flat(steps[25:])
    assert len(first) == len(set(first)) == 200
    assert sorted(first) == sorted(second) == [i for i in range(NUM_ROWS) if i % 23 not in (3, 4, 5)]
    assert first != second
    assert abs(np.corrcoef(first, np.arange(200))[0, 1]) < 0.2
    assert [sorted(step) for step in steps[:25]] != [list(range(8 * i, 8 * i + 8)) for i in range(25)]


def test_an_epoch_that_batches_do_not_divide_runs_on_into_the_next(directory: Path) -> None:
    seen = flat(ids(open_set(directory), 20, batch_size=30))
    assert len(set(seen[:200])) == 200
    assert len(set(seen[200:400])) == 200


def test_batches_from_a_later_step_are_those_of_an_undisturbed_run(directory: Path) -> None:
    batches = open_set(directory)
    undisturbed = ids(batches, 60)
    for step in (1, 7, 24, 25, 26, 41):
        assert ids(open_set(directory), 60 - step, start_step=step) == undisturbed[step:]


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_readers_share_each_batch_without_overlap_whatever_their_number(directory: Path, world_size: int) -> None:
    alone = ids(open_set(directory), 30)
    shares = [ids(open_set(directory), 30, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [flat(share[step] for share in shares) for step in range(30)] == alone


def test_another_seed_gives_another_order(directory: Path) -> None:
    batches = open_set(directory)
    assert ids(batches, 25) != [batch.pair_ids.tolist() for batch in islice(batches.batches(8, seed=2), 25)]


def test_validation_rows_come_once_in_stored_order(directory: Path) -> None:
    seen = [batch.pair_ids.tolist() for batch in open_set(directory, "validation").in_order(4)]
    assert flat(seen) == [i for i in range(NUM_ROWS) if i % 23 in (3, 4, 5)]


def test_captions_that_are_too_long_keep_their_beginning() -> None:
    assert pad_tokens([[1, 2, 3, 4], [], [5]], 3).tolist() == [[1, 2, 3], [NO_TOKEN] * 3, [5, NO_TOKEN, NO_TOKEN]]


def test_an_empty_split_is_an_error(directory: Path) -> None:
    with pytest.raises(ValueError, match=r"has no rows of split 'test'; check what the training set's query selects"):
        open_set(directory, "test")


def test_a_batch_that_processes_cannot_share_is_an_error(directory: Path) -> None:
    with pytest.raises(ValueError, match="batch_size=8 does not split evenly over 3 processes; choose a multiple"):
        next(open_set(directory).batches(8, seed=1, world_size=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_image_tokens": 9}, r"part-00000\.parquet \(row group \d\): image_tokens has \[4\] tokens a row, expected 9"),
        ({"codebook_size": 80}, r"image token 89 is outside the codebook of 80 .*; export the training set again for this dVAE"),
        ({"text_vocab_size": 49}, r"text token 49 is outside the vocabulary of 49; export the training set again for this tokenizer"),
    ],
)
def test_tokens_of_other_models_are_refused(directory: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        list(open_set(directory, **change).in_order(10))
