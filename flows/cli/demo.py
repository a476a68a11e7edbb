"""`dalle demo`: the whole pipeline, from web pages to reranked pictures."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.cli.options import ConfigFile, Preset, Settings, resolve

if TYPE_CHECKING:
    from dalle_model.config.tree import Config


MOST_NAMED = 6
"""Changed settings to name; a new preset changes a hundred."""


def demo(preset: Preset = None, settings: Settings = None, config_file: ConfigFile = None) -> None:
    """Run the whole pipeline in this process and show what came of it. Finished stages are skipped.

    It starts from the preset `demo`, whatever the data root was used for before; its settings are kept there for other commands.
    """
    from dalle_datasets.store.layout import open_data_root
    from flows.cli.summary import print_summary
    from flows.runtime.pipeline_result import finished_pipeline

    config = resolve(preset or (None if config_file else "demo"), settings, config_file)
    layout = open_data_root(config.paths.data_root)
    remember_settings(config)
    account = finished_pipeline(layout, config)
    if already := account is not None:
        assert account is not None
    else:
        account = run_with_prefect("run_pipeline", config)
    print_summary(layout, account, already_done=already)


def remember_settings(config: "Config") -> None:
    """Keep the settings in the data root, where later commands find them, and say which ones changed."""
    from flows.runtime.parameters import remember

    if changes := remember(config):
        more = f"; and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
        print(f"settings changed since the last run: {'; '.join(changes[:MOST_NAMED])}{more}", file=sys.stderr)


def run_with_prefect(flow_name: str, config: "Config", **parameters: Any) -> Any:
    """Run a flow with bars on the terminal and a private Prefect server; returns what the flow returns."""
    with prefect_flows(config) as run:
        return run(flow_name, config, **parameters)


@contextmanager
def prefect_flows(config: "Config") -> Iterator[Callable[..., Any]]:
    """Bars on the terminal and a private Prefect server for one flow after another: `run(name, config, **parameters)`."""
    from importlib import import_module

    from dalle_datasets.store.layout import open_data_root
    from dalle_model.config.settings_file import overrides_of
    from flows.cli.display import on_terminal
    from flows.runtime.prefect_server import private_server
    from flows.runtime.progress import watched

    if config.flow.pool and not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            f"flow.pool={config.flow.pool} needs a Prefect server and a worker: start them (flows/README.md) and set PREFECT_API_URL, "
            "or leave flow.pool empty to run the jobs here"
        )
    home = open_data_root(config.paths.data_root).root / "prefect"
    with on_terminal(), private_server(home) as server:
        with watched("start prefect"):
            import_module("flows.run_pipeline")  # imports Prefect while its server starts
            server.wait()

        def run(flow_name: str, config: "Config", **parameters: Any) -> Any:
            flow = getattr(import_module(f"flows.{flow_name}"), flow_name)
            return flow(preset=config.preset, overrides=overrides_of(config), **parameters)

        with server.in_use():
            yield run
