"""Progress display: one bar per stage on a terminal, one line per stage elsewhere. All on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from flows.runtime.progress import Progress as JobProgress
from flows.runtime.progress import Stage, shown_on

LINE_EVERY_S = 20.0
"""Off a terminal: time between two lines about a stage that is still running."""


@contextmanager
def on_terminal() -> Iterator[None]:
    """Show the stages of this block as bars on the terminal."""
    with ConsoleDisplay() as display, shown_on(display):
        yield


class ConsoleDisplay:
    """A display for one command; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            _AmountColumn(),
            TimeElapsedColumn(),
            _LeftColumn(),
            TextColumn("[dim]{task.fields[figures]}"),
            console=self.console,
        )

    def __enter__(self) -> "ConsoleDisplay":
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def stage(self, title: str) -> Iterator[Stage]:
        """Show one stage until its work ends."""
        if self.console.is_terminal:
            bar = self._bars.add_task(title, total=None, figures="")
            yield _BarStage(self._bars, bar)
            self._bars.update(bar, total=self._bars.tasks[bar].total or 1, completed=self._bars.tasks[bar].total or 1)
        else:
            started = time.monotonic()
            stage = _LineStage(self.console, title)
            self.console.print(f"{title} …")
            yield stage
            figures = f", {stage.latest.describe()}" if stage.latest else ""
            self.console.print(f"{title}: done in {time.monotonic() - started:.1f} s{figures}")

    def note(self, text: str) -> None:
        """Say something once, above the bars."""
        self.console.print(text, style="dim")


class _BarStage:
    def __init__(self, bars: Progress, bar: TaskID) -> None:
        self._bars, self._bar = bars, bar

    def advance(self, progress: JobProgress) -> None:
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in progress.numbers.items())
        self._bars.update(self._bar, completed=progress.done, total=progress.total, unit=progress.unit, figures=figures)

    def log(self, line: str) -> None:
        """Jobs keep their own log file; the terminal shows figures only."""

    def show(self, folder: Path) -> None:
        """The gallery and Prefect show pictures."""


class _LineStage:
    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._last_line, self._last_done = time.monotonic(), 0
        self.latest: JobProgress | None = None

    def advance(self, progress: JobProgress) -> None:
        if self.latest is None:
            self._last_done = progress.done  # what an earlier run did says nothing about the speed of this one
        self.latest = progress
        now = time.monotonic()
        if now - self._last_line > LINE_EVERY_S:
            rate = (progress.done - self._last_done) / (now - self._last_line)
            left = f", {timedelta(seconds=round((progress.total - progress.done) / rate))} left" if rate > 0 else ""
            self._last_line, self._last_done = now, progress.done
            self._console.print(f"{self._title}: {progress.describe()}{left}")

    def log(self, line: str) -> None:
        """Jobs keep their own log file; the terminal shows figures only."""

    def show(self, folder: Path) -> None:
        """The gallery and Prefect show pictures."""


class _LeftColumn(TimeRemainingColumn):
    """`0:03:20 left`, from the speed of the last half minute; nothing while that is unknown, or when all is done."""

    def render(self, task: RichTask) -> Text:
        if task.finished or task.time_remaining is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(task.time_remaining))} left", style="dim")


class _AmountColumn(ProgressColumn):
    """`120/300 steps`."""

    def render(self, task: RichTask) -> Text:
        if task.total is None or "unit" not in task.fields:
            return Text("")
        return Text(f"{int(task.completed):,}/{int(task.total):,} {task.fields['unit']}", style="cyan")
