"""Stage 3: from downloaded candidates to pairs, with a reason for every candidate that does not become one.

Measuring (decoding, counting, naming the language) is separate from judging (comparing with thresholds), and judging from writing.
All three take one part at a time; what must be known of all candidates at once is in `filters.candidate_table`.
"""

import itertools
import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.filters.base import REASONS
from dalle_datasets.filters.candidate_table import NOT_CURRENT, CandidateTable, ids_of
from dalle_datasets.filters.candidates import CurrentCandidates, read_candidates
from dalle_datasets.filters.duplicates import CODES, explain
from dalle_datasets.filters.evaluation import captions_id, evaluation_id, fold_caption, read_evaluation_captions, read_evaluation_set
from dalle_datasets.filters.forgetting import find_forgotten, forget_in_source
from dalle_datasets.filters.judge import judge, judge_together
from dalle_datasets.filters.measure import measure_part
from dalle_datasets.filters.pair_parts import Kept, write_pairs
from dalle_datasets.sources.blocked import add_blocks, read_blocks
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.identity import fingerprint
from dalle_datasets.store.ids import content_id_of
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import Report, commit, invalidate, load_if_current, no_progress
from dalle_datasets.store.parquet import (
    RowsWriter,
    check_parquet,
    iter_file,
    list_parts,
    read_parquet,
    remove_stale,
)
from dalle_datasets.store.schemas import DROPPED_PAIRS, IMAGES, MEASURES
from dalle_datasets.web.failures import FAILURES

logger = logging.getLogger(__name__)

VERSION = 5
STAGES = ("discover", "download", "filter")


@dataclass(frozen=True, slots=True)
class FilterResult:
    """The usable pairs of a source."""

    pairs_id: str
    """An id of the set of pairs and their splits, independent of order and parts."""
    num_pairs: int
    num_train: int
    num_validation: int
    dropped: dict[str, int]
    """By this stage."""
    dropped_by_stage: dict[str, dict[str, int]]
    """Stage -> reason -> count: everything that was found and is no pair."""
    pairs: str
    """Folder of the pairs, relative to the data root."""
    dropped_pairs: str
    """Folder of the drops of all stages, relative to the data root."""
    skipped: bool = False
    """True if nothing had to be done."""


class NoPairsLeft(ValueError):
    """Not one candidate is a pair, and what an earlier collection left is gone too; the drops of all stages are written."""


def filter_pairs(
    source: SourceConfig,
    download: DownloadConfig,
    settings: FilterConfig,
    shards: ShardsConfig,
    layout: Layout,
    report: Report = no_progress,
) -> FilterResult:
    """Judge the downloaded candidates of a source and write its pairs and the drops of this stage.

    A picture that was forgotten and comes back under another address is taken out of all files of the source.
    Raises `NoPairsLeft` when no pair is left, with the most frequent reasons and what to do about them.
    """
    parts = list_parts(layout.images(source.name))
    if not parts:
        raise ValueError(f"{layout.images(source.name)} holds no images; run download_images for source {source.name!r} first")
    candidates = read_candidates(candidates_path(layout, source.name))
    evaluation, blocks = evaluation_id(settings.evaluation_images), read_blocks(layout)
    rows_id = content_id_of(_rows_to_judge(parts, candidates))
    captions = [captions_id(settings.evaluation_captions)] if settings.evaluation_captions else []
    inputs = fingerprint("filter", VERSION, settings, evaluation, shards, download.max_pixels, rows_id, *blocks.ids, *captions)
    folder = layout.pairs(source.name)
    if (earlier := load_if_current(folder, inputs)) is not None:
        return FilterResult(**{**earlier, "skipped": True})
    invalidate(folder)
    measures = _measure(parts, layout.measures(source.name), settings, download.max_pixels, report)
    if len(blocks) and (found := find_forgotten(layout, blocks, [source.name])).candidate_ids:
        logger.info("%d finds of source %r are on the block list and are taken out", len(found.candidate_ids), source.name)
        add_blocks(layout, found.blocks)  # their other addresses are not asked again
        forget_in_source(layout, source.name, found, blocks)
        return filter_pairs(source, download, settings, shards, layout, report)
    columns, names = _judge(parts, measures, candidates, settings, download.max_pixels)
    dropped = _write_drops(parts, measures, columns, names, settings, layout.dropped(source.name) / "filter.parquet")
    if not (columns.drops.codes == 0).any():
        remove_stale(folder, keep=())  # what was withdrawn must not be trained on because it was all there was
        raise NoPairsLeft(_explain_nothing(source.name, layout, dropped))
    kept = Kept(parts, measures, columns, candidates, settings, download.max_pixels)
    pairs_id, num_train, num_validation = write_pairs(kept, folder, shards, report)
    result = FilterResult(
        pairs_id=pairs_id,
        num_pairs=num_train + num_validation,
        num_train=num_train,
        num_validation=num_validation,
        dropped=dict(sorted(dropped.items())),
        dropped_by_stage=_count_drops(layout.dropped(source.name)),
        pairs=layout.relative(folder),
        dropped_pairs=layout.relative(layout.dropped(source.name)),
    )
    commit(folder, inputs, asdict(result))
    return result


def _rows_to_judge(parts: list[Path], candidates: CurrentCandidates) -> Iterator[str]:
    """What decides the result, one line for each current candidate."""
    for part in parts:
        table = read_parquet(part, IMAGES, ["candidate_id", "status", "sha256"])
        table = table.filter(pa.array(candidates.are_in(ids_of(table["candidate_id"]))))
        for candidate_id, status, sha256 in zip(*(column.to_pylist() for column in table.columns), strict=True):
            yield f"{candidate_id} {status} {sha256}"
    for candidate_id, codes in zip(candidates.ids.tolist(), candidates.origins.tolist(), strict=True):
        if any(codes):
            yield f"{candidate_id:016x} {[candidates.values[code] for code in codes]}"


