"""Options that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dalle_model.config.tree import Config

Preset = Annotated[str, typer.Option("--preset", "-p", help="Named configuration to start from; `dalle config presets` lists them.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change one setting, e.g. `transformer.num_layers=8`; may be repeated."),
]


def parse_settings(settings: list[str] | None) -> dict[str, str]:
    """`["a.b=1"]` as `{"a.b": "1"}`. Raises `ValueError` for text without a '='."""
    pairs = {}
    for text in settings or []:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"--set {text}: needs the form PATH=VALUE, e.g. --set transformer.num_layers=8")
        pairs[path.strip()] = value.strip()
    return pairs


def resolve(preset: str, settings: list[str] | None) -> "Config":
    """The configuration that `--preset` and `--set` describe."""
    from flows.runtime.parameters import config_from_parameters

    return config_from_parameters(preset, parse_settings(settings))
