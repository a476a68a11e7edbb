"""Make the next batches while the device computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH = 2
"""Batches made in advance: one would wait for a slow file, more would only use memory."""


def prefetch(items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made in advance in a thread of their own.

    What is made in advance and never asked for is forgotten: batches are a function of the step, so the state of a training
    is the step of the last batch handed out, not of the last one made. An exception of `items` is raised here, in its
    place. Closing this iterator ends the thread after the item at hand. `items` must not take part in collective
    communication, whose order only one thread may decide.
    """
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    is_closed = threading.Event()

    def hand_over(entry: tuple[bool, Any]) -> bool:
        while not is_closed.is_set():
            try:
                made.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not hand_over((True, item)):
                    return
        except BaseException as error:
            hand_over((False, error))
        else:
            hand_over((False, None))

    threading.Thread(target=work, daemon=True, name="prefetch").start()
    try:
        while True:
            is_item, entry = made.get()
            if is_item:
                yield entry
            elif entry is None:
                return
            else:
                raise entry
    finally:
        is_closed.set()
