"""What the source shows today, against what it showed when its pages were last read: what stays, what is new, what is withdrawn and why.

A find belongs to the page or document that it was found on. What its owner says about that page goes for the find: an opt-out
withdraws it, and so does a page that was read and does not show it any more, or that has been taken down. A page that failed for a
moment, or was not asked, says nothing: its finds stay.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dalle_datasets.sources.base import Drop
from dalle_datasets.sources.discovered import FATES, FATES_FILE, FINDS, FOUND, FOUND_FILE, PAGE_GONE, READ, UNCHANGED, drop_row, find_row
from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.parquet import RowsWriter, iter_file
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS
from dalle_datasets.web.failures import OPT_OUTS

FINDS_FILE, CHOSEN_FILE, SETTLED_DROPS_FILE = "finds.parquet", "chosen.parquet", "settled_drops.parquet"
NOT_IN_SOURCE, CAPTION_CHANGED, NO_LONGER_SHOWN = "not_in_source", "caption_changed", "no_longer_shown"
WITHDRAWN = frozenset({PAGE_GONE, NOT_IN_SOURCE, CAPTION_CHANGED, NO_LONGER_SHOWN})
"""Why a find is none any more, other than by an opt-out."""


class Fate(NamedTuple):
    """What became of a page in this run: `READ`, `UNCHANGED`, `PAGE_GONE` or one of `OPT_OUTS`."""

    code: str
    detail: str = ""


@dataclass(slots=True)
class Settled:
    """How a discovery compares with the one before."""

    num_candidates: int = 0
    num_new: int = 0
    num_opted_out: int = 0
    """Finds that an opt-out withdrew."""
    num_absent: int = 0
    """Finds that are withdrawn for another reason."""
    absent: Counter[str] = field(default_factory=Counter)


class Fates:
    """The fates of the pages and documents that were asked in this run, and which of the earlier ones are the source's still."""

    def __init__(self, work: Path, covers: Callable[[str], bool]) -> None:
        self._covers = covers
        self.of: dict[str, Fate] = {}
        for batch in iter_file(work / FATES_FILE, FATES):
            for row in batch.to_pylist():
                self.of[row["page_url"]] = Fate(row["code"], row["detail"])

    def against(self, find: Mapping[str, Any]) -> Fate | None:
        """Why a find cannot be one, whether it is shown or not."""
        for page in (find["unit"], find["page_url"]):
            if (fate := self.of.get(page)) is not None and fate.code in OPT_OUTS:
                return fate
        return None

    def verdict(self, find: Mapping[str, Any], believes_absence: bool, emptied: frozenset[str]) -> Fate | None:
        """What this run says of an earlier find: None if it stays, else why not (`READ`: unless it was found again)."""
        if (against := self.against(find)) is not None:
            return against
        if not believes_absence or find["unit"] in emptied:
            return None
        if not self._covers(find["unit"]):
            return Fate(NOT_IN_SOURCE, "its page or file is not among those of the source any more")
        fate = self.of.get(find["unit"]) or Fate(UNCHANGED)
        gone = self.of.get(find["page_url"])
        return gone if gone is not None and gone.code == PAGE_GONE else None if fate.code == UNCHANGED else fate


def settle(work: Path, earlier: Path | None, fates: Fates, source: str, believes_absence: bool, emptied: frozenset[str]) -> Settled:
    """Write the finds that hold now, the candidates they make (not sorted), and the drops of the others into `work`."""
    settled = Settled()
    found = read_tables([work / FOUND_FILE], FOUND)
    with (
        RowsWriter(work / FINDS_FILE, FINDS) as finds,
        RowsWriter(work / CHOSEN_FILE, CANDIDATES) as chosen,
        RowsWriter(work / SETTLED_DROPS_FILE, DROPPED_PAIRS) as drops,
    ):
        for bucket in by_key(work, "address_id", earlier=_read_finds(earlier), found=found):
            rows = bucket["found"].sort_by([("reader", "ascending"), ("place", "ascending")]).to_pylist()
            then, now = _by_address(bucket["earlier"].to_pylist()), _by_address(rows)
            for address in sorted({*then, *now}):
                _settle_address(
                    _Address(then.get(address, []), now.get(address, [])), fates, believes_absence, emptied, settled,
                    lambda drop: drops.append(drop_row(drop, source)), finds, chosen,
                )  # fmt: skip
    settled.num_candidates = chosen.num_rows
    return settled


class _Address(NamedTuple):
    """The finds of one address: those of earlier runs, and those of this one in the order of reading."""

    then: list[dict[str, Any]]
    now: list[dict[str, Any]]


