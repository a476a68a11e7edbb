"""Batches made in advance: the same ones, their errors, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest

from dalle_model.training.prefetch import prefetch


def test_items_come_in_order_and_few_are_made_in_advance() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    stream = prefetch(items(), depth=2)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.05)
    assert 5 <= len(made) <= 8
    assert [*stream] == list(range(5, 100))


def test_an_error_arrives_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("a broken file")

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="a broken file"):
        next(stream)


def test_closing_ends_the_thread() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    stream = prefetch(endless())  # a generator, so it can be closed
    next(stream)
    assert any(thread.name == "prefetch" for thread in threading.enumerate())
    stream.close()  # type: ignore[attr-defined]
    for _ in range(50):
        if not any(thread.name == "prefetch" for thread in threading.enumerate()):
            return
        time.sleep(0.05)
    pytest.fail("the thread is still there after 2.5 s")
