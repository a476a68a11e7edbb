"""Opening the catalog: the live file for one writer at a time, the published copy for everybody else.

DuckDB lets one process write, and a reader of the live file would block it. So writers take turns, in the order in which they asked
(`dalle_datasets.store.locks`), and people query the copy that `dalle_datasets.catalog.snapshot.publish` makes. What takes long happens
outside a turn: hashing, checking, exporting, copying. This module is the only one that opens the live file.
"""

import glob
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb

from dalle_datasets.catalog.migrations import apply_views, migrate
from dalle_datasets.catalog.sql_files import quoted
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.locks import LockBusyError, Patience, in_turn
from dalle_datasets.store.parquet import atomic_path

OnWait = Callable[[str], None] | None
"""Told once, after a second, whom a caller waits for."""

_CONFINING = threading.Lock()
_MAX_LOG_BYTES = 64 * 2**20
"""A log that is longer when a writer closes is written into the file: every open reads all of it."""


class CatalogBusyError(RuntimeError):
    """Another process holds the catalog for writing."""


@contextmanager
def connect(
    catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: OnWait = None, task: str = "writing"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The live catalog, up to date, for one writer; keep the block under a second, others wait for it. `task` is what they are told.

    Waits at most `lock_timeout_s` seconds for those before it, then raises `CatalogBusyError` with the holder's name and task.
    Raises `ValueError` when the file cannot be read or its migrations do not fit this code, `OSError` when the disk is full.
    """
    catalog_path.parent.mkdir(parents=True, exist_ok=True)
    with _turn(catalog_path, lock_timeout_s, on_wait, task) as patience:
        con = _open_live(catalog_path, patience)
        try:
            with _sentences(catalog_path):
                migrate(con)
                apply_views(con)
                yield con
        finally:
            con.close()
    if _num_bytes(_log(catalog_path)) > _MAX_LOG_BYTES:
        with checkpointed(catalog_path, lock_timeout_s, on_wait):
            pass


@contextmanager
def checkpointed(catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Iterator[Path]:
    """The live file with every row in it and an empty log. During the block nobody else does this, so its bytes may be copied.

    A checkpoint that is torn at the wrong byte makes a file unopenable, so a copy is made before. It is made outside the turn,
    because between checkpoints writers append to the log; if one did write into the file, it is made again within.
    """
    catalog_path.parent.mkdir(parents=True, exist_ok=True)
    with _turn(_beside(catalog_path, "checkpoint"), lock_timeout_s, on_wait, "publishing"):
        copy, state = _beside(catalog_path, "copy"), _copy(catalog_path, _beside(catalog_path, "copy"))
        with _turn(catalog_path, lock_timeout_s, on_wait, "publishing") as patience:
            if state != _state(catalog_path):
                _copy(catalog_path, copy)
            con = _open_live(catalog_path, patience)
            try:
                with _sentences(catalog_path):
                    migrate(con)
                    apply_views(con)
                    if copy.exists():
                        copy.replace(_rescue(catalog_path))
                    con.execute("checkpoint")
            finally:
                con.close()
            _rescue(catalog_path).unlink(missing_ok=True)
        yield catalog_path


@contextmanager
def replacing(catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Iterator[Callable[[], None]]:
    """A turn in which the live file is replaced: the block's function puts the fresh catalog (`connect_fresh`) in its place."""

    with _turn(catalog_path, lock_timeout_s, on_wait, "rebuilding"):
        yield lambda: _put_in_place(catalog_path)


def _put_in_place(catalog_path: Path) -> None:
    # The old file loses its log first: rows and ledger go together, so that a crash here costs a repeated ingest, no more.
    _log(catalog_path).unlink(missing_ok=True)
    _rescue(catalog_path).unlink(missing_ok=True)
    _beside(catalog_path, "fresh").replace(catalog_path)


@contextmanager
def rebuilding(catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Iterator[None]:
    """One rebuild at a time, beside writers of the live catalog. What an earlier one left half done is removed."""
    catalog_path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(catalog_path, "fresh")
    with _turn(fresh, lock_timeout_s, on_wait, "rebuilding"):
        for path in (fresh, _log(fresh)):
            path.unlink(missing_ok=True)
        yield
        fresh.unlink(missing_ok=True)


@contextmanager
def connect_fresh(catalog_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalog that is being made beside the live one; all of it is in one file when the block ends well."""
    fresh = _beside(catalog_path, "fresh")
    con = duckdb.connect(str(fresh), config=_WRITER)
    try:
        with _sentences(fresh):
            migrate(con)
            apply_views(con)
            yield con
            con.execute("checkpoint")
    finally:
        con.close()


def compacted(catalog_path: Path, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> None:
    """Copy the live catalog, row by row, into a new file that takes its place. Writers wait meanwhile."""
    fresh = _beside(catalog_path, "fresh")
    with (
        rebuilding(catalog_path, lock_timeout_s, on_wait),
        connect(catalog_path, lock_timeout_s, on_wait, "compacting") as con,
        _sentences(fresh),
    ):
        live = con.execute("select current_database()").fetchall()[0][0]
        con.execute(f"attach {quoted(str(fresh))} as fresh")  # `attach` takes no parameters
        con.execute(f'copy from database "{live}" to fresh')
        con.execute("checkpoint fresh")
        con.execute("detach fresh")
        con.close()
        _put_in_place(catalog_path)


@contextmanager
def open_published(layout: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """The readers' copy, read-only, where SQL opens no file outside the data root, no network and no extension.

    Raises `ValueError` when nothing has been published yet, or the copy is damaged.
    """
    path = layout.published_catalog
    if not path.exists():
        raise ValueError(f"{path}: no catalog has been published yet; run `dalle demo`, or `dalle catalog publish` if the catalog is newer")
    with open_copy(path) as con:
        _confine(con, layout.root)
        yield con


@contextmanager
def serve_ui(layout: Layout) -> Iterator[str]:
    """DuckDB's own web page on the readers' copy, read-only, for as long as the block lasts: its address.

    The page itself comes from DuckDB's web site. Raises `ValueError` when there is no copy, or the extension is not installed.
    """
    with open_published(layout):  # raises what is wrong with the copy
        pass
    found = find_spec("duckdb_extension_ui")
    extensions = [
        path for place in (found.submodule_search_locations or [] if found else []) for path in Path(place).rglob("ui.duckdb_extension")
    ]
    remedy = f"install it with `pip install duckdb-extension-ui=={duckdb.__version__}`, or ask with `dalle query`"
    if not extensions:
        raise ValueError(f"DuckDB's web page is an extension, which is not installed; {remedy}")
    con = duckdb.connect(":memory:")
    try:
        (Path.home() / ".duckdb").mkdir(exist_ok=True)  # the extension keeps notebooks there, and does not make it
        con.execute(f"load {quoted(str(extensions[0]))}")
        con.execute(f"attach {quoted(str(layout.published_catalog))} as published (read_only)")
        con.execute("use published")
        con.execute("call start_ui_server()")
        ((port,),) = con.execute("select current_setting('ui_local_port')").fetchall()
        yield f"http://localhost:{port}/"
        con.execute("call stop_ui_server()")
    except duckdb.Error as error:
        raise ValueError(f"DuckDB's web page cannot be started ({first_line(error)}); {remedy}") from error
    finally:
        con.close()


@contextmanager
def open_copy(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the catalog that nobody writes, read-only. Raises `ValueError` when it is damaged."""
    try:
        con = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise ValueError(f"{path} cannot be opened ({first_line(error)}); make it again with `dalle catalog publish`") from error
    try:
        yield con
    finally:
        con.close()


def _confine(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Keep SQL from files outside `root`, the network, extensions, Python's variables, and from undoing that."""
    with _CONFINING:
        if con.execute("select current_setting('lock_configuration')").fetchall() == [(True,)]:
            return  # connections of one process to one file share their settings
        names = [str(folder) for folder in (root, root.resolve())]
        # A pattern of files is compared as it is written, so the escaped name (see files_under.sql) has to be allowed as well.
        folders = ", ".join(quoted(spelled) for name in names for spelled in dict.fromkeys((name, glob.escape(name))))
        con.execute(f"set allowed_directories = [{folders}]")  # `set` takes no parameters
        con.execute(f"set temp_directory = {quoted(str(_scratch(root)))}")
        for setting in ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions"):
            con.execute(f"set {setting} = false")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")


def _scratch(root: Path) -> Path:
    """Where a reader spills what does not fit in memory: a folder of this process, made when needed, never in a read-only root."""
    place = root / "catalog" if os.access(root / "catalog", os.W_OK) else Path(tempfile.gettempdir())
    return place / f"published.duckdb.{platform.node()}-{os.getpid()}.tmp"


@contextmanager
def _turn(path: Path, lock_timeout_s: float, on_wait: OnWait, task: str) -> Iterator[Patience]:
    try:
        with in_turn(_beside(path, "lock"), task, lock_timeout_s, on_wait) as patience:
            yield patience
    except LockBusyError as error:
        raise CatalogBusyError(
            f"{path} is {error}; query the published copy with `dalle query` instead, or wait and run this again"
        ) from error


_WRITER: dict[str, str | bool | int | float | list[str]] = {"checkpoint_threshold": "1TB"}
"""Settings of writers. DuckDB must not checkpoint by itself: only `checkpointed` does, when its copy is safe."""


def _open_live(path: Path, patience: Patience) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            con = duckdb.connect(str(path), config=_WRITER)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
                pid = re.search(r"PID (\d+)", str(error))  # somebody who does not take our lock: the DuckDB shell, a notebook
                patience.wait_for(f"process {pid[1]}, a DuckDB of its own" if pid else "another DuckDB")
                continue
            if not _rescue(path).exists():
                raise ValueError(
                    f"{path} cannot be opened ({first_line(error)}); nothing lives only there: make it again with `dalle catalog rebuild`"
                ) from error
            _rescue(path).replace(path)  # a checkpoint was torn; the log still has what it was to write
            continue
        con.execute("pragma disable_checkpoint_on_shutdown")
        _rescue(path).unlink(missing_ok=True)
        return con


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Turn what DuckDB says of a full disk into an `OSError` that names the file."""
    try:
        yield
    except duckdb.Error as error:
        if any(reason in str(error) for reason in ("No space left", "quota exceeded", "File too large")):
            raise OSError(f"could not write {path}: {first_line(error)}; free some space or choose another data root") from error
        raise


def _copy(path: Path, copy: Path) -> tuple[int, ...]:
    """Copy the live file, whole or not at all, and return the state it was in before; there may be none yet."""
    state = _state(path)
    if path.exists():
        with atomic_path(copy) as partial:
            shutil.copyfile(path, partial)
    return state


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _log(path: Path) -> Path:
    return _beside(path, "wal")


def _rescue(path: Path) -> Path:
    """The file as it was before a checkpoint: it is there only while one is being made, or after one that was killed."""
    return _beside(path, "before_checkpoint")


def _num_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def first_line(error: Exception) -> str:
    """The first line of a message; DuckDB's go on with the SQL or with advice to programmers."""
    return str(error).splitlines()[0]
