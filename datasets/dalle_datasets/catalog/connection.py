"""Opening the catalog: the live file for one writer at a time, the published copy for everybody else.

DuckDB lets one process write, and a reader of the live file would block it. So writers queue at an OS file lock
(released by the kernel when a process dies, however it dies), and people query the copy that
`dalle_datasets.catalog.snapshot.publish` makes. This module is the only one that opens the live file.
"""

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from dalle_datasets.catalog.migrations import apply_views, migrate
from dalle_datasets.store.layout import Layout

_CONFINING = threading.Lock()
_POLL_S = 0.05
_SILENT_S = 1.0
"""Waits shorter than this are not reported."""


class CatalogBusyError(RuntimeError):
    """Another process holds the catalog for writing."""


class _Patience:
    """Waits for another writer for a while, and says once that it does."""

    def __init__(self, catalog_path: Path, timeout_s: float, on_wait: Callable[[str], None] | None) -> None:
        self._path, self._timeout_s, self._on_wait = catalog_path, timeout_s, on_wait
        self._began = time.monotonic()

    def wait_for(self, pid: str) -> None:
        """Sleep a little. Raises `CatalogBusyError` once the time is up."""
        waited = time.monotonic() - self._began
        if waited >= self._timeout_s:
            raise _busy(self._path, pid, self._timeout_s)
        if self._on_wait is not None and waited > _SILENT_S:
            self._on_wait(f"{self._path} is open for writing in PID {pid}; waiting up to {self._timeout_s:g} s")
            self._on_wait = None
        time.sleep(_POLL_S)


@contextmanager
def connect(
    catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: Callable[[str], None] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The live catalog, up to date, for one writer; keep the block short.

    Waits at most `lock_timeout_s` seconds for another writer, telling `on_wait` so, then raises `CatalogBusyError` with its PID.
    Raises `ValueError` when the file cannot be read or its migrations do not fit this code.
    """
    catalog_path.parent.mkdir(parents=True, exist_ok=True)
    patience = _Patience(catalog_path, lock_timeout_s, on_wait)
    with _writer_lock(catalog_path, patience):
        con = _open_live(catalog_path, patience)
        try:
            _set_up(con)
            yield con
        finally:
            con.close()


@contextmanager
def connect_fresh(catalog_path: Path, lock_timeout_s: float = 60.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty catalog that takes the place of the live one when the block ends well, and leaves it alone when it does not."""
    catalog_path.parent.mkdir(parents=True, exist_ok=True)
    with _writer_lock(catalog_path, _Patience(catalog_path, lock_timeout_s, None)):
        fresh = catalog_path.with_name(catalog_path.name + ".fresh")
        for path in (fresh, _wal(fresh)):
            path.unlink(missing_ok=True)
        con = duckdb.connect(str(fresh))
        try:
            _set_up(con)
            yield con
            con.execute("checkpoint")
        finally:
            con.close()
        # The old file loses its log first: rows and ledger go together, so that a crash here costs a repeated ingest, no more.
        _wal(catalog_path).unlink(missing_ok=True)
        fresh.replace(catalog_path)


@contextmanager
def open_published(layout: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """The readers' copy, read-only, where SQL opens no file outside the data root, no network and no extension.

    Raises `ValueError` when nothing has been published yet.
    """
    path = layout.published_catalog
    if not path.exists():
        raise ValueError(f"{path}: no catalog has been published yet; run `dalle demo`, or `dalle catalog publish` if the catalog is newer")
    con = duckdb.connect(str(path), read_only=True)
    try:
        _confine(con, layout.root)
        yield con
    finally:
        con.close()


def _confine(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Keep SQL from files outside `root`, the network, extensions, Python's variables, and from undoing that."""
    with _CONFINING:
        if con.execute("select current_setting('lock_configuration')").fetchall() == [(True,)]:
            return  # connections of one process to one file share their settings
        folders = ", ".join("'" + str(folder).replace("'", "''") + "'" for folder in (root, root.resolve()))
        con.execute(f"set allowed_directories = [{folders}]")  # `set` takes no parameters
        for setting in ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions"):
            con.execute(f"set {setting} = false")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")


@contextmanager
def _writer_lock(catalog_path: Path, patience: _Patience) -> Iterator[None]:
    path = catalog_path.with_name(catalog_path.name + ".lock")
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                patience.wait_for(file.read().strip() or "unknown")
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield  # closing the file releases the lock


def _set_up(con: duckdb.DuckDBPyConnection) -> None:
    # A checkpoint torn at the wrong byte makes the file unopenable; only `snapshot.publish` checkpoints, after its copy is safe.
    con.execute("pragma disable_checkpoint_on_shutdown")
    con.execute("set checkpoint_threshold = '1GB'")
    migrate(con)
    apply_views(con)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _open_live(path: Path, patience: _Patience) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(str(path))
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise _unreadable(path, error) from error
            pid = re.search(r"PID (\d+)", str(error))  # somebody who does not take our lock: the DuckDB shell, a notebook
            patience.wait_for(pid[1] if pid else "unknown")
        except duckdb.Error as error:
            raise _unreadable(path, error) from error


def _busy(path: Path, pid: str, lock_timeout_s: float) -> CatalogBusyError:
    return CatalogBusyError(
        f"{path} is open for writing in PID {pid}; waited {lock_timeout_s:g} s; "
        "query the published copy with `dalle query` instead, or wait and run this again"
    )


def _unreadable(path: Path, error: duckdb.Error) -> ValueError:
    first_line = str(error).splitlines()[0]
    return ValueError(f"{path} cannot be opened ({first_line}); nothing lives only there: make it again with `dalle catalog rebuild`")
