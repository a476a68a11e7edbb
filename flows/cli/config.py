"""`dalle config`: what the settings are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve
from flows.cli.output import results_console

if TYPE_CHECKING:
    from dalle_model.config.training import Sharding

app = typer.Typer(help="Presets and settings.", no_args_is_help=True)


@app.command()
def presets() -> None:
    """List the presets and what they are for."""
    from rich.table import Table

    from dalle_model.config.presets import PRESETS

    table = Table("preset", "for", "layers x width x heads", "picture", box=None)
    for name, make in PRESETS.items():
        config = make()
        shape = f"{config.transformer.num_layers} x {config.transformer.d_model:,} x {config.transformer.num_heads}"
        picture = f"{config.dvae.image_size} px, {config.dvae.num_image_tokens:,} tokens of {config.dvae.codebook_size:,}"
        table.add_row(name, (make.__doc__ or "").strip().splitlines()[0], shape, picture)
    results_console().print(table)


@app.command()
def show(
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    section: Annotated[str, typer.Option(help="Only one section, e.g. `transformer`.")] = "",
) -> None:
    """Print every setting, its meaning above it, as a file that `--config` reads back."""
    from dalle_model.config.settings_file import render_settings

    typer.echo(render_settings(resolve(preset, settings, config_file), section), nl=False)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A preset, or a settings file.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Print the settings in which two presets or settings files differ."""
    from dalle_model.config.settings_file import differences

    left, right = (resolve(None, None, Path(name)) if name.endswith(".toml") else resolve(name, None) for name in (first, second))
    for path, (old, new) in sorted(differences(left, right).items()):
        typer.echo(f"{path}: {spell(old)} -> {spell(new)}")


@app.command()
def plan(
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    world_size: Annotated[int, typer.Option(min=1, help="Devices that train together.")] = 1,
    sharding: Annotated[str, typer.Option(help="replicated, full or hybrid; as configured if left out.")] = "",
) -> None:
    """Print what training the transformer costs: parameters, FLOPs per token, memory per device. Builds nothing, needs no GPU.

    Raises `ValueError` for an unknown sharding or a batch that the devices cannot share.
    """
    from rich.table import Table

    from dalle_model.transformer.cost import DeviceMemory, plan_transformer

    config = resolve(preset, settings, config_file)
    kinds: dict[str, Sharding] = {"replicated": "replicated", "full": "full", "hybrid": "hybrid", "": config.train_transformer.sharding}
    if sharding not in kinds:
        raise ValueError(f"--sharding {sharding} does not exist; choose one of {', '.join(filter(None, kinds))}")
    made = plan_transformer(config, world_size, kinds[sharding])
    table = Table("transformer", "", box=None, show_header=False)
    table.columns[1].justify = "right"

    def section(title: str, rows: dict[str, str]) -> None:
        table.add_row(f"[bold]{title}[/bold]", "")
        for name, value in rows.items():
            table.add_row(f"  {name}", value)

    stream, transformer = config.stream, config.transformer
    shape = f"{transformer.num_layers} layers of {transformer.d_model:,}, {transformer.num_heads} heads of {transformer.d_head}"
    table.add_row(f"[bold]{config.preset}[/bold]", shape)
    table.add_row("stream", f"{stream.max_text_tokens} text + {stream.num_image_tokens:,} image tokens")
    section("parameters", {**{part: f"{count:,}" for part, count in made.parameters.items()}, "together": f"{made.num_parameters:,}"})
    flops = {name.replace("_", " "): f"{value / 1e9:,.3f} GFLOP" for name, value in made.forward_flops_per_token.items()}
    sparse, dense = f"{made.training_flops_per_token / 1e9:,.3f} GFLOP", f"{made.dense_training_flops_per_token / 1e9:,.3f} GFLOP"
    section("forward, per token", flops)
    section("training, per token", {"sparse attention": sparse, "dense attention": dense})
    section(
        "training together",
        {"devices": str(world_size), "sharding": kinds[sharding], "pairs per device at a time": f"{made.pairs_per_device}"},
    )

    def gibibytes(memory: DeviceMemory) -> dict[str, str]:
        parts = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "average", "activations", "logits", "total")}
        return {name: f"{value / 2**30:,.2f} GiB" for name, value in parts.items()}

    section("memory per device, all activations kept", gibibytes(made.memory))
    section("memory per device, activation checkpointing", gibibytes(made.memory_with_checkpointing))
    results_console().print(table)


def spell(value: object) -> str:
    """A setting's value as `--set` takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
