"""What a training logged, asked from the catalog."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Points = Sequence[tuple[float, float]]
"""(step, value), by step."""

Ask = Callable[..., list[dict[str, Any]]]
"""Rows of a named query: `ask("runs", job="train_dvae")`."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What one training logged."""

    curves: Mapping[tuple[str, str], Points]
    """(name, split) -> points."""
    speed: Mapping[str, Points]
    """Rates, shares of time, and `memory_gib` -> points."""
    summary: Mapping[str, Any]
    """Its line of the query `training_summary`; empty when nothing was logged."""


def logged_by(ask: Ask, job: str, run_id: str) -> Logged:
    """Everything that one run logged."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in ask("loss_curves", run_id=run_id):
        if row["value"] is not None:
            curves.setdefault((row["name"], row["split"]), []).append((row["step"], row["value"]))
    found = ask("training_speed", run_id=run_id)
    names = ("pairs_per_s", "tokens_per_s", "mfu", "data_wait_share")
    speed = {name: [(row["step"], row[name]) for row in found if row[name] is not None] for name in names}
    speed["memory_gib"] = [(row["step"], row["memory_bytes"] / 2**30) for row in found if row["memory_bytes"]]
    summary = next((row for row in ask("training_summary", job=job) if row["run_id"] == run_id), {})
    return Logged(curves, speed, summary)
