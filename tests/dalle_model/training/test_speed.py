"""Rates, waiting and utilisation, by a clock that the tests turn."""

import json
from pathlib import Path

import pytest
import torch

from dalle_model.training import speed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    return now


def test_rates_are_since_the_last_line(clock: list[float]) -> None:
    watched = speed.Speed(torch.device("cpu"))
    for _ in range(4):
        with watched.waiting():
            clock[0] += 0.5
        clock[0] += 1.5
        watched.add(num_pairs=16)
    metrics = watched.take()
    assert (metrics["steps_per_s"], metrics["pairs_per_s"], metrics["data_wait_share"]) == (0.5, 8.0, 0.25)
    assert metrics["memory_bytes"] > 1e7
    assert "mfu" not in metrics
    clock[0] += 1
    assert watched.take()["pairs_per_s"] == 0


def test_utilisation_is_the_models_work_over_the_devices_peak(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    for is_low_precision, expected in ((True, 0.5), (False, None)):
        watched = speed.Speed(torch.device("cuda"), flops_per_pair=989e12, is_low_precision=is_low_precision)
        clock[0] += 2
        watched.add(num_pairs=1)
        assert watched.take().get("mfu") == expected


def test_lines_are_appended(tmp_path: Path) -> None:
    speed.append_speed(tmp_path / "speed.jsonl", 10, {"pairs_per_s": 2.0})
    speed.append_speed(tmp_path / "speed.jsonl", 5, {"pairs_per_s": 3.0})
    assert [json.loads(line)["step"] for line in (tmp_path / "speed.jsonl").read_text().splitlines()] == [10, 5]
