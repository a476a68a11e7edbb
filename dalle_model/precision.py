"""Precision of a device: cards older than Ampere have no bf16, only fp16, which needs loss scaling."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""`auto` is what `faster_precision` finds."""
SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

REPEATS, GAIN = 3, 0.9
"""bf16 must take at most this share of float32's time: rounding is paid for."""

log = logging.getLogger(__name__)


def available_precision(precision: Precision, device: torch.device) -> Precision:
    """`precision`, or fp16 for bf16 on a CUDA device that would only imitate it (several times slower), with a warning.

    The loop scales the loss when it is told fp16. On a CPU bf16 stays: it is right, if slow.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        log.warning("%s has no bf16; training in fp16 with a scaled loss instead", torch.cuda.get_device_name(device))
        return "fp16"
    return precision


def faster_precision(run: Callable[[Precision], object], device: torch.device) -> Precision:
    """bf16 where `run` is clearly faster with it than in float32, by processor time; on CUDA the short type that the card has.

    Both take turns, so that whatever else the machine does hits both alike.
    """
    if device.type == "cuda":
        return available_precision("bf16", device)
    seconds: dict[Precision, float] = {"fp32": float("inf"), "bf16": float("inf")}
    for round_number in range(1 + REPEATS):
        for precision in seconds:
            started = time.process_time()
            run(precision)
            if round_number:
                seconds[precision] = min(seconds[precision], time.process_time() - started)
    chosen: Precision = "bf16" if seconds["bf16"] <= GAIN * seconds["fp32"] else "fp32"
    log.info("precision auto is %s: bf16 takes %.2f of float32's time", chosen, seconds["bf16"] / max(seconds["fp32"], 1e-9))
    return chosen


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in bf16 or fp16; nothing for fp32."""
    return torch.autocast(device.type, SHORT_DTYPES[precision]) if precision in SHORT_DTYPES else nullcontext()
