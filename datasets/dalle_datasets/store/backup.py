"""Copies of a data root in another folder or a bucket (`s3://…`), each whole, all together as large as what differs.

    objects/<two digits>/<SHA-256>     the content of files, each once
    backups/<time>.json                which path had which content; written last, so that an interrupted backup is none

The catalog is left out: `dalle catalog rebuild` makes it from the files. So are locks, claims and files that are being written.
`backups.jsonl` in the data root says where copies of it are, for requests to forget.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from dalle_datasets.store.ids import file_sha256
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path

VERSION = 1
_LEFT_OUT = ("catalog", "prefect")
"""Folders of a data root that can be made again, or belong to a running server."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup or a restore did."""

    name: str
    num_files: int
    num_copied: int
    num_bytes: int
    """Of the copied files."""


class BackupPlace:
    """A folder or bucket that holds backups. Raises `ValueError` for an address that cannot be opened."""

    def __init__(self, place: str) -> None:
        self._place = place if "://" in place else str(Path(place).expanduser().resolve())
        try:
            self._files, self._base = fs.FileSystem.from_uri(place if "://" in place else Path(self._place).as_uri())
        except (OSError, ValueError) as error:
            raise ValueError(f"{place} cannot hold a backup ({error}); name a folder or an address such as s3://bucket/folder") from error

    def names(self) -> list[str]:
        """The backups that are whole, oldest first."""
        chosen = fs.FileSelector(f"{self._base}/backups", allow_not_found=True)
        return sorted(PurePosixPath(found.path).stem for found in self._files.get_file_info(chosen) if found.path.endswith(".json"))

    def save(self, layout: Layout) -> Backup:
        """Copy what the place does not have yet, then write down the backup. Files that vanish meanwhile are left out."""
        held = {PurePosixPath(found.path).name for found in self._objects() if found.type == fs.FileType.File}
        known: dict[str, Any] = self._read(names[-1])["files"] if (names := self.names()) else {}
        files: dict[str, Any] = {}
        num_copied = num_bytes = 0
        for path in _files_of(layout):
            relative = path.relative_to(layout.root).as_posix()
            try:
                state = path.stat()
                old = known.get(relative, {})
                is_known = old and [old["num_bytes"], old["modified_ns"]] == [state.st_size, state.st_mtime_ns] and old["sha256"] in held
                digest = old["sha256"] if is_known else file_sha256(path)
                if digest not in held:
                    self._put(path, digest)
                    held.add(digest)
                    num_copied, num_bytes = num_copied + 1, num_bytes + state.st_size
            except FileNotFoundError:
                continue
            files[relative] = {"sha256": digest, "num_bytes": state.st_size, "modified_ns": state.st_mtime_ns}
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        self._write(f"backups/{name}.json", json.dumps({"version": VERSION, "files": files}).encode())
        with suppress(OSError), layout.backups.open("a") as file:  # a root may be read-only
            place = re.sub("//[^/@]*@", "//", self._place)  # an address may hold a key
            file.write(json.dumps({"place": place, "name": name}) + "\n")
        return Backup(name, len(files), num_copied, num_bytes)

    def restore(self, layout: Layout, name: str | None = None) -> Backup:
        """Bring the files of a backup, the newest if none is named, into an empty data root, or one that this began to fill.

        Raises `ValueError` for a backup that does not exist, of another version, or damaged, and for a data root that holds other files.
        """
        names = self.names()
        if not names or (name is not None and name not in names):
            raise ValueError(f"{self._place} holds no backup {name or ''}; it has: {', '.join(names) or 'none'}")
        name = name or names[-1]
        said = self._read(name)
        wanted = {_checked(relative, self._place): entry for relative, entry in said["files"].items()}
        found = {path.relative_to(layout.root).as_posix(): path for path in _files_of(layout)}
        if foreign := sorted(set(found) - set(wanted)):
            raise ValueError(
                f"{layout.root} holds {foreign[0]}, which is not in the backup; restore into an empty folder, with --set paths.data_root=…"
            )
        num_copied = num_bytes = 0
        for relative, entry in wanted.items():
            path = layout.root / relative
            if relative in found and path.stat().st_size == entry["num_bytes"] and file_sha256(path) == entry["sha256"]:
                continue
            self._fetch(entry["sha256"], path)
            num_copied, num_bytes = num_copied + 1, num_bytes + entry["num_bytes"]
        return Backup(name, len(wanted), num_copied, num_bytes)

    def _objects(self) -> list[Any]:
        found: list[Any] = self._files.get_file_info(fs.FileSelector(f"{self._base}/objects", allow_not_found=True, recursive=True))
        return found

    def _put(self, path: Path, digest: str) -> None:
        self._write(f"objects/{digest[:2]}/{digest}", path)

    def _write(self, relative: str, content: Path | bytes) -> None:
        """Write a whole object; in a folder under another name first, a bucket shows only whole ones."""
        target = f"{self._base}/{relative}"
        is_folder = isinstance(self._files, fs.LocalFileSystem)
        partial = f"{target}.{os.getpid()}.partial" if is_folder else target
        self._files.create_dir(str(PurePosixPath(target).parent), recursive=True)
        with self._files.open_output_stream(partial) as out:
            if isinstance(content, bytes):
                out.write(content)
            else:
                with content.open("rb") as file:
                    while piece := file.read(2**22):
                        out.write(piece)
        if is_folder:
            self._files.move(partial, target)

    def _read(self, name: str) -> dict[str, Any]:
        where = f"{self._place}/backups/{name}.json"
        try:
            with self._files.open_input_stream(f"{self._base}/backups/{name}.json") as file:
                said = json.loads(file.read())
            version = said["version"]
            is_whole = version != VERSION or all({"sha256", "num_bytes", "modified_ns"} <= set(entry) for entry in said["files"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} is damaged ({type(error).__name__}: {error}); name another backup with --name") from error
        if version != VERSION:
            raise ValueError(
                f"{where} is of version {version}, but this code reads version {VERSION}; restore it with the code that wrote it"
            )
        if not is_whole:
            raise ValueError(f"{where} is damaged (a file without hash or size); name another backup with --name")
        found: dict[str, Any] = said
        return found

    def _fetch(self, digest: str, path: Path) -> None:
        source = f"{self._base}/objects/{digest[:2]}/{digest}"
        with atomic_path(path) as partial:
            try:
                with self._files.open_input_stream(source) as file, partial.open("wb") as out:
                    while piece := file.read(2**22):
                        out.write(piece)
            except FileNotFoundError as error:
                raise ValueError(f"{self._place}: the content of {path} is gone ({digest}); name another backup with --name") from error
            if file_sha256(partial) != digest:
                raise ValueError(f"{self._place}: the content of {path} is damaged ({digest}); name another backup with --name")


def known_backups(layout: Layout) -> list[dict[str, str]]:
    """`place` and `name` of every backup that was made of a data root from there. Raises `ValueError` for a damaged list."""
    if not layout.backups.exists():
        return []
    try:
        found = [json.loads(line) for line in layout.backups.read_text().splitlines()]
        return [{"place": str(one["place"]), "name": str(one["name"])} for one in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{layout.backups} is damaged ({error}); mend the line") from error


def _files_of(layout: Layout) -> Iterator[Path]:
    """The files of a data root that a backup keeps."""
    for folder, names, files in os.walk(layout.root):
        place = Path(folder)
        names[:] = sorted(name for name in names if not (place == layout.root and name in _LEFT_OUT) and not _is_passing(name))
        kept = (place / name for name in sorted(files) if not _is_passing(name))
        yield from (path for path in kept if not path.is_symlink() and path != layout.backups)


def _is_passing(name: str) -> bool:
    return name.endswith((".partial", ".lock", ".queue")) or name in ("lock", "claims")


def _checked(relative: str, place: str) -> str:
    """A path of a backup, which somebody may have edited, if it stays in the data root."""
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
        raise ValueError(f"{place}: the backup names {relative[:200]!r}, which is no path of a data root; do not trust it")
    return relative
