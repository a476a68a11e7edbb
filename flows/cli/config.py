"""`dalle config`: what the settings are."""

from typing import Annotated

import typer

from flows.cli.options import Preset, Settings, resolve

app = typer.Typer(help="Presets and settings.", no_args_is_help=True)


@app.command()
def presets() -> None:
    """List the presets and what they are for."""
    from rich.console import Console
    from rich.table import Table

    from dalle_model.config.presets import PRESETS

    table = Table("preset", "for", "layers x width x heads", "picture", box=None)
    for name, make in PRESETS.items():
        config = make()
        shape = f"{config.transformer.num_layers} x {config.transformer.d_model:,} x {config.transformer.num_heads}"
        picture = f"{config.dvae.image_size} px, {config.dvae.num_image_tokens:,} tokens of {config.dvae.codebook_size:,}"
        table.add_row(name, (make.__doc__ or "").strip().splitlines()[0], shape, picture)
    Console().print(table)


@app.command()
def show(
    preset: Preset = "demo",
    settings: Settings = None,
    section: Annotated[str, typer.Option(help="Only one section, e.g. `transformer`.")] = "",
) -> None:
    """Print every setting as TOML-like lines that `--set` understands."""
    for path, value in flatten(preset, settings).items():
        if not section or path.startswith(f"{section}."):
            typer.echo(f"{path}={value}")


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A preset.")],
    second: Annotated[str, typer.Argument(help="Another preset.")],
) -> None:
    """Print the settings in which two presets differ."""
    left, right = flatten(first, None), flatten(second, None)
    for path in sorted({**left, **right}):
        if left.get(path) != right.get(path) and path != "preset":
            typer.echo(f"{path}: {left.get(path)} -> {right.get(path)}")


def flatten(preset: str, settings: list[str] | None) -> dict[str, str]:
    """Dotted settings and their values as `--set` would take them."""
    from dalle_model.config.sections import to_dict

    def walk(node: object, path: str) -> dict[str, str]:
        if isinstance(node, dict):
            return {name: text for key, value in node.items() for name, text in walk(value, f"{path}.{key}" if path else key).items()}
        if isinstance(node, list):
            return {path: ",".join(map(str, node))}
        return {path: str(node).lower() if isinstance(node, bool) or node is None else str(node)}

    return walk(to_dict(resolve(preset, settings)), "")
