"""A queue for the one model: first come, first served, on one thread. Everyone who waits is told their place."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

log = logging.getLogger(__name__)

Event = dict[str, Any]
Tell = Callable[[Event], None]
Work = Callable[[Tell], None]
"""Works and tells events on the way. `Tell` raises `Left` when nobody listens any more."""

MAX_WAITING = 32
"""Who comes later is told to come back."""


class Left(Exception):
    """The person has gone: what is being made for them ends."""


class LineFull(ValueError):
    """Too many are waiting."""


class Ticket:
    """One person's work in the line, with the events it tells."""

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.work, self._loop = work, loop
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.has_left = False

    def tell(self, event: Event | None) -> None:
        """From any thread; None says that there is nothing more."""
        if event is not None and self.has_left:
            raise Left
        self._put(event)

    def _put(self, event: Event | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the server has ended
            self.has_left = True

    async def events(self) -> AsyncGenerator[Event, None]:
        """Events until the work is done. Leaving early ends the work at its next step."""
        try:
            while (event := await self._events.get()) is not None:
                yield event
        finally:
            self.has_left = True


class Line:
    """The queue and its thread."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._is_busy = self._is_closed = False
        self._current: Ticket | None = None
        threading.Thread(target=self._serve, name="model", daemon=True).start()

    def join(self, work: Work) -> Ticket:
        """Take a place, from a coroutine. Raises `LineFull`."""
        ticket = Ticket(work, asyncio.get_running_loop())
        with self._changed:
            self._waiting = deque(other for other in self._waiting if not other.has_left)
            if len(self._waiting) >= MAX_WAITING:
                raise LineFull(f"{MAX_WAITING} people are waiting already; try again in a minute")
            self._waiting.append(ticket)
            if self._current is not None or len(self._waiting) > 1:
                self._tell_places()
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """End what is being made, and let nobody in any more."""
        with self._changed:
            self._is_closed = True
            for ticket in (*self._waiting, *filter(None, [self._current])):
                ticket.has_left = True
            self._changed.notify()

    def _tell_places(self) -> None:
        """1 is next."""
        self._waiting = deque(ticket for ticket in self._waiting if not ticket.has_left)
        for place, ticket in enumerate(self._waiting, 1):
            ticket._put({"event": "place", "place": place, "waiting": len(self._waiting)})

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                self._current = ticket = self._waiting.popleft()
                self._tell_places()
            try:
                if not ticket.has_left:
                    ticket.tell({"event": "start"})
                    ticket.work(ticket.tell)
            except Left:
                pass
            except ValueError as error:
                ticket._put({"event": "error", "detail": str(error)})
            except Exception:
                log.exception("the playground failed")
                ticket._put({"event": "error", "detail": "something broke here; the terminal in which `dalle app` runs says what"})
            ticket._put(None)
