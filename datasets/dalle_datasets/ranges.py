"""Ranges of numeric settings: one check for all sections, so that every number has its bounds and none is nan or infinite."""

import math
import re
from typing import Any

MANY = 10**9
"""Upper bound of counts that nothing else bounds."""
LONG_S = 10_000_000.0
"""Upper bound of waits, seconds: four months."""


def check_ranges(section: Any, **ranges: tuple[float, float]) -> None:
    """Raises `ValueError` naming the first setting of `section` whose value is outside of its range, both ends included."""
    for name, (low, high) in ranges.items():
        value = getattr(section, name)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            raise ValueError(f"{section_name(section)}{name}={value} must be in [{low:,g}, {high:,g}]")


def section_name(section: Any) -> str:
    """What a section is called in dotted settings, with the dot: `TrainDVAEConfig` is "train_dvae."; the whole tree has no name."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(section).__name__.removesuffix("Config")).lower()
    return f"{words}." if words else ""
