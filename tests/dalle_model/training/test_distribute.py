"""The declared minimum of torch knows fewer settings than the newest: what it does not know is not passed."""

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dalle_model.training import distribute


class OldReplicas:
    def __init__(self, module: Any, broadcast_buffers: bool = True) -> None: ...


@dataclass(frozen=True)
class OldPolicy:
    param_dtype: torch.dtype | None = None
    reduce_dtype: torch.dtype | None = None
    output_dtype: torch.dtype | None = None
    cast_forward_inputs: bool = True


def test_an_old_ddp_is_told_about_buffers_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribute, "DistributedDataParallel", OldReplicas)
    assert distribute._own_buffers() == {"broadcast_buffers": False}


def test_an_old_fsdp_gathers_in_float32_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(distribute, "MixedPrecisionPolicy", OldPolicy)
    assert distribute._low_precision("fp32") == OldPolicy(cast_forward_inputs=False)
    assert not caplog.records
    assert distribute._low_precision("bf16") == OldPolicy(cast_forward_inputs=False)
    assert "gathers the network in float32, twice the traffic of bf16; a newer torch halves it" in caplog.text


@pytest.mark.skipif(
    "param_dtype_override_fn" not in inspect.signature(distribute.MixedPrecisionPolicy).parameters, reason="this torch is an old one"
)
def test_a_new_fsdp_gathers_matrices_in_the_short_type() -> None:
    policy = distribute._low_precision("bf16")
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
