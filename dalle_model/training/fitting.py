"""Weights into a module, after checking that they are its own: torch's own message is a page long and names no remedy."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor], where: Path, remedy: str) -> None:
    """Fill a module from a checkpoint.

    Raises `ValueError` naming `where`, the first parameter whose name or shape differs, both shapes, and the `remedy`.
    """
    check_shapes(
        {name: value.shape for name, value in module.state_dict().items()},
        {name: value.shape for name, value in weights.items()},
        where,
        remedy,
    )
    module.load_state_dict(dict(weights))


def check_shapes(expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size], where: Path, remedy: str) -> None:
    """Raises `ValueError`, as `fit_weights` does, when names or shapes differ."""
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = different[0]
        shapes = [str(list(shape)) if shape is not None else "missing" for shape in (found.get(name), expected.get(name))]
        raise ValueError(
            f"{where}: {name} is {shapes[0]} in the checkpoint and {shapes[1]} in this configuration ({len(different)} of "
            f"{len(expected)} parameters differ); {remedy}"
        )
