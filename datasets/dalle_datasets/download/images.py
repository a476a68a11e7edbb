"""Stage 2: fetch the bytes behind every candidate, exactly as they came, with one row for every candidate whatever happens.

Every address is asked for once, however many captions it has. A first pass goes through img2dataset; addresses whose failure may
be temporary are asked again in a few passes. Rows of earlier runs are kept, so a later run fetches only what is new.
"""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.failures import FAILURES, OK, parse_failure
from dalle_datasets.download.fetching import FETCHED, Visitor, fetch_shard
from dalle_datasets.download.guard import Guard
from dalle_datasets.download.runner import finished_shards, run_img2dataset
from dalle_datasets.identity import content_id
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import atomic_path, list_parts, read_parquet, write_parquet
from dalle_datasets.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES
from dalle_datasets.sources.base import open_source
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.stage import Report, begin, finish, finished, inputs_id, silent

VERSION = 1
IMG2DATASET_COLUMN = "jpg"
"""img2dataset names its column of bytes after an encoding that it does not do here."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What the download brought."""

    images_id: str
    num_candidates: int
    num_images: int
    """Candidates whose bytes are here."""
    num_fetched: int
    """Addresses that were asked for in this run; the others were known."""
    dropped: dict[str, int]
    images: str
    """Folder of the images, relative to the data root."""
    skipped: bool = False
    """True if nothing had to be done."""


def download_images(source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = silent) -> DownloadResult:
    """Fetch what the candidates of a source point to.

    Raises `ValueError` when there are no candidates, or when img2dataset cannot be started.
    """
    path = candidates_path(layout, source.name)
    if not path.exists():
        raise ValueError(f"{path} does not exist; run discover for source {source.name!r} first")
    candidates = read_parquet(path, CANDIDATES)
    settings = _settings_id(source, download)
    folder = layout.images(source.name)
    inputs = inputs_id("download", VERSION, settings, content_id("candidates", *candidates["candidate_id"].to_pylist()))
    if (earlier := finished(folder, inputs)) is not None:
        return DownloadResult(**{**earlier, "num_fetched": 0, "skipped": True})
    begin(folder)
    work = folder / f"work-{inputs}"
    for other in folder.glob("work-*"):
        if other != work:
            shutil.rmtree(other)
    if not (work / "plan.json").exists():
        kept = _keep_earlier_rows(folder, work / "parts", settings)
        new = candidates.filter(pc.invert(pc.is_in(candidates["candidate_id"], kept)))
        num_fetched = _fetch_new(new, work, source, download, report)
        _write_parts(new, work, settings, download.urls_per_shard)
        plan = {"num_fetched": num_fetched, "parts": [part.name for part in list_parts(work / "parts")]}
        with atomic_path(work / "plan.json") as partial:
            partial.write_text(json.dumps(plan))
    # From here on, everything is decided: a killed run continues with the same parts.
    plan = json.loads((work / "plan.json").read_text())
    for name in plan["parts"]:
        if (work / "parts" / name).exists():
            (work / "parts" / name).replace(folder / name)
    for part in list_parts(folder):
        if part.name not in plan["parts"]:
            part.unlink()
    result = _summarise(source, layout, candidates, plan["num_fetched"])
    finish(folder, inputs, asdict(result))
    shutil.rmtree(work)
    return result


def _settings_id(source: SourceConfig, download: DownloadConfig) -> str:
    """What decides whether an address gives bytes; how fast and by whom it is asked does not count."""
    return inputs_id(
        source.user_agent, download.timeout_s, download.deadline_s, download.max_bytes, list(download.allow_addresses), download.retries
    )


def _keep_earlier_rows(folder: Path, parts_dir: Path, settings: str) -> pa.Array:
    """Put rows that need not be fetched again into `parts_dir` and return their candidate ids.

    Failures that may have passed since are asked for again; fetched under other settings, every failure may be none now.
    """
    shutil.rmtree(parts_dir, ignore_errors=True)
    parts_dir.mkdir(parents=True)
    kept: list[pa.Array] = [pa.array([], pa.string())]
    final = pa.array([OK, *(code for code, failure in FAILURES.items() if not failure.retryable)])
    for part in list_parts(folder):
        target = parts_dir / f"part-{len(list_parts(parts_dir)):05d}.parquet"
        same_settings = (pq.read_metadata(part).metadata or {}).get(b"settings") == settings.encode()
        rows = read_parquet(part, IMAGES, ["candidate_id", "status"])
        keep = pc.is_in(rows["status"], final if same_settings else final[:1])
        if same_settings and pc.all(keep).as_py():
            target.hardlink_to(part)
        elif pc.any(keep).as_py():
            write_parquet(target, read_parquet(part, IMAGES).filter(keep), IMAGES, metadata={"settings": settings})
        kept += rows["candidate_id"].filter(keep).chunks
    return pa.chunked_array(kept).combine_chunks()


