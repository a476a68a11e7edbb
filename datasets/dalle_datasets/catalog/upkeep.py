"""Keeping a data root in order: tables against files, artefacts that nothing refers to, a catalog file without holes."""

import json
import platform
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dalle_datasets.catalog.connection import OnWait, compacted, open_published
from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.ids import file_sha256
from dalle_datasets.store.layout import RUN_RESULT, Layout

_LEDGERED = (
    *(f"{name}/*/*.parquet" for name in ("pairs", "dropped", "collections", "text_tokens", "image_tokens", "clip_scores", "safety_scores")),
    "image_tokens/*/dropped/*.parquet",
    "training_sets/*/manifest.json",
)
"""Where every file must be in the ledger."""
_GRACE_S = 24 * 3600.0
"""What was touched more recently may be of work that goes on."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One file in which tables and data root disagree."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that may go."""

    path: str
    reason: str
    num_bytes: int


def compare_with_files(layout: Layout, num_hashed: int = 20, seed: int = 0) -> list[Difference]:
    """How the published tables and the files differ, in both directions; of `num_hashed` files the content is compared, too."""
    with open_published(layout) as con:
        ledger = {path: (sha256, size) for path, _, sha256, size in con.execute(read_sql("ingest", "ledger").text).fetchall()}
        runs = {run_id for (run_id,) in con.execute(read_sql("ingest", "run_ids").text).fetchall()}
    return sorted(_differences(layout, ledger, runs, num_hashed, seed), key=lambda found: found.path)


def _differences(layout: Layout, ledger: dict[str, tuple[str, int]], runs: set[str], num_hashed: int, seed: int) -> Iterator[Difference]:
    sound = []
    for relative, (_, num_bytes) in ledger.items():
        path = layout.root / relative
        if not path.exists():
            yield Difference(relative, "in the tables, but the file is gone")
        elif path.stat().st_size != num_bytes:
            yield Difference(relative, f"has {path.stat().st_size:,} bytes, but had {num_bytes:,} when it was catalogued")
        else:
            sound.append(relative)
    for relative in random.Random(seed).sample(sorted(sound), min(num_hashed, len(sound))):
        if file_sha256(layout.root / relative) != ledger[relative][0]:
            yield Difference(relative, "has another content than when it was catalogued")
    for pattern in _LEDGERED:
        for path in layout.root.glob(pattern):
            if (relative := path.relative_to(layout.root).as_posix()) not in ledger:
                yield Difference(relative, "not in the tables")
    for result in layout.runs.glob(f"*/{RUN_RESULT}"):
        if result.parent.name not in runs:
            yield Difference(result.parent.relative_to(layout.root).as_posix(), "a finished run that is not in the tables")
    for run_id in runs:
        if not (layout.run(run_id) / RUN_RESULT).exists():
            yield Difference(f"runs/{run_id}", "in the tables, but the run is gone")


def keep(layout: Layout, name: str) -> None:
    """Keep a run, training set or network, and all it was made from, whatever else becomes current. Raises `ValueError` if unknown."""
    with open_published(layout) as con:
        known = {row[0] for row in con.execute(read_sql("ingest", "things").text).fetchall()}
        known |= {row[0] for row in con.execute("select artifact_id from artifacts union select run_id from runs").fetchall()}
    if name not in known:
        raise ValueError(f"{name} is no run, training set or network of {layout.published_catalog}; `dalle query runs` lists them")
    layout.kept.parent.mkdir(parents=True, exist_ok=True)
    with layout.kept.open("a") as file:
        file.write(json.dumps({"id": name}) + "\n")


def find_garbage(layout: Layout) -> list[Garbage]:
    """Artefacts that nothing current or kept was made from or refers to, and what killed writers left behind.

    Current are the networks in use, the newest run of each job, every run that made pictures, and what the last pipelines name; kept is
    what `keep` was told. Everything that these were made from stays, and so does what is not in the published tables yet.
    """
    with open_published(layout) as con:
        wanted = _wanted(con, layout)
        found = con.execute(read_sql("ingest", "things").text).fetchall()
    garbage = [Garbage(path, f"nothing current or kept refers to {name}", size) for name, path, size in _unwanted(layout, found, wanted)]
    return garbage + list(_leftovers(layout))


def collect_garbage(layout: Layout, garbage: list[Garbage]) -> None:
    """Delete what `find_garbage` found. Ingest everything afterwards, so that the tables follow."""
    for item in garbage:
        path = (layout.root / item.path).resolve()
        if not path.is_relative_to(layout.root.resolve()) or path == layout.root.resolve():
            raise ValueError(f"{item.path} is outside of {layout.root}; nothing is deleted there")
        if path.is_dir():
            (path / RUN_RESULT).unlink(missing_ok=True)  # first: what has no result is no finished run
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def compact(layout: Layout, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> tuple[int, int]:
    """Write the live catalog anew, without the holes that replaced rows left. Returns its bytes before and after."""
    before = layout.catalog.stat().st_size if layout.catalog.exists() else 0
    compacted(layout.catalog, lock_timeout_s, on_wait)
    return before, layout.catalog.stat().st_size


def _wanted(con: duckdb.DuckDBPyConnection, layout: Layout) -> set[str]:
    roots = {name for (name,) in con.execute(read_sql("ingest", "current_things").text).fetchall()}
    for path in (layout.root / "pipelines").glob("*.json"):
        roots |= set(re.findall(r'"(?:run_id|training_set_id)": "([^"]+)"', path.read_text()))
    if layout.kept.exists():
        try:
            roots |= {json.loads(line)["id"] for line in layout.kept.read_text().splitlines()}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{layout.kept} is damaged ({error}); mend the line, nothing is deleted") from error
    wanted: set[str] = set()
    for root in roots:
        wanted |= {name for (name, *_) in con.execute("select ancestor_id from ancestors(?)", [root]).fetchall()}
    return wanted


def _unwanted(layout: Layout, found: list[tuple[str, str, list[str]]], wanted: set[str]) -> Iterator[tuple[str, str, int]]:
    """Id, path and size of what is there, and neither wanted nor within something wanted nor new."""
    safe = {path for name, path, _ in found if name in wanted}
    for name, relative, uses in found:
        is_of_use = name in wanted or (bool(uses) and set(uses) <= wanted)
        within = any(relative == one or relative.startswith(f"{one}/") or one.startswith(f"{relative}/") for one in safe)
        path = layout.root / relative
        if not is_of_use and not within and path.exists() and _age_s(path) > _GRACE_S:
            yield name, relative, _num_bytes(path)


def _leftovers(layout: Layout) -> Iterator[Garbage]:
    """Half-written files and folders of writers that are gone."""
    for path in sorted(layout.root.rglob("*.partial")):
        owner = re.search(rf"\.{re.escape(platform.node())}-(\d+)\.partial$", path.name)
        is_gone = owner is not None and Path("/proc/self").exists() and not Path(f"/proc/{owner[1]}").exists()
        if is_gone or _age_s(path) > _GRACE_S:
            yield Garbage(path.relative_to(layout.root).as_posix(), "its writer is gone", _num_bytes(path))


def _age_s(path: Path) -> float:
    try:
        newest = max(found.stat().st_mtime for found in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0.0
    return time.time() - newest


def _num_bytes(path: Path) -> int:
    return sum(found.stat().st_size for found in (path, *path.rglob("*")) if found.is_file())
