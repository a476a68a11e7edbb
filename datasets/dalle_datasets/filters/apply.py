"""Stage 3: from downloaded candidates to pairs, with a reason for every candidate that does not become one.

Measuring (decoding, counting, naming the language) is separate from judging (comparing with thresholds), and judging from writing.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.failures import FAILURES
from dalle_datasets.filters import captions, images
from dalle_datasets.filters.base import KEEP, REASONS, Verdict
from dalle_datasets.filters.duplicates import Looked, Seen, judge_duplicates, judge_frequency, judge_near_duplicates, judge_overlaps
from dalle_datasets.filters.evaluation import EvaluationSet
from dalle_datasets.filters.hashes import Look
from dalle_datasets.filters.measure import BATCH_ROWS, measure_part
from dalle_datasets.identity import content_id, pair_id
from dalle_datasets.images import canonical_bytes
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import PartsWriter, list_parts, read_parquet, remove_stale, write_parquet
from dalle_datasets.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES, MEASURES, PAIRS
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.splits import split_of
from dalle_datasets.stage import Report, begin, finish, finished, inputs_id, silent

VERSION = 2
STAGES = ("discover", "download", "filter")


@dataclass(frozen=True, slots=True)
class FilterResult:
    """The usable pairs of a source."""

    pairs_id: str
    """Of the set of pairs and their splits, whatever the order and the parts."""
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


def filter_pairs(
    source: SourceConfig, download: DownloadConfig, filter: FilterConfig, shards: ShardsConfig, layout: Layout, report: Report = silent
) -> FilterResult:
    """Judge the downloaded candidates of a source and write its pairs and the drops of this stage.

    Raises `ValueError` when no pair is left, with the most frequent reasons and what to do about them.
    """
    parts = list_parts(layout.images(source.name))
    if not parts:
        raise ValueError(f"{layout.images(source.name)} holds no images; run download_images for source {source.name!r} first")
    candidates = _candidates(layout, source.name)
    inputs = inputs_id("filter", VERSION, filter, shards, download.max_pixels, _rows_id(parts, candidates))
    folder = layout.pairs(source.name)
    if (earlier := finished(folder, inputs)) is not None:
        return FilterResult(**{**earlier, "skipped": True})
    begin(folder)
    measures = _measure(parts, layout.measures(source.name), filter, download.max_pixels, report)
    verdicts, kept = _judge(parts, measures, candidates, filter, download.max_pixels)
    _write_drops(parts, verdicts, layout.dropped(source.name) / "filter.parquet")
    if not kept:
        raise ValueError(_explain_nothing(source.name, layout, verdicts))
    written = _write_pairs(parts, measures, kept, filter, shards, download.max_pixels, folder, report)
    splits = Counter(split for _, split in written)
    result = FilterResult(
        pairs_id=content_id("pairs", *(f"{pair} {split}" for pair, split in sorted(written))),
        num_pairs=len(written),
        num_train=splits["train"],
        num_validation=splits["validation"],
        dropped=dict(sorted(Counter(verdict.reason or "" for verdict in verdicts.values()).items())),
        dropped_by_stage=_count_drops(layout.dropped(source.name)),
        pairs=layout.relative(folder),
        dropped_pairs=layout.relative(layout.dropped(source.name)),
    )
    finish(folder, inputs, asdict(result))
    return result


def judge(row: dict[str, Any], limits: FilterConfig) -> Verdict:
    """The first rule that is against a row of `schemas.MEASURES` (with its caption), cheapest rules first; else `KEEP`."""
    rules: tuple[Callable[[], Verdict], ...] = (
        lambda: captions.judge_file_name(row["has_file_name"], row["caption"]),
        lambda: captions.judge_length(row["num_caption_words"], row["num_caption_letters"], limits),
        lambda: captions.judge_boilerplate(row["boilerplate_share"], limits),
        lambda: captions.judge_markup(row["has_markup"], limits),
        lambda: captions.judge_personal(row["has_personal"], limits),
        lambda: captions.judge_language(row["language"], limits),
        lambda: images.judge_decoding(row["image_problem"], row["image_detail"]),
        lambda: images.judge_size(row["width"], row["height"], limits),
        lambda: images.judge_aspect_ratio(row["width"], row["height"], limits),
        lambda: images.judge_contrast(row["contrast"], limits),
    )
    verdicts = (rule() for rule in rules)
    return next((verdict for verdict in verdicts if verdict.reason), KEEP)


def _candidates(layout: Layout, source: str) -> frozenset[str]:
    """Ids of the current candidates; images of earlier ones may still lie about."""
    return frozenset(read_parquet(candidates_path(layout, source), CANDIDATES, ["candidate_id"])["candidate_id"].to_pylist())


def _rows_id(parts: list[Path], candidates: frozenset[str]) -> str:
    """Of what there is to judge."""
    rows = []
    for part in parts:
        table = read_parquet(part, IMAGES, ["candidate_id", "status", "sha256"])
        rows += [
            f"{c} {status} {sha256}"
            for c, status, sha256 in zip(*(column.to_pylist() for column in table.columns), strict=True)
            if c in candidates
        ]
    return content_id(*rows)


def _measure(parts: list[Path], folder: Path, filter: FilterConfig, max_pixels: int, report: Report) -> list[pa.Table]:
    """The measures of every part, measured now or earlier."""
    total = sum(pq.read_metadata(part).num_rows for part in parts)
    done = 0
    for part in parts:
        done += measure_part(part, folder / part.name, filter, max_pixels)
        report(done, total, "candidates")
    remove_stale(folder, keep=[folder / part.name for part in parts])
    return [read_parquet(folder / part.name, MEASURES) for part in parts]


def _judge(
    parts: list[Path], measures: list[pa.Table], candidates: frozenset[str], filter: FilterConfig, max_pixels: int
) -> tuple[dict[str, Verdict], frozenset[str]]:
    """(candidate id -> verdict against it, candidate ids that stay): each by itself first, then all together."""
    verdicts: dict[str, Verdict] = {}
    kept: dict[str, tuple[Seen, Looked]] = {}
    for part, table in zip(parts, measures, strict=True):
        caption_of = _captions(part)
        for row in table.to_pylist():
            if row["candidate_id"] not in candidates:
                continue
            caption = caption_of[row["candidate_id"]]
            verdict = judge({**row, "caption": caption}, filter)
            if verdict.reason:
                verdicts[row["candidate_id"]] = verdict
                continue
            look = Look(row["phash"], row["dhash"], row["thumbnail"], row["contrast"])
            seen = Seen(row["pixel_sha256"], row["candidate_id"], caption)
            kept[row["candidate_id"]] = (seen, Looked(row["width"] * row["height"], row["candidate_id"], row["pixel_sha256"], look))

    def judge_together(rule: Callable[[list[Seen], list[Looked]], dict[str, Verdict]]) -> None:
        against = rule([seen for seen, _ in kept.values()], [looked for _, looked in kept.values()])
        verdicts.update(against)
        for candidate_id in against:
            del kept[candidate_id]

    judge_together(lambda seen, looked: judge_frequency(seen, filter))
    if filter.evaluation_images:
        evaluation = EvaluationSet(filter.evaluation_images, max_pixels)
        judge_together(lambda seen, looked: judge_overlaps(looked, evaluation))
    judge_together(lambda seen, looked: judge_duplicates(seen, filter.captions_per_image))
    if filter.near_duplicates:
        judge_together(lambda seen, looked: judge_near_duplicates(looked, filter.min_contrast))
    return verdicts, frozenset(kept)


def _captions(part: Path) -> dict[str, str]:
    table = read_parquet(part, IMAGES, ["candidate_id", "caption"])
    return dict(zip(table["candidate_id"].to_pylist(), table["caption"].to_pylist(), strict=True))


def _write_pairs(
    parts: list[Path], measures: list[pa.Table], kept: frozenset[str], filter: FilterConfig, shards: ShardsConfig, max_pixels: int,
    folder: Path, report: Report,
) -> list[tuple[int, str]]:  # fmt: skip
    """Write the rows that stay; returns (pair id, split) of each."""
    written = []
    with PartsWriter(folder, PAIRS, shards.rows_per_part, shards.row_group_size) as writer:
        for part, table in zip(parts, measures, strict=True):
            measured = {row["candidate_id"]: row for row in table.to_pylist() if row["candidate_id"] in kept}
            for row in _rows(part, kept):
                pair = _pair(row, measured[row["candidate_id"]], filter, max_pixels)
                written.append((pair["pair_id"], pair["split"]))
                writer.append(pair)
            report(len(written), len(kept), "pairs")
    return written


def _rows(part: Path, wanted: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Rows of some candidates, few at a time in memory."""
    with pq.ParquetFile(part) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from (row for row in batch.to_pylist() if row["candidate_id"] in wanted)


