"""Stage 2: fetch the bytes behind every candidate, exactly as they came, with one row for every candidate whatever happens.

Every address is asked for once, however many captions it has. A first pass goes through img2dataset; URLs whose failure may
be temporary are asked again in a few passes. Rows of earlier runs are kept, so a later run fetches only what is new; those that the
source has withdrawn since go, with their bytes.
"""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.fetching import FETCHED
from dalle_datasets.download.passes import fetch_all, fetched_rows, image_limits
from dalle_datasets.download.recheck import (
    CHANGED,
    SEEN_FILE,
    Outcome,
    SeenLog,
    apply_outcomes,
    concerns,
    is_withdrawal,
    recheck,
    write_seen,
)
from dalle_datasets.download.shards import Shards, write_shards
from dalle_datasets.sources.blocked import BlockList, read_blocks
from dalle_datasets.sources.discover import candidates_id, candidates_path, recorded_documents_id
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.sources.opening import open_source
from dalle_datasets.sources.settle import NOT_IN_SOURCE, WITHDRAWN
from dalle_datasets.sources.tables import IN_TABLE
from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.identity import deciding, fingerprint
from dalle_datasets.store.ids import content_id, content_id_of
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import Report, commit, invalidate, load_if_current, no_progress
from dalle_datasets.store.parquet import RowsWriter, atomic_path, list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import FAILURES, FORGOTTEN, OK, OPT_OUTS

