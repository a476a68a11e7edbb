"""bf16 where the device has it, fp16 where not."""

import logging

import pytest
import torch

from dalle_model.precision import available_precision, faster_precision


@pytest.mark.parametrize(
    ("precision", "device", "has_bf16", "expected"),
    [
        ("bf16", "cuda", True, "bf16"),
        ("bf16", "cuda", False, "fp16"),
        ("fp32", "cuda", False, "fp32"),
        ("fp16", "cuda", True, "fp16"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_old_cards_get_fp16_for_bf16(precision, device, has_bf16, expected, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    with caplog.at_level(logging.WARNING):
        assert available_precision(precision, torch.device(device)) == expected
    assert ("Tesla V100 has no bf16; training in fp16 with a scaled loss instead" in caplog.text) == (expected != precision)


@pytest.mark.parametrize(("bf16_s", "expected"), [(0.5, "bf16"), (0.95, "fp32"), (4.0, "fp32")])
def test_auto_takes_bf16_only_where_it_is_clearly_faster(bf16_s, expected, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("dalle_model.precision.time.process_time", lambda: clock[0])
    ran = []

    def run(precision):
        ran.append(precision)
        # The first of each compiles or allocates and does not count; one of the others was disturbed.
        clock[0] += {"fp32": 1.0, "bf16": bf16_s}[precision] * (50 if len(ran) in (1, 2, 6) else 1)

    assert faster_precision(run, torch.device("cpu")) == expected
    assert ran == ["fp32", "bf16"] * 4, "by turns"


def test_auto_on_a_gpu_is_the_type_that_it_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert faster_precision(lambda precision: 1 / 0, torch.device("cuda")) == "bf16"
