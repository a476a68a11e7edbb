"""What every flow is called with: the name of a preset and the settings to change."""

from collections.abc import Mapping

from dalle_model.config.presets import preset as named_preset
from dalle_model.config.tree import Config

Setting = str | int | float | bool | None | list[str]
Overrides = dict[str, Setting]
"""Dotted settings and their values, e.g. {"transformer.num_layers": 8}; values may be text as typed on a command line."""


def config_from_parameters(preset: str, overrides: Mapping[str, Setting] | None = None) -> Config:
    """The configuration a flow runs with. Raises `ValueError` for an unknown preset or setting, with a suggestion."""
    return named_preset(preset, overrides)
