"""Flow: from web pages to usable pairs of a caption and an image, with a reason for everything that was left out."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from dalle_datasets.catalog.ingest import ingest_source
from dalle_datasets.download.download_images import DownloadResult, download_images
from dalle_datasets.filters.filter_pairs import FilterResult, NoPairsLeft, filter_pairs
from dalle_datasets.history import record_collection
from dalle_datasets.sources.discover import DiscoverResult, discover
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from flows.report import write_collection_report
from flows.report.collection_data import collect_collection
from flows.runtime.artifacts import show_collection
from flows.runtime.collected import collecting
from flows.runtime.deployed import announce, crash_without_server, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset, Refresh
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.progress import reporter, watched
from flows.runtime.stage_times import timed
from flows.runtime.tasks import ingest_in_catalog, publish_catalog


@flow(name="collect-pairs", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def collect_pairs(preset: Preset = "demo", overrides: Overrides | None = None, refresh: Refresh = False) -> dict[str, Any]:
    """Read pages, download their images, filter, and catalogue pairs and drops. Returns the results of the three stages.

    With `refresh` (scheduled runs) the source is asked what changed since; without, a source that was read is not asked again.
    """
    config = config_from_parameters(preset, overrides)
    with collecting(open_data_root(config.paths.data_root), config):
        found = discover_candidates(config, refresh)
        downloaded = download_candidates(config, refresh)
        try:
            filtered = filter_candidates(config)
        except NoPairsLeft:  # what was withdrawn leaves the catalog all the same
            keep_record(config, found, downloaded, None)
            catalogue_pairs(config)
            publish_catalog(config, True)
            raise
        is_news = keep_record(config, found, downloaded, filtered)
        catalogue_pairs(config)
    publish_catalog(config, is_news)
    report_collection(config, is_news)
    announce("pairs", preset, overrides)
    return {"discover": asdict(found), "download": asdict(downloaded), "filter": asdict(filtered)}


@task(task_run_name="discover", cache_policy=NO_CACHE)
def discover_candidates(config: Config, refresh: bool = False) -> DiscoverResult:
    """Addresses of captioned images."""
    with timed("discover") as time, watched("discover") as stage:
        result = discover(config.source, config.download, open_data_root(config.paths.data_root), reporter(stage), refresh)
        time.was_skipped = result.skipped
        return result


@task(
    task_run_name="download",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_jitter_factor=0.5,
    retry_condition_fn=lambda task, run, state: isinstance(state.result(raise_on_failure=False), OSError),
)
def download_candidates(config: Config, refresh: bool = False) -> DownloadResult:
    """The images' bytes. The one task whose world is unreliable; what it has is kept, so a retry fetches the rest."""
    with timed("download") as time, watched("download") as stage:
        result = download_images(config.source, config.download, open_data_root(config.paths.data_root), reporter(stage), refresh)
        time.was_skipped = result.skipped
        return result


@task(task_run_name="filter", cache_policy=NO_CACHE)
def filter_candidates(config: Config) -> FilterResult:
    """The usable pairs."""
    with timed("filter") as time, watched("filter") as stage:
        result = filter_pairs(
            config.source, config.download, config.filter, config.shards, open_data_root(config.paths.data_root), reporter(stage)
        )
        time.was_skipped = result.skipped
        return result


@task(task_run_name="record", cache_policy=NO_CACHE)
def keep_record(config: Config, found: DiscoverResult, downloaded: DownloadResult, filtered: FilterResult | None) -> bool:
    """What became of every candidate, to compare the next collection with. False if nothing was done, and all of it is on record."""
    layout = open_data_root(config.paths.data_root)
    facts = {name: getattr(found, name) for name in ("num_pages", "num_unchanged", "num_pages_left", "num_new")}
    facts |= {"num_fetched": downloaded.num_fetched, "pairs_id": filtered.pairs_id if filtered else ""}
    was_skipped = found.skipped and downloaded.skipped and filtered is not None and filtered.skipped
    recorded = record_collection(layout, config.source.name, facts, datetime.now(UTC), was_skipped)
    return recorded is not None or not layout.collection_report.exists()


@task(task_run_name="report collection", cache_policy=NO_CACHE)
def report_collection(config: Config, is_news: bool) -> None:
    """The page, and its figures as artifacts, if there is news for them."""
    layout = open_data_root(config.paths.data_root)
    with timed("report collection") as time:
        time.was_skipped = not is_news
        if is_news:
            data = collect_collection(layout)
            show_collection(data, write_collection_report(layout, data))


@task(task_run_name="catalogue pairs", cache_policy=NO_CACHE)
def catalogue_pairs(config: Config) -> None:
    """Pairs, drops and the record of this collection into the catalog."""
    layout = open_data_root(config.paths.data_root)
    with timed("catalogue pairs"):
        ingest_in_catalog(config, f"catalogue pairs of {config.source.name}", lambda con: ingest_source(con, layout, config.source.name))
