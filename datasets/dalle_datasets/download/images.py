"""Stage 2: fetch the bytes behind every candidate, exactly as they came, with one row for every candidate whatever happens.

Every address is asked for once, however many captions it has. A first pass goes through img2dataset; addresses whose failure may
be temporary are asked again in a few passes. Rows of earlier runs are kept, so a later run fetches only what is new.
"""

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.failures import FAILURES, OK
from dalle_datasets.download.passes import cut, fetch_all, fetched_rows
from dalle_datasets.identity import content_id
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import atomic_path, list_parts, read_parquet, write_parquet
from dalle_datasets.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.stage import Report, begin, finish, finished, inputs_id, silent

VERSION = 1


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
        # By hash, so that the pictures of one host do not all come at once.
        image_urls = sorted(pc.unique(new["image_url"]).to_pylist(), key=lambda url: content_id("url", url))
        fetch_all(image_urls, work, source, download, report)
        _write_parts(new, image_urls, work, settings, download.urls_per_shard)
        plan = {"num_fetched": len(image_urls), "parts": [part.name for part in list_parts(work / "parts")]}
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


def _write_parts(new: pa.Table, image_urls: list[str], work: Path, settings: str, urls_per_shard: int) -> None:
    """One part for every shard: a row for each candidate of its addresses, in the order of their ids."""
    ids = new["candidate_id"].to_pylist()
    by_url: dict[str, list[int]] = {}
    for row, url in enumerate(new["image_url"].to_pylist()):
        by_url.setdefault(url, []).append(row)
    for number, shard in enumerate(cut(image_urls, urls_per_shard)):
        fetched = fetched_rows(work, number, shard)
        rows = sorted((ids[row], row, url) for url in shard for row in by_url[url])
        found = new.take(pa.array([row for _, row, _ in rows], pa.int64()))
        place = {url: i for i, url in enumerate(fetched["image_url"].to_pylist())}
        fetched = fetched.take(pa.array([place[url] for _, _, url in rows], pa.int64()))
        part = found.select(["candidate_id", "image_url", "caption", "page_url", "source"])
        for column in ("status", "error", "sha256", "image"):
            part = part.append_column(column, fetched[column])
        target = work / "parts" / f"part-{len(list_parts(work / 'parts')):05d}.parquet"
        write_parquet(target, part, IMAGES, metadata={"settings": settings})


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