def _fetch_new(new: pa.Table, work: Path, source: SourceConfig, download: DownloadConfig, report: Report) -> int:
    """First pass and retry passes over the addresses of `new`; returns how many there are."""
    # By hash, so that the pictures of one host do not all come at once.
    image_urls = sorted(pc.unique(new["image_url"]).to_pylist(), key=lambda url: content_id("url", url))
    if not image_urls:
        return 0
    urls_path = work / "urls.parquet"
    write_parquet(urls_path, pa.table({"image_url": image_urls}), pa.schema([pa.field("image_url", pa.string())]))
    with open_source(source) as (_, connect_to):
        guard = Guard(
            user_agent=source.user_agent, timeout_s=download.timeout_s, deadline_s=download.deadline_s, max_bytes=download.max_bytes,
            allow_addresses=download.allow_addresses, connect_to=connect_to,
        )  # fmt: skip
        fetch_image = Visitor(guard, download.requests_per_s_per_host).fetch_image
        shards = _cut(image_urls, download.urls_per_shard)
        if source.kind in ("image_folders", "webdatasets"):
            _fetch_shards(shards, work / "first", LocalReader(source.inputs, download.max_bytes).fetch_image, download, report)
        elif download.runner == "img2dataset":
            _run_img2dataset(urls_path, work / "img2dataset", shards, guard, download, report)
        else:
            _fetch_shards(shards, work / "first", fetch_image, download, report)
        for attempt in range(download.retries):
            again = [url for url, code in _statuses(work, shards).items() if code != OK and FAILURES[code].retryable]
            if not again:
                break
            if not (work / f"retry-{attempt}").exists():
                logger.info(
                    "%d addresses failed in a way that may pass; asking again (%d of %d)", len(again), attempt + 1, download.retries
                )
                time.sleep(download.retry_wait_s * 2**attempt)
            _fetch_shards(_cut(again, download.urls_per_shard), work / f"retry-{attempt}", fetch_image, download, report)
    return len(image_urls)


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


def _write_parts(new: pa.Table, work: Path, settings: str, urls_per_shard: int) -> None:
    """One part for every shard: a row for each candidate of its addresses, in the order of their ids."""
    if not new.num_rows:
        return
    shards = _cut(pq.read_table(work / "urls.parquet", partitioning=None)["image_url"].to_pylist(), urls_per_shard)
    ids = new["candidate_id"].to_pylist()
    by_url: dict[str, list[int]] = {}
    for row, url in enumerate(new["image_url"].to_pylist()):
        by_url.setdefault(url, []).append(row)
    for number, shard in enumerate(shards):
        fetched = _newest_rows(work, number, shard)
        rows = sorted((ids[row], row, url) for url in shard for row in by_url[url])
        found = new.take(pa.array([row for _, row, _ in rows], pa.int64()))
        place = {url: i for i, url in enumerate(fetched["image_url"].to_pylist())}
        fetched = fetched.take(pa.array([place[url] for _, _, url in rows], pa.int64()))
        part = found.select(["candidate_id", "image_url", "caption", "page_url", "source"])
        for column in ("status", "error", "sha256", "image"):
            part = part.append_column(column, fetched[column])
        target = work / "parts" / f"part-{len(list_parts(work / 'parts')):05d}.parquet"
        write_parquet(target, part, IMAGES, metadata={"settings": settings})


def _newest_rows(work: Path, number: int, shard: list[str]) -> pa.Table:
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


def _cut(items: list[str], size: int) -> list[list[str]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _summarise(source: SourceConfig, layout: Layout, candidates: pa.Table, num_fetched: int) -> DownloadResult:
    """Write the drops of this stage and count."""
    folder = layout.images(source.name)
    current = candidates["candidate_id"].combine_chunks()
    fields = ["candidate_id", "source", "status", "error", "caption", "image_url", "page_url", "sha256"]
    rows = pa.concat_tables(read_parquet(part, IMAGES, fields) for part in list_parts(folder))
    rows = rows.filter(pc.is_in(rows["candidate_id"], current)).sort_by("candidate_id")
    failed = rows.filter(pc.not_equal(rows["status"], OK))
    drops = pa.table(
        {
            "candidate_id": failed["candidate_id"],
            "source": failed["source"],
            "stage": pa.array(["download"] * failed.num_rows, pa.string()),
            "reason": failed["status"],
            "detail": pc.fill_null(failed["error"], ""),
            "caption": failed["caption"],
            "image_url": failed["image_url"],
            "page_url": failed["page_url"],
        }
    )
    write_parquet(layout.dropped(source.name) / "download.parquet", drops, DROPPED_PAIRS)
    what = zip(rows["candidate_id"].to_pylist(), rows["status"].to_pylist(), rows["sha256"].to_pylist(), strict=True)
    return DownloadResult(
        images_id=content_id("images", *(f"{candidate} {status} {sha256}" for candidate, status, sha256 in what)),
        num_candidates=rows.num_rows,
        num_images=rows.num_rows - failed.num_rows,
        num_fetched=num_fetched,
        dropped=dict(sorted(Counter(failed["status"].to_pylist()).items())),
        images=layout.relative(folder),
    )
