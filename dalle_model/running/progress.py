"""Progress reporting: one JSON line on stdout per update; the parent process renders it."""

import json

PREFIX = "PROGRESS "


def report_progress(done: int, total: int, unit: str, **numbers: float) -> None:
    """Say that `done` of `total` `unit`s are finished, with a few current figures (loss, images/s)."""
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    print(PREFIX + json.dumps({"done": done, "total": total, "unit": unit, **rounded}), flush=True)