def _pair(row: dict[str, Any], measured: dict[str, Any], filter: FilterConfig, max_pixels: int) -> dict[str, Any]:
    """One row of `schemas.PAIRS`."""
    return {
        "pair_id": pair_id(row["sha256"], row["caption"]),
        "caption": row["caption"],
        "image": row["image"] if measured["is_plain"] else canonical_bytes(row["image"], max_pixels),
        "width": measured["width"],
        "height": measured["height"],
        "sha256": row["sha256"],
        "pixel_sha256": measured["pixel_sha256"],
        "split": split_of(measured["pixel_sha256"], filter.validation_share),
        "num_caption_words": measured["num_caption_words"],
        "aspect_ratio": images.aspect_ratio(measured["width"], measured["height"]),
        "language": measured["language"],
        "source": row["source"],
        "page_url": row["page_url"],
        "image_url": row["image_url"],
        "candidate_id": row["candidate_id"],
    }


def _write_drops(parts: list[Path], verdicts: dict[str, Verdict], path: Path) -> None:
    """In the order of the candidate ids."""
    columns = ["candidate_id", "source", "caption", "image_url", "page_url"]
    drops = [
        {**row, "stage": "filter", "reason": verdicts[row["candidate_id"]].reason, "detail": verdicts[row["candidate_id"]].detail}
        for part in parts
        for row in read_parquet(part, IMAGES, columns).to_pylist()
        if row["candidate_id"] in verdicts
    ]
    drops.sort(key=lambda row: row["candidate_id"])
    write_parquet(path, pa.Table.from_pylist(drops, schema=DROPPED_PAIRS), DROPPED_PAIRS)


def _count_drops(folder: Path) -> dict[str, dict[str, int]]:
    """Stage -> reason -> count, over the drops of all stages."""
    counts = {}
    for stage in STAGES:
        reasons = read_parquet(folder / f"{stage}.parquet", DROPPED_PAIRS, ["reason"])["reason"].to_pylist()
        counts[stage] = dict(sorted(Counter(reasons).items()))
    return counts


def _explain_nothing(source: str, layout: Layout, verdicts: dict[str, Verdict]) -> str:
    """Why no pair is left: the most frequent reasons of download and filter, and what to do about the first."""
    failures = read_parquet(layout.dropped(source) / "download.parquet", DROPPED_PAIRS, ["reason"])["reason"].to_pylist()
    reasons = Counter(failures) + Counter(verdict.reason or "" for verdict in verdicts.values())
    top = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    first = reasons.most_common(1)[0][0]
    meaning, remedy = REASONS.get(first) or (FAILURES[first].meaning, "see dropped/ for the addresses")
    return (
        f"source {source!r}: no pairs left after filtering {len(failures) + len(verdicts)} candidates ({top}); "
        f"most are {first}: {meaning}; {remedy}"
    )
