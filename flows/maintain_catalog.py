"""Flow: bring the catalog up to date with the files, check it, and publish it."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dalle_datasets.catalog.checks import run_checks
from dalle_datasets.catalog.ingest import ingest_everything
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from flows.runtime.deployed import only_newest
from flows.runtime.parameters import Overrides, config_from_parameters
from flows.runtime.tasks import catalog_writer, publish_catalog


@flow(name="maintain-catalog", flow_run_name="maintain-catalog-{preset}")
@only_newest
def maintain_catalog(preset: str = "demo", overrides: Overrides | None = None) -> str:
    """Ingest what is missing, run `sql/checks/`, publish the readers' copy. Returns its path."""
    config = config_from_parameters(preset, overrides)
    ingest_and_check(config)
    return publish_catalog(config)


@task(task_run_name="ingest and check", cache_policy=NO_CACHE)
def ingest_and_check(config: Config) -> None:
    """Every artefact under the data root, then the integrity checks. Raises `ValueError` naming the checks that found something."""
    layout = open_data_root(config.paths.data_root)
    with catalog_writer(config) as con:
        ingest_everything(con, layout)
        failed = [check for check in run_checks(con) if not check.passed]
    if failed:
        raise ValueError(
            f"{layout.catalog}: {'; '.join(f'{check.name} found {check.rows[0]}' for check in failed)}; see `dalle catalog check`"
        )
