"""speed.jsonl: how fast a training went and what it waited for. Kept apart from metrics.jsonl, every number of which is
the same again when a run is repeated."""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Makers' figures for dense bf16 and fp16 products, by a part of the device's name."""


class Speed:
    """Rates since the last line, in one process."""

    def __init__(self, device: torch.device, flops_per_pair: float = 0.0, is_low_precision: bool = False) -> None:
        """`flops_per_pair` is the work of one pair, forward and backward; without it there is no utilisation."""
        self.device, self.flops_per_pair = device, flops_per_pair
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak = next((peak for part, peak in PEAK_FLOPS.items() if part in name), 0.0) if is_low_precision else 0.0
        self._started, self._waited, self._num_steps, self._num_pairs = time.monotonic(), 0.0, 0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this block is spent waiting for data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    def add(self, num_pairs: int) -> None:
        """One update is done."""
        self._num_steps += 1
        self._num_pairs += num_pairs

    def take(self) -> dict[str, float]:
        """The metrics since the last call: steps and this process's pairs per second, the share of time spent waiting for data,
        bytes of memory at most (of the device, or of the process on a CPU), and model FLOPs utilisation where the device's
        peak is known."""
        seconds = max(1e-9, time.monotonic() - self._started)
        metrics = {
            "steps_per_s": self._num_steps / seconds,
            "pairs_per_s": self._num_pairs / seconds,
            "data_wait_share": self._waited / seconds,
            "memory_bytes": float(_memory(self.device)),
        }
        if self.peak and self.flops_per_pair:
            metrics["mfu"] = self._num_pairs * self.flops_per_pair / seconds / self.peak
        self._started, self._waited, self._num_steps, self._num_pairs = time.monotonic(), 0.0, 0, 0
        return metrics


def append_speed(path: Path, step: int, metrics: dict[str, float]) -> None:
    """Add one line; a resumed training repeats steps, because it went through them twice."""
    with path.open("a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
