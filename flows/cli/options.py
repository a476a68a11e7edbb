"""Options that several commands share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dalle_model.config.tree import Config

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help="Named configuration to start from (`dalle config presets` lists them); if not given, the data root's settings.toml.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Another settings file to start from, as `dalle config show` prints it."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PATH=VALUE",
        help="Change one setting, e.g. `transformer.num_layers=8`; may be repeated. Lists have commas; a comma inside an item is `\\,`.",
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="ROLE=ID", help="Use this network instead of the current one, e.g. dvae=ID; may be repeated."),
]


From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="Begin from the networks of a model folder (`dalle export`), or of a run of this data root, with their sizes: vocabulary and "
        "dVAE are taken over as they are, CLIP and transformer are trained on. `none` begins anew.",
    ),
]


def parse_settings(settings: list[str] | None) -> dict[str, str]:
    """`["a.b=1"]` as `{"a.b": "1"}`. Raises `ValueError` for text without a '='."""
    pairs = {}
    for text in settings or []:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"--set {text}: needs the form PATH=VALUE, e.g. --set transformer.num_layers=8")
        pairs[path.strip()] = value
    return pairs


def with_networks(networks: list[str] | None) -> dict[str, str]:
    """The setting that `--with` stands for; it holds for one command."""
    return {"networks.use": ",".join(networks)} if networks else {}


def resolve(
    preset: str | None, settings: list[str] | None, config_file: Path | None = None, more: Mapping[str, Any] | None = None
) -> "Config":
    """The configuration that `--preset`, `--config` and `--set` describe, and `more` settings that options of a command stand for.

    Without preset and file the settings of the data root hold.
    """
    from flows.runtime.parameters import find_config

    return find_config(preset, {**parse_settings(settings), **(more or {})}, config_file)


def parse_params(params: list[str] | None) -> dict[str, str]:
    """`["limit=3"]` as `{"limit": "3"}`. Raises `ValueError` for text without a '='."""
    values = {}
    for text in params or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--param {text}: needs the form NAME=VALUE")
        values[name] = value
    return values
