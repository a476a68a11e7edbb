"""Requests to end a training: SIGTERM and Ctrl-C let it finish its update and write its state before it ends.

Cancelling, a stopped worker and a preempted machine all send SIGTERM.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """The signal that asked this process to end, if any; `noticed` installs and removes the handlers."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def is_made(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    @property
    def name(self) -> str:
        """`SIGTERM`, `SIGINT`, or `a signal to another process`."""
        return signal.Signals(self._number).name if self._number else "a signal to another process"

    @contextmanager
    def noticed(self) -> Iterator["StopRequest"]:
        """Remember SIGTERM and SIGINT in this block instead of obeying them. Only the main thread can; in others nothing changes.

        A second Ctrl-C is obeyed at once. A second SIGTERM is not: launcher and kernel both pass it on.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._handlers = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def obey(self) -> None:
        """Do what the signal asks for without this class; call it outside `noticed`. Raises `SystemExit` where nothing else does."""
        signal.raise_signal(self._number or signal.SIGTERM)
        raise SystemExit(128 + (self._number or signal.SIGTERM))

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._number == signal.SIGINT:
            raise KeyboardInterrupt
        self._number = number
