"""The passes over the addresses of a download: one through img2dataset, then a few over what may have failed for a moment only.

Every pass leaves its rows in files of the folder `work`, so that a killed run goes on with what it has.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.failures import FAILURES, OK, parse_failure
from dalle_datasets.download.fetching import FETCHED, Visitor, fetch_shard
from dalle_datasets.download.guard import Guard
from dalle_datasets.download.runner import finished_shards, run_img2dataset
from dalle_datasets.parquet import read_parquet, write_parquet
from dalle_datasets.sources.base import open_source
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.stage import Report

IMG2DATASET_COLUMN = "jpg"
"""img2dataset names its column of bytes after an encoding that it does not do here."""
URLS = pa.schema([pa.field("image_url", pa.string())])

logger = logging.getLogger(__name__)


def fetch_all(image_urls: list[str], work: Path, source: SourceConfig, download: DownloadConfig, report: Report) -> None:
    """Ask for every address. Afterwards `fetched_rows` has a row for each of them."""
    if not image_urls:
        return
    urls_path = work / "urls.parquet"
    write_parquet(urls_path, pa.table({"image_url": image_urls}, URLS), URLS)
    with open_source(source) as (_, connect_to):
        guard = Guard(
            user_agent=source.user_agent, timeout_s=download.timeout_s, deadline_s=download.deadline_s, max_bytes=download.max_bytes,
            allow_addresses=download.allow_addresses, connect_to=connect_to,
        )  # fmt: skip
        fetch_image = Visitor(guard, download.requests_per_s_per_host).fetch_image
        shards = cut(image_urls, download.urls_per_shard)
        if source.kind in ("image_folders", "webdatasets"):
            _fetch_shards(shards, work / "first", LocalReader(source.inputs, download.max_bytes).fetch_image, download, report)
        elif download.runner == "img2dataset":
            _run_img2dataset(urls_path, work / "img2dataset", shards, guard, download, report)
        else:
            _fetch_shards(shards, work / "first", fetch_image, download, report)
        for attempt in range(download.retries):
            again = _asked_again(work, shards, attempt, download)
            _fetch_shards(cut(again, download.urls_per_shard), work / f"retry-{attempt}", fetch_image, download, report)


def fetched_rows(work: Path, number: int, shard: list[str]) -> pa.Table:
    """One row for every address of a shard: from the last pass that asked for it, or a lost one."""
    tables = [_read_first_pass(work, number, FETCHED.names)]
    for retry in sorted(work.glob("retry-*/*.parquet")):
        table = pq.read_table(retry, filters=pc.field("image_url").isin(pa.array(shard)), partitioning=None)
        if table.num_rows:
            newer = table["image_url"]
            tables = [older.filter(pc.invert(pc.is_in(older["image_url"], newer.combine_chunks()))) for older in tables]
            tables.append(table)
    have = {url for table in tables for url in table["image_url"].to_pylist()}
    lost = sorted(set(shard) - have)
    tables.append(
        pa.table(
            {
                "image_url": pa.array(lost, pa.string()),
                "status": pa.array(["worker_lost"] * len(lost), pa.string()),
                "error": pa.array([FAILURES["worker_lost"].meaning] * len(lost), pa.string()),
                "sha256": pa.nulls(len(lost), pa.string()),
                "image": pa.nulls(len(lost), pa.binary()),
            }
        )
    )
    return pa.concat_tables([table.cast(FETCHED.with_metadata(None)) for table in tables])


def cut(items: list[str], size: int) -> list[list[str]]:
    """`items` in pieces of `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _asked_again(work: Path, shards: list[list[str]], attempt: int, download: DownloadConfig) -> list[str]:
    """Addresses whose failure may have passed, after a pause; decided once, whatever part of them a killed run has asked already."""
    plan = work / f"retry-{attempt}-urls.parquet"
    if plan.exists():
        urls: list[str] = pq.read_table(plan, partitioning=None)["image_url"].to_pylist()
        return urls
    again = [url for url, code in _statuses(work, shards).items() if code != OK and FAILURES[code].retryable]
    if again:
        logger.info("%d addresses failed in a way that may pass; asking again (%d of %d)", len(again), attempt + 1, download.retries)
        time.sleep(download.retry_wait_s * 2**attempt)
    write_parquet(plan, pa.table({"image_url": again}, URLS), URLS)
    return again


def _run_img2dataset(
    urls_path: Path, output_dir: Path, shards: list[list[str]], guard: Guard, download: DownloadConfig, report: Report
) -> None:
    """The first pass. A run that was ended early is started again for as long as it gets on; the retry passes take what is left."""
    total = sum(map(len, shards))
    num_finished = -1
    while num_finished < len(finished := finished_shards(output_dir)) < len(shards):
        num_finished = len(finished)
        known = sum(len(shards[number]) for number in finished)
        run_img2dataset(
            urls_path, output_dir, len(shards), guard, download,
            lambda done, known=known: report(min(known + done, total), total, "images"),  # type: ignore[misc]
        )  # fmt: skip


def _fetch_shards(
    shards: list[list[str]], directory: Path, fetch_image: Callable[[str], bytes], download: DownloadConfig, report: Report
) -> None:
    """Fetch shard after shard in this process; those that are there already are kept."""
    total = sum(map(len, shards))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        report(done, total, "images" if directory.name == "first" else "retries")

    for number, shard in enumerate(shards):
        path = directory / f"{number:05d}.parquet"
        if path.exists():
            done += len(shard)
        else:
            fetch_shard(shard, path, fetch_image, download.num_threads, tick)


def _statuses(work: Path, shards: list[list[str]]) -> dict[str, str]:
    """Address -> newest status, over all passes so far."""
    statuses = dict.fromkeys((url for shard in shards for url in shard), "worker_lost")
    for number in range(len(shards)):
        first = _read_first_pass(work, number, ["image_url", "status"])
        statuses.update(zip(first["image_url"].to_pylist(), first["status"].to_pylist(), strict=True))
    for retry in sorted(work.glob("retry-*/*.parquet")):
        rows = read_parquet(retry, FETCHED, ["image_url", "status"])
        statuses.update(zip(rows["image_url"].to_pylist(), rows["status"].to_pylist(), strict=True))
    return statuses


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
