"""Captioned images that lie on this machine: folders, and webdataset tars. Nothing is downloaded; the bytes are read from the files.

URLs are `folder:<name of the folder>/<path inside>` and `tar:<name of the tar>/<member>`, so that ids do not depend on where
the data lies.
"""

import contextlib
import csv
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from dalle_datasets.sources.base import Drop, FoundImage, clean_caption, encodable
from dalle_datasets.sources.discovered import DiscoveryWriter
from dalle_datasets.sources.documents import list_documents
from dalle_datasets.web.failures import FetchError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
CAPTION_FIELDS = ("caption", "text", "alt", "description", "title")
MAX_CAPTION_BYTES = 1 << 20
MAX_OPEN_TARS = 4
"""Whose members are in memory; URLs are asked for in their order, so threads are at one or two tars at a time."""


def read_folder(root: Path, document: str, result: DiscoveryWriter) -> None:
    """Images of a folder with the caption from `<image>.txt` or `<image>.json` beside it, or from `metadata.csv` / `metadata.jsonl`.

    (These are the habits of img2dataset's `files` output and of Hugging Face's image folders.)
    """
    captions = dict(_read_metadata(root))
    for position, path in enumerate(sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())):
        inside = path.relative_to(root).as_posix()
        caption, found_in = captions.get(inside, ""), "metadata"
        for suffix in (".txt", ".json"):
            beside = path.with_suffix(suffix)
            if not caption and _is_inside(beside, root) and beside.is_file() and beside.stat().st_size <= MAX_CAPTION_BYTES:
                caption, found_in = _caption_of(beside.read_bytes(), suffix), suffix[1:]
        _add(result, f"folder:{root.name}/{inside}", caption, document, position, found_in)


def read_tar(path: Path, document: str, result: DiscoveryWriter) -> None:
    """Images of a webdataset tar: members that share a key, one of them the picture, `txt` or `json` the caption.

    Raises `OSError` for a tar that is broken, cut off or compressed; what was read of it stays.
    """
    pictures: dict[str, str] = {}
    captions: dict[str, tuple[str, str]] = {}
    num_members = 0
    try:
        with _open_tar(path) as tar:
            for num_members, member in enumerate(tar, 1):  # noqa: B007 - for the error
                if not member.isfile():
                    continue
                name = PurePosixPath(member.name)
                key, _, suffix = name.name.partition(".")
                key = str(name.parent / key)
                suffix = f".{suffix.lower()}"
                if suffix in IMAGE_SUFFIXES:
                    pictures[key] = member.name
                elif suffix in (".txt", ".json", ".caption") and member.size <= MAX_CAPTION_BYTES:
                    file = tar.extractfile(member)
                    if file is not None and (caption := _caption_of(file.read(), suffix)) and (suffix != ".json" or key not in captions):
                        captions[key] = (caption, suffix[1:])
            if not _has_end(path, tar.offset):
                raise OSError(f"cut off or damaged after {num_members} members, at byte {tar.offset} of {path.stat().st_size}")
    except tarfile.TarError as error:
        raise OSError(f"no uncompressed tar, or damaged after {num_members} members ({error})") from error
    finally:
        for position, (key, member_name) in enumerate(pictures.items()):
            caption, found_in = captions.get(key, ("", ""))
            _add(result, f"tar:{path.name}/{member_name}", caption, document, position, found_in)


def _open_tar(path: Path) -> tarfile.TarFile:
    """Only uncompressed, because images are read straight from their place in the file."""
    return tarfile.open(path, "r:")


