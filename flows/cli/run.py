"""`dalle run`: one flow in this process, without a server started by hand."""

from typing import Annotated

import typer

from flows.cli.options import Preset, Settings, parse_settings, resolve

FLOWS = (
    "collect_pairs",
    "train_tokenizers",
    "tokenize_pairs",
    "train_clip",
    "score_pairs",
    "train_transformer",
    "generate_images",
    "score_generations",
    "evaluate_model",
    "maintain_catalog",
    "run_pipeline",
)


def run(
    flow: Annotated[str, typer.Argument(help=f"One of {', '.join(FLOWS)}.")],
    preset: Preset = "demo",
    settings: Settings = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="collect_pairs only: ask the source what is new since.")] = False,
) -> None:
    """Run one flow and print what it made as JSON. A flow that lacks its inputs says which flow makes them."""
    import difflib
    import json

    from flows.cli.demo import run_with_prefect

    name = flow.replace("-", "_")
    if name not in FLOWS:
        near = difflib.get_close_matches(name, FLOWS, n=1)
        raise ValueError(
            f"flow {flow!r} does not exist; " + (f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(FLOWS)}")
        )
    if refresh and name != "collect_pairs":
        raise ValueError(f"--refresh asks a source what is new, which {name} does not read; run collect_pairs --refresh first")
    more = {"refresh": True} if refresh else {}
    typer.echo(json.dumps(run_with_prefect(name, resolve(preset, settings), preset, parse_settings(settings), **more), indent=1))
