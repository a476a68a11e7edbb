"""bf16 where the device has it, fp16 where not."""

import logging

import pytest
import torch

from dalle_model.precision import available_precision


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