def _has_end(path: Path, offset: int) -> bool:
    """Whether a tar ends where its members do: `tarfile` takes a damaged or missing header for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


class LocalReader:
    """Reads the bytes behind the URLs of this module. Safe to share between threads."""

    def __init__(self, inputs: tuple[str, ...], max_bytes: int) -> None:
        """Raises `ValueError` when two inputs have the same name, which URLs could not tell apart."""
        self._max_bytes = max_bytes
        self._roots: dict[str, Path] = {}
        for document in list_documents(inputs):
            path = Path(document)
            if self._roots.setdefault(path.name, path) != path:
                raise ValueError(f"source.inputs: {self._roots[path.name]} and {path} have the same name; give one of them another")
        self._lock = threading.Lock()
        self._members: dict[Path, dict[str, tuple[int, int]]] = {}

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes of an image. Raises `FetchError`."""
        kind, _, rest = image_url.partition(":")
        name, _, inside = rest.partition("/")
        root = self._roots.get(name)
        if root is None:
            raise FetchError("missing_file", f"{name} is not among source.inputs")
        try:
            path, offset, size = self._locate_member(root, inside) if kind == "tar" else self._locate_file(root, inside)
            if size > self._max_bytes:
                raise FetchError("too_many_bytes", f"{size} bytes, {self._max_bytes} allowed")
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
            if len(data) < size:
                raise FetchError("incomplete_body", f"{len(data)} of {size} bytes: {path.name} is cut off")
        except (OSError, tarfile.TarError) as error:
            raise FetchError("missing_file", f"{image_url}: {error}") from error
        if not data:
            raise FetchError("empty_body", f"{image_url} has no bytes")
        return data

    def _locate_file(self, root: Path, inside: str) -> tuple[Path, int, int]:
        path = (root / inside).resolve()
        if not _is_inside(path, root):
            raise FetchError("missing_file", f"{inside} lies outside of {root.name}")
        return path, 0, path.stat().st_size

    def _locate_member(self, tar_path: Path, inside: str) -> tuple[Path, int, int]:
        with self._lock:
            if tar_path not in self._members:
                self._members = dict(list(self._members.items())[1 - MAX_OPEN_TARS :])
                members = self._members[tar_path] = {}
                with _open_tar(tar_path) as tar, contextlib.suppress(tarfile.TarError):  # discovery has said that it is damaged
                    members.update((member.name, (member.offset_data, member.size)) for member in tar if member.isfile())
            place = self._members[tar_path].get(inside)
        if place is None:
            raise FetchError("missing_file", f"{inside} is not in {tar_path.name}")
        return tar_path, *place


def _is_inside(path: Path, root: Path) -> bool:
    """False for a link that leads out of the folder."""
    return path.resolve().is_relative_to(root.resolve())


def _add(result: DiscoveryWriter, image_url: str, caption: str, document: str, position: int, found_in: str) -> None:
    if encodable(image_url) != image_url:
        result.add(drops=[Drop("bad_url", "its name is not UTF-8", document, encodable(image_url), caption)])
    elif caption:
        result.add([FoundImage(image_url, caption, document, position, found_in, document)])
    else:
        result.add(drops=[Drop("no_caption", "no caption file or entry", document, image_url)])


def _read_metadata(root: Path) -> Iterator[tuple[str, str]]:
    """(path inside the folder, caption) of `metadata.csv` and `metadata.jsonl`. An image whose line is broken has no caption."""
    for path, rows in ((root / "metadata.csv", _csv_rows), (root / "metadata.jsonl", _json_rows)):
        if not path.is_file() or not _is_inside(path, root):
            continue
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in rows(file):
                caption = next((clean_caption(str(row[name])) for name in CAPTION_FIELDS if row.get(name)), "")
                yield str(row.get("file_name") or row.get("image") or ""), caption


def _csv_rows(file: TextIO) -> Iterator[dict[str, Any]]:
    rows = csv.DictReader(file)
    while True:
        try:
            yield next(rows)
        except csv.Error:
            continue
        except StopIteration:
            return


def _json_rows(file: TextIO) -> Iterator[dict[str, Any]]:
    return (row for row in map(_read_json, file) if isinstance(row, dict))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _caption_of(data: bytes, suffix: str) -> str:
    text = data.decode("utf-8", "replace")
    if suffix != ".json":
        return clean_caption(text)
    values = _read_json(text)
    return next((clean_caption(str(values[name])) for name in CAPTION_FIELDS if values.get(name)), "") if isinstance(values, dict) else ""
