"""Progress of flows: bars on the terminal when a person started the flow, Prefect artifacts and logs otherwise.

A job says how far it is with `dalle_model.running.progress.report_progress`; the flow that started it hands
every such line to the `Stage` of that job.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dalle_model.running.progress import PICTURES_PREFIX, PREFIX


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` `unit`s are finished; `numbers` are current figures such as the loss."""

    done: int
    total: int
    unit: str
    numbers: dict[str, float]

    def describe(self) -> str:
        """`120/300 steps, loss 0.123`."""
        figures = [f"{name.replace('_', ' ')} {value:g}" for name, value in self.numbers.items()]
        return ", ".join([f"{self.done:,}/{self.total:,} {self.unit}", *figures])


class Stage(Protocol):
    """One piece of work that is being watched."""

    def advance(self, progress: Progress) -> None:
        """Show how far it is."""

    def log(self, line: str) -> None:
        """Take a line that is not about progress."""

    def show(self, folder: Path) -> None:
        """Show the pictures in a folder of what is being trained."""


class Display(Protocol):
    """Something that can show stages."""

    def stage(self, title: str) -> "Iterator[Stage]":
        """Announce a stage; generator of exactly one `Stage`, as for `contextlib.contextmanager`."""

    def note(self, text: str) -> None:
        """Say something once."""


def parse_progress(line: str) -> Progress | None:
    """The progress a job's line reports, None for any other line."""
    if not line.startswith(PREFIX):
        return None
    try:
        values = json.loads(line.removeprefix(PREFIX))
        return Progress(
            done=int(values.pop("done")),
            total=int(values.pop("total")),
            unit=str(values.pop("unit")),
            numbers={name: float(value) for name, value in values.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # another program's line that happens to start so
        return None


def parse_pictures(line: str) -> Path | None:
    """The folder of pictures that a job's line reports, None for any other line."""
    if not line.startswith(PICTURES_PREFIX):
        return None
    try:
        return Path(json.loads(line.removeprefix(PICTURES_PREFIX)))
    except (ValueError, TypeError):
        return None


_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Show the stages of this block on `display` instead of in Prefect."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def watched(title: str) -> Iterator[Stage]:
    """Watch one stage on the current display; without one, in the current Prefect run; without that, not at all."""
    display = _display.get() or (PrefectDisplay() if in_prefect_run() else SilentDisplay())
    with contextmanager(display.stage)(title) as stage:
        yield stage


def note(text: str) -> None:
    """Say something once, e.g. that a stage was already done."""
    display = _display.get() or (PrefectDisplay() if in_prefect_run() else SilentDisplay())
    display.note(text)


def reporter(stage: Stage) -> Callable[..., None]:
    """`report(done, total, unit, **numbers)` for functions that run in this process."""

    def report(done: int, total: int, unit: str, **numbers: float) -> None:
        stage.advance(Progress(done, total, unit, numbers))

    return report


class SilentDisplay:
    """Shows nothing: plain calls in tests and scripts."""

    def stage(self, title: str) -> Iterator[Stage]:
        """Announce nothing."""
        yield SilentStage()

    def note(self, text: str) -> None:
        """Say nothing."""


class SilentStage:
    """Takes everything, shows nothing."""

    def advance(self, progress: Progress) -> None:
        """Ignore it."""

    def log(self, line: str) -> None:
        """Ignore it."""

    def show(self, folder: Path) -> None:
        """Ignore it."""


class PrefectDisplay:
    """Prefect's logs and progress artifacts."""

    def stage(self, title: str) -> Iterator[Stage]:
        """Announce a stage in the log of the current run."""
        yield PrefectStage(title)

    def note(self, text: str) -> None:
        """Log one line."""
        from prefect.logging import get_run_logger

        get_run_logger().info(text)


class PrefectStage:
    """A stage as Prefect's UI shows it. Both artifact updates and log lines are database rows, so they are rationed."""

    ARTIFACT_EVERY_S = 5.0
    LOG_EVERY_S = 30.0

    def __init__(self, title: str) -> None:
        from prefect.logging import get_run_logger

        self._title = title
        self._logger = get_run_logger()
        self._context = copy_context()  # the run's: a crawl reports from threads that know of none
        self._artifact: object = None
        self._last_artifact = self._last_log = -float("inf")

    def advance(self, progress: Progress) -> None:
        """Move the progress artifact and log the figures, each at its own pace; the end is always shown."""
        from httpx import HTTPError
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        now, is_last = time.monotonic(), progress.done >= progress.total
        percent = 100 * progress.done / max(progress.total, 1)
        if is_last or now - self._last_artifact > self.ARTIFACT_EVERY_S:
            self._last_artifact = now
            ours = self._context.copy()  # two threads cannot be in the same one
            with suppress(HTTPError):  # work goes on while the server is away
                if self._artifact is None:
                    key = artifact_key(self._title)
                    self._artifact = ours.run(create_progress_artifact, percent, key=key, description=self._title)
                else:
                    ours.run(update_progress_artifact, self._artifact, progress=percent)  # type: ignore[arg-type]
        if is_last or now - self._last_log > self.LOG_EVERY_S:
            self._last_log = now
            self._logger.info("%s: %s", self._title, progress.describe())

    def log(self, line: str) -> None:
        """Pass the line on, as grave as the job said it is."""
        self._logger.log(*level_of(line))

    def show(self, folder: Path) -> None:
        """Make a new version of the stage's artifact of pictures."""
        from httpx import HTTPError
        from prefect.artifacts import create_markdown_artifact

        from flows.report.strips import strips_page

        if page := strips_page(folder):
            key = artifact_key(f"{self._title} pictures")
            with suppress(HTTPError):
                self._context.copy().run(create_markdown_artifact, page, key=key, description="What it draws so far")


def in_prefect_run() -> bool:
    """Whether this code runs inside a Prefect flow or task. Does not import Prefect when nobody has."""
    import sys

    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext, TaskRunContext

    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


_LEVEL = re.compile(r"\S+ \S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")
"""A line of Python's logging as `dalle_model.jobs` writes it: date, time, logger, level, text."""

_WARNS = re.compile(r"\S+:\d+: \w*Warning: |W\d{4} ")
"""A line of Python's warnings, or of torch's own log."""


def level_of(line: str) -> tuple[int, str]:
    """A job's line as (level, text) of Python's logging; what says no level is information."""
    if said := _LEVEL.fullmatch(line):
        return logging.getLevelNamesMapping()[said[1]], said[2]
    return logging.WARNING if _WARNS.match(line) else logging.INFO, line


def artifact_key(title: str) -> str:
    """Prefect allows only lower-case letters, digits and '-' in keys."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "artifact"
