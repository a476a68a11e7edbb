"""Export of pairs, bytes included, to a folder of shards: chosen by a recipe of `sql/pair_sets/`, in the order of the parts they lie in.

The same pairs, recipe and sizes give the same files. An export that was killed goes on behind its last whole shard; one whose pairs
have changed, e.g. because some were forgotten, is written anew, and its old shards go first.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from dalle_datasets.catalog.connection import first_line, open_published
from dalle_datasets.catalog.pair_shards import ABOUT, SUFFIXES, Form, Shard, open_shard
from dalle_datasets.catalog.queries import bind, check_ids, writer_of
from dalle_datasets.catalog.sql_files import SqlFile, list_sql, read_sql
from dalle_datasets.catalog.training_sets import refuse_forgotten
from dalle_datasets.sources.blocked import read_blocks
from dalle_datasets.store.ids import content_id_of, file_sha256
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.locks import held
from dalle_datasets.store.manifest import Report, no_progress
from dalle_datasets.store.parquet import atomic_path, check_parquet, open_parquet
from dalle_datasets.store.schemas import PAIRS

DONE, UNFINISHED = "export.json", "export.unfinished.json"
VERSION = "1"
_OURS = re.compile(r"(train|validation)-\d{5}\.(tar|parquet)(\..*partial)?")
_PICTURES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class PairExport:
    """A finished export."""

    export_id: str
    """The same for equal files."""
    num_pairs: int
    splits: list[str]
    """Those that have pairs: train, validation."""
    num_shards: int
    num_bytes: int
    was_there: bool
    """Whether nothing had to be written."""
    licences: list[tuple[str, int]]
    """Licence (empty if none is known) and number of pairs, the most frequent first, twenty at most."""


def list_pair_sets() -> list[SqlFile]:
    """The recipes of `sql/pair_sets/`."""
    return list_sql("pair_sets")


def export_pairs(
    layout: Layout,
    folder: Path,
    *,
    form: Form,
    recipe: str = "collected_pairs",
    params: Mapping[str, Any] | None = None,
    rows_per_shard: int = 10_000,
    max_shard_bytes: int = 2**30,
    report: Report = no_progress,
) -> PairExport:
    """Write the pairs that a recipe chooses from the published catalog as shards `train-00000…` and `validation-00000…`.

    Memory is that of a part's ids and a few pictures for each split. Raises `ValueError` for an unknown recipe or parameter, when it
    chooses nothing, when the folder holds other things, when the catalog holds what was forgotten, or the files lack what it names.
    """
    file = _find(recipe)
    _check_folder(folder, layout)
    blocks = read_blocks(layout)
    with open_published(layout) as con:
        refuse_forgotten(con, blocks, "nothing is exported")
        values = _choose(con, layout, file, params or {})
        parts = con.execute(read_sql("ingest", "parts_of_placed_pairs").text).fetchall()
        num_pairs = sum(num for *_, num in parts)
        if not num_pairs:
            raise ValueError(f"sql/pair_sets/{recipe}.sql chooses no pairs with these parameters; loosen them, or collect pairs first")
        about = {
            "recipe": recipe, "recipe_sql": file.text, "format": form, "rows_per_shard": rows_per_shard, "max_shard_bytes": max_shard_bytes,
            "parameters": {name: value for name, value in values.items() if name != "root"}, "version": VERSION,
        }  # fmt: skip
        export_id = content_id_of(_content(con, about, parts))
        licences = con.execute(read_sql("ingest", "licences_of_placed_pairs").text).fetchall()
        with held(folder / ".export.lock") as is_ours:
            if not is_ours:
                raise ValueError(f"{folder} is being written by another export; wait for it, or choose another folder")
            if (done := _read(folder / DONE)) and done["export_id"] == export_id and _are_there(folder, done["files"]):
                return _result(export_id, done["files"], licences, was_there=True)
            with _Shards(folder, form, export_id, rows_per_shard, max_shard_bytes) as shards:
                for row in _rows(con, layout, [path for path, *_ in parts], shards.num_finished):
                    shards.append(row)
                    report(shards.num_pairs, num_pairs, "pairs")
            if len(read_blocks(layout)) != len(blocks):
                _begin(folder, "", [])
                raise ValueError("pairs were forgotten while they were exported, so the shards were deleted; export again")
            with atomic_path(folder / DONE) as partial:
                partial.write_text(json.dumps({"export_id": export_id, **about, "num_pairs": num_pairs, "files": shards.files}, indent=1))
            (folder / UNFINISHED).unlink(missing_ok=True)
    return _result(export_id, shards.files, licences, was_there=False)


def _find(recipe: str) -> SqlFile:
    if recipe in {known.name for known in list_sql("training_sets")}:
        raise ValueError(
            f"{recipe} is a recipe of training sets; make one with `dalle run build_training_set --recipe {recipe}` and export it with "
            "--recipe pairs_of_training_set"
        )
    return read_sql("pair_sets", recipe)


def _check_folder(folder: Path, layout: Layout) -> None:
    """Raise `ValueError` unless a folder is new, empty or an export of ours, and outside of the data root."""
    if folder.resolve().is_relative_to(layout.root.resolve()):
        raise ValueError(f"{folder} lies in the data root, where only stages write; give a folder outside of it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the shards")
    if not folder.exists() or (folder / DONE).exists() or (folder / UNFINISHED).exists():
        return
    if others := sorted(path.name for path in folder.iterdir() if path.name != ".export.lock"):
        raise ValueError(f"{folder} holds other things ({', '.join(others[:3])}); give a new or empty folder, or an older export")


def _choose(con: duckdb.DuckDBPyConnection, layout: Layout, file: SqlFile, params: Mapping[str, Any]) -> dict[str, Any]:
    """Make the table of the chosen pairs and the places they are read from; returns the recipe's parameters."""
    takes_root = any(parameter.name == "root" for parameter in file.parameters)
    if "root" in params:
        raise ValueError("root of a recipe is the data root; choose it with --set paths.data_root=…")
    values = bind(file, {**params, **({"root": str(layout.root)} if takes_root else {})})
    check_ids(con, file, params)
    try:
        con.execute(f"create or replace temp table chosen_pairs as {file.text}", values)
        con.execute(f"create or replace temp table placed_pairs as {read_sql('ingest', 'placed_pairs').text}")
    except duckdb.Error as error:
        remedy = f"; {writer_of(error)}" if "No files found" in str(error) else ""
        raise ValueError(f"sql/pair_sets/{file.name}.sql cannot be run: {first_line(error)}{remedy}") from error
    return values


