"""Settings as a TOML file: what a data root remembers, what `--config` names, what `dalle config show` prints.

A file names the preset it starts from and holds settings by section. What it leaves out is the preset's; what it misspells is refused.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dalle_model.config.parsing import meanings, to_dict
from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.tree import Config

VERSION = 1
"""Edition of the file's form; a higher one is refused."""
DEFAULT_PRESET = "demo"
"""Where settings start when nothing names a preset."""


def render_settings(config: Config, section: str = "") -> str:
    """All settings, or those of one section, as TOML with each setting's meaning above it; `read_settings` reads it back.

    The data root is left out, because a file in a data root belongs to it wherever it lies. Raises `ValueError` for an unknown section.
    """
    values, said = to_dict(config), meanings(Config)
    del values["paths"]
    sections = [name for name, value in values.items() if isinstance(value, dict)]
    if section and section not in sections:
        raise ValueError(f"section {section!r} does not exist; choose one of {', '.join(sections)}")
    lines = [f"version = {VERSION}", f"preset = {_toml(config.preset)}"]
    if not section:
        lines.append(f"\n# {said['seed']}\nseed = {config.seed}")
    for name in [section] if section else sections:
        lines.append(f"\n[{name}]")
        for key, value in values[name].items():
            lines += [f"# {said[f'{name}.{key}']}", f"{key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def read_settings(path: Path) -> Config:
    """The configuration that a file describes.

    Raises `ValueError` naming the file when it does not exist, is no TOML, is of a newer edition, or has a setting or value that there
    is not.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: the settings file cannot be read ({error.strerror}); correct the path") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"{path}: not a readable settings file ({error}); `dalle config show` prints a good one") from None
    version = values.pop("version", VERSION)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(
            f"{path}: version = {version!r} of the settings file, and this open-dalle reads up to {VERSION}; "
            "update open-dalle, or write the file again with `dalle config show`"
        )
    name = values.pop("preset", DEFAULT_PRESET)
    try:
        return preset(str(name), dotted(values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_settings(path: Path, config: Config) -> None:
    """Write all settings to a file, which is complete or as it was."""
    from dalle_datasets.store.parquet import atomic_path  # here, because pyarrow takes half a second and reading needs none

    with atomic_path(path) as partial:
        partial.write_text(render_settings(config), encoding="utf-8")


def differences(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted settings whose values differ, the preset's name aside: (value in `config`, value in `other`)."""
    ours, theirs = dotted(to_dict(config)), dotted(to_dict(other))
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name] and name != "preset"}


def overrides_of(config: Config) -> dict[str, Any]:
    """The settings in which a configuration differs from its preset, as overrides that lead from one to the other."""
    return {name: value for name, (value, _) in differences(config, PRESETS[config.preset]()).items()}


def values_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Dotted settings of a configuration as JSON values of their own types, however they were written."""
    values = dotted(to_dict(config))
    return {name: values[name] for name in names}


def dotted(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Tables as dotted settings: `{"source": {"name": "birds"}}` is `{"source.name": "birds"}`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


def _toml(value: Any) -> str:
    """A value as TOML writes it. TOML knows no null, so none is spelt as `--set` spells it."""
    if value is None:
        return '"none"'
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
