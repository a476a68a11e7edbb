"""Reading and writing Parquet artefacts: whole files under their final names, schemas checked."""

import errno
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import get_native_id
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SchemaError(ValueError):
    """A file does not hold what this code reads."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is removed when it does not.

    Raises `OSError` naming the file when there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{platform.node()}-{get_native_id()}.partial")  # unlike anybody else's, on any machine
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise cannot_write(path, error) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> OSError:
    """The error with what a person needs: which file, why, and what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"could not write {path}: {reason}; free some space or choose another data root")


# Dictionary + zstd-1 is within 1% of 13-bit packing for image tokens and readable everywhere.
_WRITE_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": True,
    "dictionary_pagesize_limit": 1 << 20,
    "write_page_checksum": True,
    "store_schema": True,
}

MAX_GROUP_BYTES = 128 * 2**20
"""A row group of large pictures ends here, because a reader holds a whole one in memory."""
MAX_PART_BYTES = 4 * 2**30
"""A part of large pictures ends here: one unit of work, of resuming and of copying."""
_READ_BYTES = 2**20
"""Columns are read in pieces of this size, not a whole row group at once."""
_FILTERED_AT_ONCE = 1_024
"""Rows looked at together when some of a file go."""


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Pictures come in small pages: Parquet looks at a page's size after every batch, and 1,024 pictures would be one page."""
    has_pictures = any(pa.types.is_binary(field.type) or pa.types.is_struct(field.type) for field in schema)
    return {**_WRITE_OPTIONS, "write_batch_size": 16} if has_pictures else _WRITE_OPTIONS


def _group_size(table: pa.Table, row_group_size: int) -> int:
    """Rows of a row group: fewer if they would be more than `MAX_GROUP_BYTES`."""
    if table.nbytes <= MAX_GROUP_BYTES:
        return row_group_size
    fitting: int = MAX_GROUP_BYTES * table.num_rows // table.nbytes
    return min(row_group_size, max(1, fitting))


def _with_metadata(schema: pa.Schema, metadata: dict[str, str] | None) -> dict[str, str]:
    return {**{k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}, **(metadata or {})}


def write_parquet(
    path: Path, table: pa.Table, schema: pa.Schema, row_group_size: int = 4_096, metadata: dict[str, str] | None = None
) -> None:
    """Write `table` (cast to `schema`) so that `path` is either complete or absent. Columns that may be null may be missing.

    Raises `OSError` naming the file when the disk is full.
    """
    merged = _with_metadata(schema, metadata)
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    table = table.select(schema.names).cast(schema.with_metadata(None)).replace_schema_metadata(merged)
    try:
        with atomic_path(path) as partial:
            pq.write_table(table, partial, row_group_size=_group_size(table, row_group_size), **_options(schema))
    except OSError as error:
        raise cannot_write(path, error) from error


def list_column(rows: NDArray[Any], kind: pa.DataType) -> pa.ListArray:
    """A column of lists of type `kind` of the rows of a matrix [N, length]."""
    num_rows, length = rows.shape
    offsets = pa.array(np.arange(num_rows + 1, dtype=np.int32) * length)
    return pa.ListArray.from_arrays(offsets, pa.array(rows.reshape(-1), kind.value_type), type=kind)