VERSION = 1
OUTCOMES_FILE = "outcomes.json"
_TAKEN_BACK = OPT_OUTS | {"http_4xx", "missing_file"}
"""Failures that last, but not for ever."""
_UNWANTED = pa.array(sorted((OPT_OUTS | WITHDRAWN) - {NOT_IN_SOURCE}))
"""Reasons of discovery for which bytes that are here go. What other settings left out may come back with them."""
FROM_CANDIDATE = ("candidate_id", "image_url", "caption", "page_url", "source")


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What the download brought."""

    images_id: str
    num_candidates: int
    num_images: int
    """Candidates whose bytes are here."""
    num_fetched: int
    """URLs that were asked for in this run; the others were known."""
    dropped: dict[str, int]
    images: str
    """Folder of the images, relative to the data root."""
    skipped: bool = False
    """True if nothing had to be done."""


def download_images(
    source: SourceConfig, download: DownloadConfig, layout: Layout, report: Report = no_progress, refresh: bool = False
) -> DownloadResult:
    """Fetch what the candidates of a source point to.

    With `refresh` the pictures that are here are asked for again: their owners may have opted out, taken them down or replaced them.
    Files on this machine are looked at whenever discovery saw a change. What is on the block list is not asked for, nor its bytes kept.
    Raises `ValueError` when there are no candidates, or when img2dataset cannot be started.
    """
    path = candidates_path(layout, source.name)
    if not path.exists():
        raise ValueError(f"{path} does not exist; run discover for source {source.name!r} first")
    settings, blocks = _settings_id(source, download), read_blocks(layout)
    folder = layout.images(source.name)
    documents = recorded_documents_id(layout, source.name)
    inputs = fingerprint("download", VERSION, settings, candidates_id(path), *([documents] if documents else []))
    earlier = load_if_current(folder, inputs)
    if earlier is not None and not refresh:
        return DownloadResult(**{**earlier, "num_fetched": 0, "skipped": True})
    work = folder / f"work-{fingerprint(inputs, download.urls_per_shard)}"
    for other in folder.glob("work-*"):
        if other != work:
            shutil.rmtree(other)
    was_killed = (work / OUTCOMES_FILE).exists()
    if not (work / "plan.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        unwanted = _withdrawn_ids(layout, source.name, work)
        _keep_earlier_rows(folder, work / "parts", settings, unwanted, asks_again=refresh or bool(documents))
        outcomes = _recheck(path, layout, work, source, download, refresh, report)
        shards = _plan_shards(path, work, source, download, outcomes, blocks)
        if earlier is not None and not outcomes and not len(shards) and not len(unwanted):
            write_seen(layout.source(source.name) / SEEN_FILE, work / "seen", work)
            shutil.rmtree(work)
            return DownloadResult(**{**earlier, "num_fetched": 0, "skipped": True})
        fetch_all(shards, work, source, download, report)
        kept = list_parts(work / "parts")
        fetched = _write_parts(shards, work, settings, outcomes, blocks)
        _withdraw(kept, outcomes, fetched, settings)
        write_seen(layout.source(source.name) / SEEN_FILE, work / "seen", work)
        plan = {"num_fetched": shards.num_urls, "parts": [part.name for part in list_parts(work / "parts")]}
        with atomic_path(work / "plan.json") as partial:
            partial.write_text(json.dumps(plan))
    # From here on, everything is decided: a killed run continues with the same parts.
    invalidate(folder)
    plan = json.loads((work / "plan.json").read_text())
    for name in plan["parts"]:
        if (work / "parts" / name).exists():
            (work / "parts" / name).replace(folder / name)
    for part in list_parts(folder):
        if part.name not in plan["parts"]:
            part.unlink()
    result = _summarize(source, layout, work, plan["num_fetched"])
    commit(folder, inputs, asdict(result))
    shutil.rmtree(work)
    # What a killed run had asked may be old by now.
    return download_images(source, download, layout, report, refresh) if refresh and was_killed else result


def _settings_id(source: SourceConfig, download: DownloadConfig) -> str:
    """What decides whether a URL gives bytes; how fast and by whom it is asked does not count."""
    settings = deciding(download)
    del settings["max_pixels"]  # decides which bytes are decoded: the filters' business
    return fingerprint(source.user_agent, *settings.values())


def _withdrawn_ids(layout: Layout, source: str, work: Path) -> pa.Array:
    """Ids of the rows here that are no candidates any more because of their page: it opted out, is gone, or shows something else."""
    drops = layout.dropped(source) / "discover.parquet"
    said = read_tables([drops] if drops.exists() else [], DROPPED_PAIRS, ["candidate_id", "reason"])
    reasons = (table.filter(pc.is_in(table["reason"], _UNWANTED)) for table in said)
    here = read_tables(list_parts(layout.images(source)), IMAGES, ["candidate_id"])
    current = read_tables([candidates_path(layout, source)], CANDIDATES, ["candidate_id"])
    ids: list[str] = []
    for bucket in by_key(work, "candidate_id", here=here, dropped=reasons, current=current):
        here_ids, dropped, candidates = (bucket[name]["candidate_id"].combine_chunks() for name in ("here", "dropped", "current"))
        is_withdrawn = pc.and_(pc.is_in(here_ids, dropped), pc.invert(pc.is_in(here_ids, candidates)))
        ids += here_ids.filter(is_withdrawn).to_pylist()
    return pa.array(ids, pa.string())


def _keep_earlier_rows(folder: Path, parts_dir: Path, settings: str, unwanted: pa.Array, asks_again: bool) -> None:
    """Put rows that need not be fetched again into `parts_dir`, but those with the ids `unwanted`.

    Failures that may have passed since are asked for again, with `asks_again` also what was withdrawn or missing; fetched under other
    settings, every failure may be none now.
    """
    shutil.rmtree(parts_dir, ignore_errors=True)
    parts_dir.mkdir(parents=True)
    final = pa.array(
        [OK, *(code for code, failure in FAILURES.items() if not failure.retryable and not (asks_again and code in _TAKEN_BACK))]
    )
    for part in list_parts(folder):
        target = _next_part(parts_dir)
        same_settings = (pq.read_metadata(part).metadata or {}).get(b"settings") == settings.encode()
        rows = read_parquet(part, IMAGES, ["candidate_id", "status"])
        keep = pc.is_in(rows["status"], final if same_settings else final[:1])
        is_unwanted = pc.is_in(rows["candidate_id"], unwanted)
        keep = pc.and_(keep, pc.invert(is_unwanted))
        if same_settings and pc.all(keep, min_count=0).as_py():
            target.hardlink_to(part)
        elif pc.any(keep).as_py() or pc.any(is_unwanted).as_py():  # an empty part keeps the numbers of the others
            write_parquet(target, read_parquet(part, IMAGES).filter(keep), IMAGES, metadata={"settings": settings})


def _recheck(
    candidates: Path, layout: Layout, work: Path, source: SourceConfig, download: DownloadConfig, refresh: bool, report: Report
) -> dict[str, Outcome]:
    """What is different about the pictures that are here; decided once, whatever a killed run has done about it."""
    path = work / OUTCOMES_FILE
    if path.exists():
        return {url: Outcome(*outcome) for url, outcome in json.loads(path.read_text()).items()}
    log = SeenLog(work / "seen")
    version_of = LocalReader(source.inputs, download.max_bytes).version if recorded_documents_id(layout, source.name) else None
    with open_source(source) as (_, connect_to):
        client = PoliteClient(image_limits(source, download, connect_to), download.requests_per_s_per_host) if refresh else None
        seen = layout.source(source.name) / SEEN_FILE
        outcomes = recheck(candidates, work / "parts", seen, work, log, client, version_of, download.num_threads, report)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(outcomes))
    return outcomes


def _withdraw(parts: list[Path], outcomes: dict[str, Outcome], fetched: dict[str, bool], settings: str) -> None:
    """Take the bytes of withdrawn and replaced pictures out of the parts of earlier runs."""
    for part in parts:
        if concerns(read_parquet(part, IMAGES, ["image_url"])["image_url"].to_pylist(), outcomes, fetched):
            table = apply_outcomes(read_parquet(part, IMAGES), outcomes, fetched)
            write_parquet(part, table, IMAGES, metadata={"settings": settings})


def _plan_shards(
    candidates: Path, work: Path, source: SourceConfig, download: DownloadConfig, outcomes: dict[str, Outcome], blocks: BlockList
) -> Shards:
    """The candidates that no earlier run has the bytes of, or whose bytes are others now, by URL."""
    changed = pa.array([url for url, outcome in outcomes.items() if outcome.code == CHANGED], pa.string())
    path, schema = work / "wanted.parquet", pa.schema([IMAGES.field(name) for name in FROM_CANDIDATE])

    def wanted() -> Iterator[pa.Table]:
        found = read_tables([candidates], CANDIDATES, schema.names)
        kept = read_tables(list_parts(work / "parts"), IMAGES, ["candidate_id"])
        for bucket in by_key(work, "candidate_id", found=found, kept=kept):
            is_kept = pc.is_in(bucket["found"]["candidate_id"], bucket["kept"]["candidate_id"].combine_chunks())
            table = bucket["found"].filter(pc.or_(pc.invert(is_kept), pc.is_in(bucket["found"]["image_url"], changed)))
            places = zip(table["image_url"].to_pylist(), table["page_url"].to_pylist(), strict=True)
            table = table.filter(pa.array([not blocks.has_address(*place) for place in places], pa.bool_()))
            yield table.append_column("order", pa.array([_place(url) for url in table["image_url"].to_pylist()], pa.string()))

    def rows() -> Iterator[dict[str, Any]]:
        for bucket in by_key(work, "order", wanted=wanted()):
            yield from sorted(bucket["wanted"].to_pylist(), key=itemgetter("order", "image_url", "candidate_id"))

    write_shards(path, rows(), schema, download.urls_per_shard)
    return Shards(path, download.urls_per_shard)


def _place(image_url: str) -> str:
    """A hash, so that the pictures of one host do not all come at once; those of one tar or table do, because it is read for them."""
    is_of_one = image_url.startswith(("tar:", IN_TABLE))
    return content_id("url", image_url.partition("/")[0] if is_of_one else image_url)


def _write_parts(shards: Shards, work: Path, settings: str, outcomes: dict[str, Outcome], blocks: BlockList) -> dict[str, bool]:
    """One part for every shard: a row for each candidate of its URLs, in the order of their ids.

    Returns changed URL -> whether it brought something that counts: if it only failed for a moment, what was here stays.
    """
    came: dict[str, bool] = {}
    for number in range(len(shards)):
        part = shards.rows(number).sort_by("candidate_id")
        fetched = _without_forgotten(fetched_rows(work, shards, number, FETCHED.names), blocks)
        for row in fetched.select(["image_url", "status", "error"]).to_pylist():
            if row["image_url"] in outcomes:
                came[row["image_url"]] = row["status"] == OK or is_withdrawal(row["status"], row["error"])
        fetched = fetched.take(pc.index_in(part["image_url"], fetched["image_url"].combine_chunks()))
        for column in ("status", "error", "sha256", "image"):
            part = part.append_column(column, fetched[column])
        part = part.filter(pa.array([came.get(url, True) for url in part["image_url"].to_pylist()], pa.bool_()))
        write_parquet(_next_part(work / "parts"), part, IMAGES, metadata={"settings": settings})
    return came


def _without_forgotten(fetched: pa.Table, blocks: BlockList) -> pa.Table:
    """The rows of a shard without the bytes of pictures that are on the block list; the filters take out what is left of them."""
    rows = fetched.drop_columns("image").to_pylist()
    is_forgotten = [blocks.has_picture(row["sha256"]) for row in rows]
    if not any(is_forgotten):
        return fetched
    blank = {"status": FORGOTTEN, "error": None, "sha256": None}
    about = pa.Table.from_pylist([row | blank if gone else row for row, gone in zip(rows, is_forgotten, strict=True)], fetched.schema)
    kept = pc.if_else(pa.array(is_forgotten), pa.scalar(None, pa.binary()), fetched["image"])
    return about.set_column(about.schema.get_field_index("image"), "image", kept)


def _next_part(parts_dir: Path) -> Path:
    return parts_dir / f"part-{len(list_parts(parts_dir)):05d}.parquet"


def _summarize(source: SourceConfig, layout: Layout, work: Path, num_fetched: int) -> DownloadResult:
    """Write the drops of this stage and count."""
    folder = layout.images(source.name)
    dropped: Counter[str] = Counter()
    num_candidates = 0

    def outcomes() -> Iterator[str]:
        nonlocal num_candidates
        current = read_tables([candidates_path(layout, source.name)], CANDIDATES, ["candidate_id"])
        columns = ["candidate_id", "source", "status", "error", "caption", "image_url", "page_url", "sha256"]
        for bucket in by_key(work, "candidate_id", current=current, rows=read_tables(list_parts(folder), IMAGES, columns)):
            is_current = pc.is_in(bucket["rows"]["candidate_id"], bucket["current"]["candidate_id"].combine_chunks())
            for row in bucket["rows"].filter(is_current).sort_by("candidate_id").to_pylist():
                num_candidates += 1
                if row["status"] != OK:
                    dropped[row["status"]] += 1
                    drops.append({**row, "stage": "download", "reason": row["status"], "detail": row["error"] or ""})
                yield f"{row['candidate_id']} {row['status']} {row['sha256']}"

    with RowsWriter(layout.dropped(source.name) / "download.parquet", DROPPED_PAIRS) as drops:
        images_id = content_id_of(itertools.chain(["images"], outcomes()))
    return DownloadResult(
        images_id=images_id,
        num_candidates=num_candidates,
        num_images=num_candidates - dropped.total(),
        num_fetched=num_fetched,
        dropped=dict(sorted(dropped.items())),
        images=layout.relative(folder),
    )
