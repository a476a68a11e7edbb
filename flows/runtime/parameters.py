"""Which settings hold: a preset or a settings file, and what is changed on top."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dalle_datasets.config import PathsConfig
from dalle_datasets.store.layout import Layout, open_data_root
from dalle_model.config.parsing import with_overrides
from dalle_model.config.presets import preset as named_preset
from dalle_model.config.settings_file import DEFAULT_PRESET, differences, read_settings, write_settings
from dalle_model.config.tree import Config

Setting = str | int | float | bool | None | list[str]
Overrides = dict[str, Setting]
"""Dotted settings and their values, e.g. {"transformer.num_layers": 8}; values may be text as typed on a command line."""


def config_from_parameters(preset: str, overrides: Mapping[str, Setting] | None = None) -> Config:
    """The configuration a flow runs with. Raises `ValueError` for an unknown preset or setting, with a suggestion."""
    return named_preset(preset, overrides)


def find_config(preset: str | None = None, overrides: Mapping[str, Setting] | None = None, config_file: Path | None = None) -> Config:
    """The configuration of a command: `overrides` on top of a settings file or a preset.

    Without either the data root's own settings.toml holds, and where there is none the preset `demo`. Raises `ValueError` for an unknown
    preset or setting, with a suggestion, for a settings file that cannot be read, and when a preset and a file are given.
    """
    overrides = dict(overrides or {})
    if preset is not None and config_file is not None:
        raise ValueError(f"--preset {preset} and --config {config_file} both say where settings start; a settings file names its preset")
    if preset is not None:
        return named_preset(preset, overrides)
    if config_file is not None:
        return with_overrides(read_settings(config_file), overrides)
    root = str(overrides.get("paths.data_root") or _data_root_here())
    remembered = Layout(Path(root).expanduser()).settings
    if not remembered.exists():
        return named_preset(DEFAULT_PRESET, {**overrides, "paths.data_root": root})
    return with_overrides(replace(read_settings(remembered), paths=PathsConfig(data_root=root)), overrides)


def remember(config: Config) -> list[str]:
    """Make these the settings of their data root. Returns what they change of those that were there, as `name: old -> new`."""
    path = open_data_root(config.paths.data_root).settings
    try:
        before = replace(read_settings(path), paths=config.paths) if path.exists() else None
    except ValueError:  # a damaged file is replaced; a command that was to read it has refused already
        before = None
    if before != config:
        write_settings(path, config)
    return [f"{name}: {old} -> {new}" for name, (new, old) in differences(config, before).items()] if before else []


def _data_root_here() -> str:
    """`DALLE_DATA_ROOT`; else the working directory, if it is a data root with settings; else the presets' folder."""
    if root := os.environ.get("DALLE_DATA_ROOT"):
        return root
    here = Layout(Path())
    return "." if here.settings.exists() and here.runs.is_dir() else PathsConfig().data_root
