"""`dalle run`: one flow in this process, without a server started by hand."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import ConfigFile, From, Preset, Settings, With, parse_params, parse_settings, resolve, with_networks

if TYPE_CHECKING:
    from dalle_model.config.tree import Config

FLOWS = {
    "collect_pairs": "read pages, download and filter: pairs of captions and pictures",
    "train_tokenizers": "learn the BPE vocabulary and train the discrete VAE",
    "tokenize_pairs": "turn captions and pictures into tokens",
    "train_clip": "train the CLIP that scores pairs and reranks pictures",
    "score_pairs": "let CLIP say how well captions fit pictures",
    "build_training_set": "choose pairs by a recipe of sql/training_sets/ (--recipe, --param)",
    "train_transformer": "choose the training set by SQL and train on it",
    "generate_images": "make pictures for the prompts that the source comes with",
    "draw_prompt_folder": "make pictures for every file of prompts in a folder",
    "score_generations": "let another CLIP rank them too",
    "evaluate_model": "judge them: the demo's with a strict checker, others with a second CLIP",
    "retrain_networks": "train networks anew on the pairs of today, if these have grown enough",
    "maintain_catalog": "ingest what is missing, check, publish",
    "run_pipeline": "all of this, in this order; `dalle demo` with any preset",
}
"""Flow -> what it does."""

TRAINING = ("train_tokenizers", "train_clip", "train_transformer", "retrain_networks", "run_pipeline")
"""Flows that train, and so may begin from networks that are there."""

_LIST = "\n".join(f"{name:18} {what}" for name, what in FLOWS.items())
HELP = f"""Run one flow and print what it made as JSON. What exists for the same settings is not made again, and a flow that lacks its
inputs says which flow makes them. The settings are kept in the data root's settings.toml, from which every command starts.

\b
{_LIST}
"""


def run(
    flow: Annotated[str, typer.Argument(help="One of the flows above.")],
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
    networks: With = None,
    begin_from: From = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="collect_pairs and run_pipeline: ask the source what is new since.")] = False,
    recipe: Annotated[str, typer.Option(help="build_training_set: a query of sql/training_sets/; that of the settings if not given.")] = "",
    params: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="build_training_set: for the recipe.")] = None,
    training_set: Annotated[str, typer.Option(metavar="ID", help="train_transformer: a training set that is there.")] = "",
) -> None:
    """Run one flow and print what it made as JSON. A flow that lacks its inputs says which flow makes them."""
    import difflib
    import json

    from dalle_model.config.parsing import with_overrides
    from flows.cli.demo import prefect_flows, remember_settings
    from flows.cli.summary import print_drops

    name = flow.replace("-", "_")
    if name not in FLOWS:
        near = difflib.get_close_matches(name, FLOWS, n=1)
        raise ValueError(
            f"flow {flow!r} does not exist; " + (f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(FLOWS)}")
        )
    if refresh and name not in ("collect_pairs", "run_pipeline"):
        raise ValueError(f"--refresh asks a source what is new, which {name} does not read; run collect_pairs --refresh first")
    if (recipe or params) and name != "build_training_set":
        raise ValueError(f"--recipe and --param choose a training set, which {name} does not build; run build_training_set with them")
    if training_set and name != "train_transformer":
        raise ValueError(f"--training-set names what to train on, which {name} does not; run train_transformer with it")
    if begin_from and name not in TRAINING:
        raise ValueError(f"--from says what a training begins from, and {name} trains nothing; use it with {', '.join(TRAINING)}")
    more: dict[str, Any] = {"refresh": True} if refresh else {}
    more |= {"training_set": training_set} if training_set else {}
    more |= {"recipe": recipe, "params": parse_params(params)} if name == "build_training_set" else {}
    given = parse_settings(settings)
    config = resolve(preset, None, config_file, before_start(given) if begin_from else given)
    with prefect_flows(config) as run_flow:
        if begin_from:
            config = with_overrides(config, begin(begin_from, config, given))
        remember_settings(config)
        if networks:
            config = with_overrides(config, with_networks(networks))
        made = run_flow(name, config, **more)
    if name == "collect_pairs":
        print_drops(made)
    typer.echo(json.dumps(made, indent=1))


def before_start(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command line without those that make sense only once it is known what trainings begin from."""
    return {name: value for name, value in given.items() if not name.startswith("start.")}


def begin(where: str, config: "Config", given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with which trainings begin from a model folder or a run; says what is taken over and what is trained on.

    `config` may lack the settings of the command line, `given`, that `before_start` left out. Prefect's server must be there: what this
    imports reads its address.
    """
    from dalle_model.config.parsing import with_overrides
    from flows.runtime.starting import describe_start, start_settings

    start = start_settings(where, config, given)
    typer.echo(describe_start(with_overrides(config, start)) or "begins from random weights", err=True)
    return start
