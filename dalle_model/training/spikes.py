"""Find updates whose loss or gradient is far from the last ones'.

Trainers deal with them in two ways: stop, go back to an earlier checkpoint and leave some batches out (PaLM), or leave the one update out
while training goes on (OLMo). The second needs nobody who watches and nothing to be repeated, so it is the option here
(`skip_spikes`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

HISTORY, SIGMAS = 128, 6.0
WATCHED = ("loss", "gradient_norm")


@dataclass(slots=True)
class SpikeWatch:
    """The last updates' metrics; part of a checkpoint."""

    history: dict[str, list[float]] = field(default_factory=dict)

    def look(self, metrics: Mapping[str, float]) -> str:
        """Take note of an update's metrics. Returns what is far above its mean, e.g. "loss 9.1 (6.2 before)", or nothing.

        A gradient that overflows in fp16 is no news, since the scaler skips its update, and must not become part of the mean.
        """
        found = []
        for name in WATCHED:
            if not math.isfinite(metrics.get(name, math.nan)):
                continue
            last = self.history.setdefault(name, [])
            if len(last) >= HISTORY // 2:
                mean = sum(last) / len(last)
                deviation = math.sqrt(sum((value - mean) ** 2 for value in last) / len(last))
                if metrics[name] > mean + SIGMAS * deviation:
                    found.append(f"{name.replace('_', ' ')} {metrics[name]:.4g} ({mean:.4g} before)")
            last.append(metrics[name])
            del last[:-HISTORY]
        return ", ".join(found)
