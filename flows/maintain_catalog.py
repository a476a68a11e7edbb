"""Flow: bring the catalog up to date with the files, check it, and publish it."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.catalog.ingest import ingest_everything
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from flows.runtime.deployed import crash_without_server, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.tasks import ingest_in_catalog, publish_catalog


@flow(name="maintain-catalog", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def maintain_catalog(preset: Preset = "demo", overrides: Overrides | None = None) -> str:
    """Ingest what is missing and publish the readers' copy, if `sql/checks/` finds no fault. Returns its path."""
    config = config_from_parameters(preset, overrides)
    ingest_all(config)
    return publish_catalog(config)


@task(task_run_name="ingest everything", cache_policy=NO_CACHE)
def ingest_all(config: Config) -> None:
    """Every artefact under the data root."""
    layout = open_data_root(config.paths.data_root)
    ingest_in_catalog(config, "ingest everything", lambda con: ingest_everything(con, layout))
