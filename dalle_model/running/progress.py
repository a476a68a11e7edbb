"""Progress reporting: one JSON line on stdout per update; the parent process renders it."""

import json
from pathlib import Path

PREFIX = "PROGRESS "
PICTURES_PREFIX = "PICTURES "


def report_progress(done: int, total: int, unit: str, **numbers: float) -> None:
    """Say that `done` of `total` `unit`s are finished, with a few current figures (loss, images/s)."""
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    print(PREFIX + json.dumps({"done": done, "total": total, "unit": unit, **rounded}), flush=True)


def report_pictures(folder: Path) -> None:
    """Say that a folder holds new pictures of what is being trained."""
    print(PICTURES_PREFIX + json.dumps(str(folder)), flush=True)
