"""Precision of a device: cards older than Ampere have no bf16, only fp16, which needs loss scaling."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

log = logging.getLogger(__name__)


def available_precision(precision: Precision, device: torch.device) -> Precision:
    """`precision`, or fp16 for bf16 on a CUDA device that would only imitate it (several times slower), with a warning.

    The loop scales the loss when it is told fp16. On a CPU bf16 stays: it is right, if slow.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        log.warning("%s has no bf16; training in fp16 with a scaled loss instead", torch.cuda.get_device_name(device))
        return "fp16"
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in bf16 or fp16; nothing for fp32."""
    return torch.autocast(device.type, SHORT_DTYPES[precision]) if precision in SHORT_DTYPES else nullcontext()