def _measure(parts: list[Path], folder: Path, settings: FilterConfig, max_pixels: int, report: Report) -> list[Path]:
    """The measures of every part, measured now or earlier."""
    total = sum(pq.read_metadata(part).num_rows for part in parts)
    measures = [folder / part.name for part in parts]
    arguments = (parts, measures, itertools.repeat(settings), itertools.repeat(max_pixels))

    def report_all(sizes: Iterable[int]) -> None:
        for done in itertools.accumulate(sizes):
            report(done, total, "candidates")

    if settings.num_processes == 1:
        report_all(map(measure_part, *arguments))
    else:
        try:
            # Not forked: a flow runs in a process with threads.
            with ProcessPoolExecutor(settings.num_processes, multiprocessing.get_context("spawn")) as pool:
                report_all(pool.map(measure_part, *arguments))
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that measured pictures of {folder.name} was ended, most likely for want of memory; lower filter.num_processes "
                "or download.max_pixels and run the stage again: parts that are measured are kept"
            ) from error
    remove_stale(folder, keep=measures)
    return measures


def _judge(
    parts: list[Path], measures: list[Path], candidates: CurrentCandidates, settings: FilterConfig, max_pixels: int
) -> tuple[CandidateTable, list[str]]:
    """Every measured row judged, in the order of the parts; and the names of the evaluation pictures."""
    num_rows = sum(check_parquet(path, MEASURES).num_rows for path in measures)
    columns = CandidateTable.empty(num_rows, has_fingerprints=settings.near_duplicates or bool(settings.evaluation_images))
    avoided = read_evaluation_captions(settings.evaluation_captions)
    for part, table, rows in _measured(parts, measures):
        caption_of = _texts(part, ["caption"])
        captions = [caption_of[candidate_id]["caption"] for candidate_id in table["candidate_id"].to_pylist()]
        columns.fill(rows.start, table, captions)
        codes = columns.drops.codes[rows]
        codes[:] = [
            CODES[reason] if (reason := judge({**row, "caption": caption}, settings).reason) else 0
            for row, caption in zip(table.to_pylist(), captions, strict=True)
        ]
        if avoided:
            is_avoided = np.array([fold_caption(caption) in avoided for caption in captions], bool)
            codes[(codes == 0) & is_avoided] = CODES["evaluation_caption"]
        codes[~candidates.are_in(columns.candidates[rows])] = NOT_CURRENT
    evaluation = read_evaluation_set(settings.evaluation_images, max_pixels) if settings.evaluation_images else None
    judge_together(columns, settings, evaluation)
    return columns, evaluation.names if evaluation else []


def _measured(parts: list[Path], measures: list[Path]) -> Iterator[tuple[Path, pa.Table, slice]]:
    """Each part of images, its measures, and where its rows lie among those of all parts."""
    first = 0
    for part, path in zip(parts, measures, strict=True):
        table = read_parquet(path, MEASURES)
        yield part, table, slice(first, first + table.num_rows)
        first += table.num_rows


def _texts(part: Path, fields: list[str]) -> dict[str, dict[str, Any]]:
    """Candidate id -> some fields of a part of images."""
    return {row["candidate_id"]: row for row in read_parquet(part, IMAGES, ["candidate_id", *fields]).to_pylist()}


def _write_drops(
    parts: list[Path], measures: list[Path], columns: CandidateTable, names: list[str], settings: FilterConfig, path: Path
) -> Counter[str]:
    """Reason -> count of this stage's drops, written in the order of the parts."""
    dropped: Counter[str] = Counter()
    with RowsWriter(path, DROPPED_PAIRS) as writer:
        for part, table, rows in _measured(parts, measures):
            text_of = _texts(part, ["source", "caption", "image_url", "page_url"])
            codes = columns.drops.codes[rows]
            is_dropped = (codes != 0) & (codes != NOT_CURRENT)
            places = rows.start + np.flatnonzero(is_dropped)
            for place, row in zip(places, table.filter(pa.array(is_dropped)).to_pylist(), strict=True):
                text = text_of[row["candidate_id"]]
                verdict = judge({**row, **text}, settings)
                if not verdict.reason:
                    verdict = explain(int(columns.drops.codes[place]), int(columns.drops.evidence[place]), names)
                dropped[verdict.reason or ""] += 1
                writer.append({**text, "stage": "filter", "reason": verdict.reason, "detail": verdict.detail})
    return dropped


def _count_drops(folder: Path) -> dict[str, dict[str, int]]:
    """Stage -> reason -> count, over the drops of all stages."""
    counts = {}
    for stage in STAGES:
        reasons: Counter[str] = Counter()
        for batch in iter_file(folder / f"{stage}.parquet", DROPPED_PAIRS, ["reason"]):
            reasons.update(batch["reason"].to_pylist())
        counts[stage] = dict(sorted(reasons.items()))
    return counts


def _explain_nothing(source: str, layout: Layout, dropped: Counter[str]) -> str:
    """Why no pair is left: the most frequent reasons of download and filter, and what to do about the first."""
    by_stage = _count_drops(layout.dropped(source))
    reasons = Counter(by_stage["download"]) + dropped or Counter(by_stage["discover"])
    top = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    first = reasons.most_common(1)[0][0]
    meaning, remedy = REASONS.get(first) or (
        FAILURES[first].meaning if first in FAILURES else "said by the page",
        "see dropped/ for the addresses",
    )
    return f"source {source!r}: no pairs left after filtering {reasons.total()} candidates ({top}); most are {first}: {meaning}; {remedy}"
