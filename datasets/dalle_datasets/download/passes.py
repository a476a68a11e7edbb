"""The passes over the URLs of a download: one through img2dataset, then a few over what may have failed for a moment only.

Every pass leaves its rows in files of the folder `work`, so that a killed run goes on with what it has.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.fetching import FETCHED, Fetched, fetch_shard, fetched_table
from dalle_datasets.download.recheck import SeenLog
from dalle_datasets.download.runner import finished_shards, run_img2dataset
from dalle_datasets.download.shards import Shards, write_shards
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.sources.opening import open_source
from dalle_datasets.store.manifest import Report
from dalle_datasets.store.parquet import read_parquet, write_parquet
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import FAILURES, OK, parse_failure
from dalle_datasets.web.guard import RequestLimits

IMG2DATASET_COLUMN = "jpg"
"""img2dataset names its column of bytes after an encoding that it does not do here."""
URLS_PER_FILE = 100_000
"""img2dataset holds the URLs of a file in memory, several times."""
ASKED_AGAIN = pa.schema([pa.field("image_url", pa.string()), pa.field("shard", pa.int32())])
"""URLs of a retry, in the order of the shards they are from."""

logger = logging.getLogger(__name__)


def image_limits(source: SourceConfig, download: DownloadConfig, connect_to: Mapping[str, tuple[str, int]]) -> RequestLimits:
    """The limits of a request for an image."""
    return RequestLimits(
        user_agent=source.user_agent, timeout_s=download.timeout_s, deadline_s=download.deadline_s, max_bytes=download.max_bytes,
        allow_addresses=download.allow_addresses, connect_to=connect_to,
    )  # fmt: skip


def fetch_all(shards: Shards, work: Path, source: SourceConfig, download: DownloadConfig, report: Report) -> None:
    """Ask for every address. Afterwards `fetched_rows` has a row for each of them."""
    if not len(shards):
        return
    with open_source(source) as (_, connect_to):
        limits = image_limits(source, download, connect_to)
        seen = SeenLog(work / "seen")
        fetch_image = PoliteClient(limits, download.requests_per_s_per_host, seen).fetch_image
        is_local = source.kind in ("image_folders", "webdatasets") or _has_local(shards, source)
        if is_local:
            fetch_image = partial(_fetch_either, LocalReader(source.inputs, download.max_bytes), seen, fetch_image)
        if download.runner == "img2dataset" and not is_local:
            _write_urls(shards, work / "urls")
            _run_img2dataset(work / "urls", work / "img2dataset", shards, limits, download, report)
        else:
            _fetch_shards(shards, work / "first", fetch_image, download, report)
        for attempt in range(download.retries):
            again = _asked_again(work, shards, attempt, download)
            _fetch_shards(again, work / f"retry-{attempt}", fetch_image, download, report)


def _has_local(shards: Shards, source: SourceConfig) -> bool:
    """Whether some pictures lie on this machine; then img2dataset is not for them."""
    may_have = source.kind in ("url_tables", "mixed") and source.inputs
    return bool(may_have) and any(
        not url.startswith(("http://", "https://")) for number in range(len(shards)) for url in shards.urls(number)
    )


def _fetch_either(local: LocalReader, seen: SeenLog, remote: Callable[[str], bytes], image_url: str) -> bytes:
    if image_url.startswith(("http://", "https://")):
        return remote(image_url)
    seen.note(image_url, local.version(image_url))
    return local.fetch_image(image_url)


def fetched_rows(work: Path, shards: Shards, number: int, columns: list[str]) -> pa.Table:
    """One row for every address of a shard: from the last pass that asked for it, or a lost one."""
    urls, schema = shards.urls(number), pa.schema([FETCHED.field(name) for name in columns])
    tables = [_read_first_pass(work, number, columns)]
    for retry in _retries_of(work, number):
        table = pq.read_table(retry, columns=columns, filters=pc.field("image_url").isin(pa.array(urls)), partitioning=None)
        newer = table["image_url"].combine_chunks()
        tables = [*(older.filter(pc.invert(pc.is_in(older["image_url"], newer))) for older in tables), table]
    have = {url for table in tables for url in table["image_url"].to_pylist()}
    lost = [url for url in urls if url not in have]
    meaning = FAILURES["worker_lost"].meaning
    tables.append(fetched_table(Fetched(url, "worker_lost", meaning, None, None) for url in lost).select(columns))
    return pa.concat_tables([table.cast(schema) for table in tables])


def _retries_of(work: Path, number: int) -> Iterator[Path]:
    """The finished files of retries, oldest first, that may hold URLs of a shard."""
    for attempt in itertools.count():
        if not (plan := _plan_of(work, attempt)).exists():
            return
        footer = pq.read_metadata(plan)
        for group in range(footer.num_row_groups):
            of_shards = footer.row_group(group).column(ASKED_AGAIN.names.index("shard")).statistics
            path = work / f"retry-{attempt}" / f"{group:05d}.parquet"
            if of_shards.min <= number <= of_shards.max and path.exists():
                yield path


def _plan_of(work: Path, attempt: int) -> Path:
    return work / f"retry-{attempt}-urls.parquet"


def _asked_again(work: Path, shards: Shards, attempt: int, download: DownloadConfig) -> Shards:
    """URLs whose failure may have passed, after a pause; decided once, whatever part of them a killed run has asked already."""
    plan = _plan_of(work, attempt)
    if plan.exists():
        return Shards(plan, download.urls_per_shard)
    write_shards(plan, _retryable(work, shards), ASKED_AGAIN, download.urls_per_shard)
    again = Shards(plan, download.urls_per_shard)
    if again.num_urls:
        logger.info("%d addresses failed in a way that may pass; asking again (%d of %d)", again.num_urls, attempt + 1, download.retries)
        time.sleep(download.retry_wait_s * 2**attempt)
    return again


def _retryable(work: Path, shards: Shards) -> Iterator[dict[str, Any]]:
    """URLs whose newest status is a failure that may pass."""
    for number in range(len(shards)):
        for row in fetched_rows(work, shards, number, ["image_url", "status"]).to_pylist():
            if row["status"] != OK and FAILURES[row["status"]].retryable:
                yield {"image_url": row["image_url"], "shard": number}


def _write_urls(shards: Shards, folder: Path) -> None:
    """Lists for img2dataset, which cuts them into the same shards."""
    step = max(1, URLS_PER_FILE // shards.urls_per_shard)
    for first in range(0, len(shards), step):
        urls = [url for number in range(first, min(first + step, len(shards))) for url in shards.urls(number)]
        write_parquet(folder / f"{first:08d}.parquet", pa.table({"image_url": urls}), pa.schema([("image_url", pa.string())]))


def _run_img2dataset(
    urls_dir: Path, output_dir: Path, shards: Shards, limits: RequestLimits, download: DownloadConfig, report: Report
) -> None:
    """The first pass. A run that was ended early is started again for as long as it gets on; the retry passes take what is left."""
    total = shards.num_urls
    num_finished = -1
    while num_finished < len(finished := finished_shards(output_dir)) < len(shards):
        num_finished = len(finished)
        known = sum(map(shards.size, finished))
        run_img2dataset(
            urls_dir, output_dir, len(shards), limits, download,
            lambda done, known=known: report(min(known + done, total), total, "images"),  # type: ignore[misc]
        )  # fmt: skip


def _fetch_shards(shards: Shards, directory: Path, fetch_image: Callable[[str], bytes], download: DownloadConfig, report: Report) -> None:
    """Fetch shard after shard in this process; those that are there already are kept."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        report(done, shards.num_urls, "images" if directory.name == "first" else "retries")

    for number in range(len(shards)):
        path = directory / f"{number:05d}.parquet"
        if path.exists():
            done += shards.size(number)
        else:
            fetch_shard(shards.urls(number), path, fetch_image, download.num_threads, tick)


