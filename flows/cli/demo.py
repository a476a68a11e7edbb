"""`dalle demo`: the whole pipeline, from web pages to reranked pictures."""

import os
from typing import TYPE_CHECKING, Any

from flows.cli.options import Preset, Settings, parse_settings, resolve

if TYPE_CHECKING:
    from dalle_model.config.tree import Config


def demo(preset: Preset = "demo", settings: Settings = None) -> None:
    """Run the whole pipeline in this process and show what came of it. Finished stages are skipped."""
    from dalle_datasets.store.layout import open_data_root
    from flows.cli.summary import print_summary
    from flows.runtime.pipeline_result import finished_pipeline

    config = resolve(preset, settings)
    layout = open_data_root(config.paths.data_root)
    account = finished_pipeline(layout, config)
    if already := account is not None:
        assert account is not None
    else:
        account = run_with_prefect("run_pipeline", config, preset, parse_settings(settings))
    print_summary(layout, account, already_done=already)


def run_with_prefect(flow_name: str, config: "Config", preset: str, overrides: dict[str, str], **parameters: Any) -> Any:
    """Run a flow with bars on the terminal and a private Prefect server; returns what the flow returns."""
    from importlib import import_module

    from dalle_datasets.store.layout import open_data_root
    from flows.cli.display import ConsoleDisplay
    from flows.runtime.prefect_server import private_server
    from flows.runtime.progress import shown_on, watched

    if config.flow.pool and not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            f"flow.pool={config.flow.pool} needs a Prefect server and a worker: start them (flows/README.md) and set PREFECT_API_URL, "
            "or leave flow.pool empty to run the jobs here"
        )
    home = open_data_root(config.paths.data_root).root / "prefect"
    with ConsoleDisplay() as display, shown_on(display), private_server(home) as server:
        with watched("start prefect"):
            flow = getattr(import_module(f"flows.{flow_name}"), flow_name)  # imports Prefect while its server starts
            server.wait()
        with server.in_use():
            return flow(preset=preset, overrides=overrides, **parameters)