def _settle_address(
    address: _Address, fates: Fates, believes_absence: bool, emptied: frozenset[str], settled: Settled,
    drop: Callable[[Drop], None], finds: RowsWriter, chosen: RowsWriter,
) -> None:  # fmt: skip
    verdicts = [fates.verdict(find, believes_absence, emptied) for find in address.then]
    stays = [find for find, verdict in zip(address.then, verdicts, strict=True) if verdict is None]
    shown = [*stays]
    for find in address.now:
        if (against := fates.against(find)) is None:
            shown.append({**find, "is_candidate": False, "replaced_by": None})
        else:
            drop(_drop(find, against))
            settled.num_opted_out += 1
    corrected = _corrections(address, {find["unit"] for find, verdict in zip(address.then, verdicts, strict=True) if verdict is not None})
    captions = {find["candidate_id"]: find["caption"] for find in shown}
    for find, verdict in zip(address.then, verdicts, strict=True):
        id = find["candidate_id"]
        if id in captions or verdict is None or not find["is_candidate"]:
            continue
        if verdict.code == READ:
            newer = corrected.get(id)
            verdict = Fate(CAPTION_CHANGED, f"it says {newer['caption']!r} now") if newer else Fate(NO_LONGER_SHOWN, "not shown any more")
        drop(_drop(find, verdict))
        settled.num_opted_out += verdict.code in OPT_OUTS
        settled.num_absent += verdict.code not in OPT_OUTS
        settled.absent[verdict.code] += 1
    replaced_by = {find["candidate_id"]: find["replaced_by"] for find in address.then if find["replaced_by"]}
    replaced_by |= {id: newer["candidate_id"] for id, newer in corrected.items()}
    for newer in corrected.values():
        replaced_by.pop(newer["candidate_id"], None)
    place_of = {find["candidate_id"]: find["page_url"] for find in address.then if find["is_candidate"]}
    for id, of_id in _grouped(shown, "candidate_id"):
        first = next((find for find in of_id if find["page_url"] == place_of.get(id)), of_id[0])
        newer_id = replaced_by.get(id)
        newer_id = newer_id if newer_id in captions else None
        for find in of_id:
            is_candidate = find is first and newer_id is None
            finds.append({**find, "is_candidate": is_candidate, "replaced_by": newer_id})
            if is_candidate:
                chosen.append({name: find[name] for name in CANDIDATES.names})
                settled.num_new += id not in place_of
            elif newer_id is not None:
                drop(_drop(find, Fate(CAPTION_CHANGED, f"the same picture is called {captions[newer_id]!r} now")))
            else:
                drop(_drop(find, Fate("duplicate_candidate", f"already found on {first['page_url']}")))


def _corrections(address: _Address, asked: set[str]) -> dict[str, dict[str, Any]]:
    """Id of a caption that a page has replaced -> the find with its new caption."""
    corrected: dict[str, dict[str, Any]] = {}
    for unit in sorted(asked):
        before = {find["candidate_id"] for find in address.then if find["unit"] == unit}
        after = {find["candidate_id"]: find for find in reversed(address.now) if find["unit"] == unit}
        new = [find for id, find in after.items() if id not in before]
        corrected |= dict.fromkeys(before - after.keys(), new[-1]) if new else {}
    return corrected


def _drop(find: Mapping[str, Any], why: Fate) -> Drop:
    return Drop(why.code, why.detail, find["page_url"], find["image_url"], find["caption"])


def _by_address(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return dict(_grouped(rows, "image_url"))


def _grouped(rows: Iterable[dict[str, Any]], name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Rows by a value, in the order in which the values come first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    yield from groups.items()


def _read_finds(path: Path | None) -> Iterator[pa.Table]:
    """The finds of an earlier run; of one before there was such a file, its candidates."""
    if path is None or path.name == FINDS_FILE:
        yield from read_tables([path] if path else [], FINDS)
        return
    for table in read_tables([path], CANDIDATES):
        rows = [find_row({**row, "unit": row["document"] or row["page_url"]}) | {"is_candidate": True} for row in table.to_pylist()]
        yield pa.Table.from_pylist(rows, FINDS.with_metadata(None))


def units_of(path: Path) -> frozenset[str]:
    """The pages and documents that the finds of a file belong to."""
    if path.name == FINDS_FILE:
        return frozenset(itertools.chain.from_iterable(batch["unit"].to_pylist() for batch in iter_file(path, FINDS, ["unit"])))
    batches = iter_file(path, CANDIDATES, ["document", "page_url"])
    return frozenset(row["document"] or row["page_url"] for batch in batches for row in batch.to_pylist())