def read_parquet(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a file written by `write_parquet`. Raises `SchemaError` for a broken file or another schema or version."""
    check_parquet(path, schema)
    return pq.read_table(path, columns=columns, partitioning=None)


def check_parquet(path: Path, schema: pa.Schema) -> pq.FileMetaData:
    """Footer of a file, after checking that it is whole and of this schema and version."""
    expected = schema.metadata
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{path} is not a readable Parquet file ({error}); delete it and run the stage again") from error
    found = footer.metadata or {}
    if found.get(b"schema") != expected[b"schema"] or found.get(b"version") != expected[b"version"]:
        names = [f"{m.get(b'schema', b'?').decode()} v{m.get(b'version', b'?').decode()}" for m in (found, expected)]
        raise SchemaError(f"{path}: schema {names[0]}, but this code reads {names[1]}; run the stage that writes it again")
    return footer


def verify_parquet(path: Path, schema: pa.Schema) -> None:
    """Read all of a file. Raises `SchemaError` when a page is not what was written, or a `pair_id` is not a hash."""
    check_parquet(path, schema)
    damaged = "was damaged after it was written"
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES, page_checksum_verification=True) as file:
            for batch in file.iter_batches(256):  # pictures may be large
                if "pair_id" in batch.schema.names and batch.num_rows and (pc.min(batch["pair_id"]).as_py() or 0) <= 0:
                    raise SchemaError(
                        f"{path} {damaged}: it has a pair_id that is no hash; delete it and run the stage that writes it again"
                    )
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path} {damaged} ({str(error).splitlines()[0]}); delete it and run the stage that writes it again") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """A file to be read a piece at a time. pyarrow would keep all it has read of a file in memory until that is closed."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES)


def list_parts(directory: Path) -> list[Path]:
    """The finished Parquet parts of a folder, in name order."""
    return sorted(directory.glob("*.parquet"))


def iter_batches(directory: Path, schema: pa.Schema, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Stream the parts of a folder without holding more than one batch."""
    for part in list_parts(directory):
        yield from iter_file(part, schema, columns, batch_size)


def iter_file(path: Path, schema: pa.Schema, columns: list[str] | None = None, batch_size: int = 65_536) -> Iterator[pa.RecordBatch]:
    """Stream one file in the same way. Raises `SchemaError`."""
    check_parquet(path, schema)
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size, columns=columns)


def write_parts(
    directory: Path, table: pa.Table, schema: pa.Schema, rows_per_part: int, row_group_size: int, metadata: dict[str, str] | None = None
) -> list[Path]:
    """Cut `table` into `part-NNNNN.parquet` files; parts of an earlier, longer run are removed first."""
    paths = [directory / f"part-{i:05d}.parquet" for i in range(max(1, -(-table.num_rows // rows_per_part)))]
    for i, path in enumerate(paths):
        write_parquet(path, table.slice(i * rows_per_part, rows_per_part), schema, row_group_size, metadata)
    remove_stale(directory, keep=paths)
    return paths


class RowsWriter:
    """Appends rows to one file with no more than one row group in memory. The file is complete or absent."""

    def __init__(self, path: Path, schema: pa.Schema, row_group_size: int = 4_096) -> None:
        self._path = path
        self._schema = schema
        self._row_group_size = row_group_size
        self._rows: list[dict[str, Any]] = []
        self._bytes_in_group = 0
        self.num_rows = 0
        self.num_bytes = 0
        """Size of the rows' bytes and strings so far, before compression."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        partial = self._stack.enter_context(atomic_path(self._path))
        self._file = self._stack.enter_context(pq.ParquetWriter(partial, self._schema, **_options(self._schema)))
        return self

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; names and types are the schema's."""
        self._rows.append(row)
        size = _num_bytes(row)
        self._bytes_in_group += size
        self.num_rows += 1
        self.num_bytes += size
        if len(self._rows) == self._row_group_size or self._bytes_in_group >= MAX_GROUP_BYTES:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self._flush()
        self._stack.__exit__(kind, error, traceback)

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema), row_group_size=self._row_group_size)
        self._rows, self._bytes_in_group = [], 0


def _num_bytes(row: dict[str, Any]) -> int:
    """Size of the bytes and strings of a row, those in structs included."""
    return sum(
        len(value) if isinstance(value, str | bytes) else _num_bytes(value) if isinstance(value, dict) else 0 for value in row.values()
    )


class PartsWriter:
    """Appends rows to `part-NNNNN.parquet` files with no more than one row group in memory.

    A part ends after `rows_per_part` rows or `MAX_PART_BYTES`. Every part is complete or absent. Leaving the `with` block well
    removes the parts of an earlier, longer run but for those to `keep`, behind which the numbers begin at `first`.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, rows_per_part: int, row_group_size: int, first: int = 0, keep: Iterable[Path] = ()
    ) -> None:
        self._directory = directory
        self._schema = schema
        self._rows_per_part = rows_per_part
        self._row_group_size = row_group_size
        self._first, self._keep = first, list(keep)
        self._paths: list[Path] = []
        self._stack = ExitStack()
        self._part: RowsWriter | None = None

    def __enter__(self) -> Self:
        return self

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; names and types are the schema's."""
        if self._part is None:
            self._paths.append(self._directory / f"part-{self._first + len(self._paths):05d}.parquet")
            self._part = self._stack.enter_context(RowsWriter(self._paths[-1], self._schema, self._row_group_size))
        self._part.append(row)
        if self._part.num_rows == self._rows_per_part or self._part.num_bytes >= MAX_PART_BYTES:
            self._stack.close()
            self._part = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, traceback)
        if error is None:
            remove_stale(self._directory, keep=[*self._keep, *self._paths])


def filter_rows(path: Path, columns: list[str], keeps: Callable[[pa.RecordBatch], pa.BooleanArray]) -> int:
    """Take the rows out of a file for whose `columns` a mask says so; returns how many. The file is as it was or as it is to be.

    Row groups and metadata stay as they are; a file of which no row goes is not written.
    """
    with open_parquet(path) as file:
        masks = [
            keeps(batch)
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(_FILTERED_AT_ONCE, row_groups=[group], columns=columns)
        ]
        num_removed: int = sum(len(mask) - mask.true_count for mask in masks)
        if not num_removed:
            return 0
        schema, left = file.schema_arrow, iter(masks)
        with atomic_path(path) as partial, pq.ParquetWriter(partial, schema, **_options(schema)) as writer:
            for group in range(file.num_row_groups):
                batches = file.iter_batches(_FILTERED_AT_ONCE, row_groups=[group])
                kept = pa.Table.from_batches([batch.filter(mask) for batch, mask in zip(batches, left, strict=False)], schema)
                if kept.num_rows:
                    writer.write_table(kept, row_group_size=kept.num_rows)
    return num_removed


def remove_stale(directory: Path, keep: Iterable[Path]) -> None:
    """Delete the parts of a folder that the newest run did not write."""
    for path in set(list_parts(directory)) - set(keep):
        path.unlink()
