"""What is shown while a stage runs: how far it is, and how long it will still take."""

import io
import time

from rich.console import Console

from flows.cli import display
from flows.cli.display import ConsoleDisplay
from flows.runtime.progress import Progress


def advance(stage, done, total=100):
    stage.advance(Progress(done=done, total=total, unit="images", numbers={"images_per_s": 2.0}))


def test_off_a_terminal_lines_say_how_long_it_will_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    written = io.StringIO()
    shown = ConsoleDisplay(Console(file=written, width=200)).stage("generate images")
    stage = next(shown)
    advance(stage, 40)  # made by an earlier run
    now[0] = 30.0
    advance(stage, 70)
    now[0] = 60.0
    advance(stage, 70)
    next(shown, None)
    lines = written.getvalue().splitlines()
    assert lines[1] == "generate images: 70/100 images, images per s 2, 0:00:30 left"
    assert lines[2] == "generate images: 70/100 images, images per s 2"  # nothing has moved: nobody knows
    assert lines[3].startswith("generate images: done in 60.0 s")


def test_on_a_terminal_a_bar_shows_amount_and_time_left():
    written = io.StringIO()
    console = Console(file=written, width=160, force_terminal=True, color_system=None)
    with ConsoleDisplay(console) as shown:
        stages = shown.stage("generate images")
        stage = next(stages)
        for done in (10, 20, 30):
            advance(stage, done)
            time.sleep(0.15)
        assert "30/100 images" in written.getvalue()
        assert " left" in written.getvalue()
        next(stages, None)