def _content(con: duckdb.DuckDBPyConnection, about: Mapping[str, Any], parts: list[tuple[str, str, int]]) -> Iterator[str | bytes]:
    """All that decides the shards: the pictures' files, the pairs, their scores, and how they are written."""
    yield json.dumps([about, parts], sort_keys=True)
    for path, *_ in parts:
        chosen = _chosen_of(con, path)
        yield chosen["pair_id"].to_numpy().tobytes()
        yield repr(chosen["clip_id"].unique().to_pylist())
        yield chosen["clip_score"].to_numpy().tobytes()


def _chosen_of(con: duckdb.DuckDBPyConnection, part_path: str) -> pa.Table:
    return con.execute(read_sql("ingest", "placed_pairs_of_part").text, {"part_path": part_path}).to_arrow_table()


def _rows(con: duckdb.DuckDBPyConnection, layout: Layout, parts: list[str], num_finished: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """The chosen pairs as they lie in their parts, without as many of each split as are in finished shards."""
    to_skip = dict(num_finished)
    for part in parts:
        chosen = _chosen_of(con, part)
        ids = chosen["pair_id"].to_numpy()
        num_seen = 0
        check_parquet(layout.root / part, PAIRS)
        with open_parquet(layout.root / part) as file:
            for group in range(file.num_row_groups):
                listed = file.read_row_group(group, ["pair_id", "split"])
                is_wanted = np.isin(listed["pair_id"].to_numpy(), ids)
                num_seen += int(is_wanted.sum())
                here = listed.filter(pa.array(is_wanted))["split"].value_counts().to_pylist()
                if all(item["counts"] <= to_skip.get(item["values"], 0) for item in here):  # also of a group without wanted pairs
                    for item in here:
                        to_skip[item["values"]] -= item["counts"]
                    continue
                start = 0
                for batch in file.iter_batches(_PICTURES_AT_ONCE, row_groups=[group]):
                    mask = is_wanted[start : start + batch.num_rows]
                    start += batch.num_rows
                    for row in batch.filter(pa.array(mask)).to_pylist():
                        if to_skip.get(row["split"], 0):
                            to_skip[row["split"]] -= 1
                            continue
                        at = int(np.searchsorted(ids, row["pair_id"]))
                        yield row | {name: chosen[name][at].as_py() for name in ("clip_id", "clip_score")}
        if num_seen != len(ids):
            raise ValueError(
                f"{layout.root / part} lacks {len(ids) - num_seen} pairs that the published catalog names; "
                "bring that up to date with `dalle catalog publish` and export again"
            )


class _Shards:
    """The shards of one export, one open for each split. What is whole is written down, so that the next run begins behind it."""

    def __init__(self, folder: Path, form: Form, export_id: str, rows_per_shard: int, max_shard_bytes: int) -> None:
        self._folder, self._form, self._export_id = folder, form, export_id
        self._rows_per_shard, self._max_bytes = rows_per_shard, max_shard_bytes
        known = _read(folder / UNFINISHED) or {"export_id": "", "files": []}
        self.files: list[dict[str, Any]] = known["files"] if known["export_id"] == export_id and _are_there(folder, known["files"]) else []
        self._open: dict[str, tuple[ExitStack, Shard, dict[str, Any]]] = {}

    @property
    def num_finished(self) -> dict[str, int]:
        """Split -> pairs in whole shards."""
        return {split: sum(file["num_pairs"] for file in self.files if file["split"] == split) for split in ("train", "validation")}

    @property
    def num_pairs(self) -> int:
        """Pairs so far, those of open shards included."""
        return sum(file["num_pairs"] for file in [*self.files, *(file for *_, file in self._open.values())])

    def __enter__(self) -> Self:
        _begin(self._folder, self._export_id, self.files)
        return self

    def append(self, row: dict[str, Any]) -> None:
        """Add a pair to the open shard of its split, and close that if it is full."""
        split = row["split"]
        if split not in self._open:
            number = sum(file["split"] == split for file in self.files)
            name, stack = f"{split}-{number:05d}{SUFFIXES[self._form]}", ExitStack()
            shard = stack.enter_context(open_shard(self._folder / name, self._form))
            self._open[split] = stack, shard, {"name": name, "split": split, "num_pairs": 0, "num_picture_bytes": 0}
        _, shard, file = self._open[split]
        is_web_page = row["page_url"].startswith(("http://", "https://"))
        shard.append({name: row[name] for name in ("image", *ABOUT)} | ({} if is_web_page else {"page_url": None}))
        file["num_pairs"] += 1
        file["num_picture_bytes"] += len(row["image"])
        if file["num_pairs"] == self._rows_per_shard or file["num_picture_bytes"] >= self._max_bytes:
            self._close(split)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            for split in list(self._open):
                self._close(split)
        for stack, *_ in self._open.values():
            stack.__exit__(kind, error, traceback)

    def _close(self, split: str) -> None:
        stack, _, file = self._open.pop(split)
        stack.close()
        path = self._folder / file["name"]
        self.files.append({**file, "num_bytes": path.stat().st_size, "sha256": file_sha256(path)})
        _write_unfinished(self._folder, self._export_id, self.files)


def _begin(folder: Path, export_id: str, files: list[dict[str, Any]]) -> None:
    """Make a folder an unfinished export that holds `files` and no other shard."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_unfinished(folder, export_id, files)
    (folder / DONE).unlink(missing_ok=True)
    names = {file["name"] for file in files}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in names:
            path.unlink()


def _write_unfinished(folder: Path, export_id: str, files: list[dict[str, Any]]) -> None:
    with atomic_path(folder / UNFINISHED) as partial:
        partial.write_text(json.dumps({"export_id": export_id, "files": files}, indent=1))


def _are_there(folder: Path, files: list[dict[str, Any]]) -> bool:
    """Whether all shards have the size they had when they were written."""
    paths = [(folder / file["name"], file["num_bytes"]) for file in files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _read(path: Path) -> dict[str, Any] | None:
    """A record of an export; None if there is none, or it is not one of ours."""
    try:
        record = json.loads(path.read_text())
        files = record["files"]
        is_ours = isinstance(record["export_id"], str) and all({"name", "split", "num_pairs", "num_bytes"} <= set(file) for file in files)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if is_ours else None


def _result(export_id: str, files: list[dict[str, Any]], licences: list[tuple[str, int]], *, was_there: bool) -> PairExport:
    num_pairs, num_bytes = (sum(file[name] for file in files) for name in ("num_pairs", "num_bytes"))
    splits = sorted({file["split"] for file in files})
    return PairExport(export_id, num_pairs, splits, len(files), num_bytes, was_there, licences)