def _read_first_pass(work: Path, number: int, columns: list[str]) -> pa.Table:
    """Rows of one shard of the first pass, in the schema `FETCHED`; empty if the shard was lost."""
    ours = work / "first" / f"{number:05d}.parquet"
    if ours.exists():
        return read_parquet(ours, FETCHED, columns)
    theirs = work / "img2dataset" / f"{number:05d}.parquet"
    if not theirs.with_name(f"{number:05d}_stats.json").exists():
        return FETCHED.empty_table().select(columns)
    wanted = ["url", "status", "error_message", "sha256"] + ([IMG2DATASET_COLUMN] if "image" in columns else [])
    table = pq.read_table(theirs, columns=wanted, partitioning=None)
    failures = [
        (OK, None) if status == "success" else parse_failure(message or "img2dataset gave no reason")
        for status, message in zip(table["status"].to_pylist(), table["error_message"].to_pylist(), strict=True)
    ]
    renamed = pa.table(
        {
            "image_url": table["url"],
            "status": pa.array([code for code, _ in failures], pa.string()),
            "error": pa.array([detail for _, detail in failures], pa.string()),
            "sha256": table["sha256"],
            **({"image": table[IMG2DATASET_COLUMN]} if "image" in columns else {}),
        }
    )
    return renamed.select(columns)
