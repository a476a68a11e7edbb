"""metrics.jsonl: one JSON object per logged step, continued exactly after a crash."""

import json
import os
from pathlib import Path


class MetricsLog:
    """Appends `{"step": …, "split": …, name: value …}` lines; opening at a step forgets what came after it."""

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [line for line in read_metrics(path) if float(line["step"]) <= resume_step]
        partial = path.with_name(path.name + ".partial")
        with partial.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        self._file = path.open("a", buffering=1)

    def log(self, step: int, split: str, numbers: dict[str, float]) -> None:
        """Add one line; a NaN is written as null."""
        clean = {name: value if value == value and abs(value) != float("inf") else None for name, value in numbers.items()}
        self._file.write(json.dumps({"step": step, "split": split, **clean}) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def log_validation(path: Path, numbers: dict[str, float]) -> None:
    """Write the only look at a network that is not trained: one line, as training does at step 0."""
    log = MetricsLog(path, -1)
    log.log(0, "validation", numbers)
    log.close()


def read_metrics(path: Path) -> list[dict[str, float | str]]:
    """All whole lines of a metrics file; a line cut short by a crash is left out."""
    lines: list[dict[str, float | str]] = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines
