"""Captioned images that lie on this machine: folders, webdataset tars, and pictures inside Parquet tables. Nothing is downloaded.

URLs are `folder:<name of the folder>/<path inside>`, `tar:<name of the tar>/<member>` and `table:<name of the file>/<row>`, so
that ids do not depend on where the data lies.
"""

import contextlib
import json
import os
import re
import tarfile
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.images import IMAGE_SUFFIXES
from dalle_datasets.sources.annotations import Annotations
from dalle_datasets.sources.base import Drop, FoundImage, judge
from dalle_datasets.sources.discovered import DiscoveryWriter
from dalle_datasets.sources.documents import list_documents, version_of
from dalle_datasets.sources.tables import origin_of, picture_column
from dalle_datasets.store.parquet import open_parquet
from dalle_datasets.texts.captions import CAPTION_NAMES, captions_in, fold_name
from dalle_datasets.texts.decoding import TEXT, Decoded, decode_text, encodable
from dalle_datasets.texts.records import TextFile, json_records, read_csv
from dalle_datasets.web.failures import FetchError

UNREAD_SUFFIXES = frozenset(
    {
        ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".svgz", ".psd", ".ico", ".tga", ".exr", ".hdr", ".dng", ".cr2",
        ".cr3", ".nef", ".arw", ".raw", ".pdf", ".eps", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".dds", ".xcf", ".qoi",
    }
)  # fmt: skip
"""Of pictures in formats that are not read: each is a drop, so that nobody wonders where they are."""
UNREAD = "pictures of the kind {} are not read; convert it to PNG"
TEXT_SUFFIXES = (".txt", ".caption", ".json")
"""Of captions beside a picture; the first that says something counts."""
CAPTION_FIELDS = (*CAPTION_NAMES, "captions", "texts", "sentences", "raw", "prompt")
FILE_FIELDS = ("file_name", "image", "filename", "file", "image_file", "image_path", "filepath", "path", "img", "name")
METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.ndjson", "metadata.json", "metadata.parquet")
MAX_CAPTION_BYTES = 1 << 20
MAX_OPEN_TARS = 4
"""Whose members are in memory; URLs are asked for in their order, so threads are at one or two tars at a time."""


class _Captions(NamedTuple):
    """The captions of one picture, and where they were."""

    texts: list[str]
    found_in: str
    decoded: Decoded = TEXT
    page_url: str = ""
    """Page and licence of the picture, where JSON tells them."""
    licence: str | None = None


_NONE = _Captions([], "")


def read_folder(root: Path, document: str, result: DiscoveryWriter, caption_lines: str = "separate") -> None:
    """Images of a folder with their captions from `<image>.txt`, `.caption` or `.json` beside them, or from `metadata.csv`, `.jsonl`,
    `.parquet` in the same folder or one above; else from COCO's `captions_*.json` or CUB's `text_c10` anywhere in the folder.

    (These are the habits of img2dataset's `files` output and of Hugging Face's image folders, with a folder for each split.) Suffixes
    count in any letter case; a name in another letter case, or with accents in another Unicode form, is that of the picture, unless
    there is one of exactly that name. What cannot be read becomes a drop: a picture in an unknown format, a caption without a
    picture, a link that leads out of the folder.
    """
    bounds = _Bounds(root)
    listed = _Listed()
    annotations = Annotations(root)
    result.add(drops=[Drop("broken_document", encodable(problem)[:200], document) for problem in annotations.problems])
    seen: set[str] = set()
    position = 0
    for folder, folder_names, names in os.walk(root, onerror=lambda error: _drop_unreadable(result, document, error)):
        folder_names.sort()
        here = Path(folder)
        for name in folder_names:
            if (here / name).is_symlink():
                _drop_link(result, root, document, here / name, "a folder behind a link is not read; give it as an input of its own")
        for name in sorted(names, key=str.lower):
            if name.lower() in METADATA_NAMES:
                _read_metadata(here / name, root, bounds, document, result, listed)
        beside = _texts_of(here, [name for name in names if here / name not in annotations.files])
        beside_as = {_fold_spelling(stem): stem for stem in beside}
        stems = {stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES for stem in (Path(name).stem, name)}
        used: set[str] = set()
        for name in sorted(names):
            path, suffix = here / name, Path(name).suffix.lower()
            inside = path.relative_to(root).as_posix()
            if suffix in UNREAD_SUFFIXES or suffix in IMAGE_SUFFIXES:
                listed_name = listed.spelled.get(_fold_spelling(inside), inside)
                listed_name = inside if inside in listed or (root / listed_name).exists() else listed_name
                seen.add(listed_name)
            if suffix in UNREAD_SUFFIXES:
                used.add(Path(name).stem)
                address = encodable(f"folder:{root.name}/{inside}")
                result.add(drops=[Drop("unread_format", UNREAD.format(suffix), document, address)])
            elif suffix in IMAGE_SUFFIXES:
                keys = [Path(name).stem, name]  # a.txt, or a.png.txt
                others = [beside_as.get(_fold_spelling(key), key) for key in keys]
                keys += [key for key in others if key not in stems]
                used.update(keys)
                if not bounds.holds(path) or not path.is_file():
                    _drop_link(result, root, document, path, "its link leads out of the folder, or nowhere; put the file itself there")
                    continue
                captions = listed.get(listed_name, _NONE)
                files = [path for key in keys for path in beside.get(key, ())]
                for text_path in files if not captions.texts else ():
                    if bounds.holds(text_path) and text_path.is_file() and text_path.stat().st_size <= MAX_CAPTION_BYTES:
                        captions = _captions_of(text_path.read_bytes(), text_path.suffix.lower(), caption_lines)
                        if captions.texts:
                            break
                if not captions.texts:
                    captions = _annotated(annotations, path, bounds)
                _add(result, f"folder:{root.name}/{inside}", captions, document, position)
                position += 1
        for stem in sorted(beside.keys() - used):
            if any(path.suffix.lower() != ".json" for path in beside[stem]):
                address = encodable(f"folder:{root.name}/{(here / stem).relative_to(root).as_posix()}")
                result.add(drops=[Drop("no_picture", f"{encodable(beside[stem][0].name)} has no picture beside it", document, address)])
    for inside in sorted(listed.keys() - seen):
        address = encodable(f"folder:{root.name}/{inside}")[:200]
        result.add(drops=[Drop("missing_file", "metadata names it, but there is no such picture", document, address)])


def _annotated(annotations: Annotations, picture: Path, bounds: "_Bounds") -> _Captions:
    """The captions of a picture that are in a file of annotations."""
    texts, licence, file = annotations.find(picture)
    if file is not None and bounds.holds(file) and file.stat().st_size <= MAX_CAPTION_BYTES:
        return _captions_of(file.read_bytes(), ".txt", "separate")._replace(found_in="text_c10")
    return _Captions(texts, "captions json", licence=licence)


def _drop_unreadable(result: DiscoveryWriter, document: str, error: OSError) -> None:
    result.add(drops=[Drop("missing_file", encodable(f"{error.filename} cannot be read: {error.strerror}")[:200], document)])


class _Listed(dict[str, _Captions]):
    """Captions of metadata by path inside the folder, which may be spelled in another way than the picture's."""

    def __init__(self) -> None:
        super().__init__()
        self.spelled: dict[str, str] = {}
        """Folded spelling -> path."""

    def __setitem__(self, inside: str, captions: _Captions) -> None:
        super().__setitem__(inside, captions)
        self.spelled.setdefault(_fold_spelling(inside), inside)


def _fold_spelling(name: str) -> str:
    """A name without what systems and spreadsheets change in it: letter case, and whether accents stand alone."""
    return unicodedata.normalize("NFC", name).casefold()


def _texts_of(folder: Path, names: list[str]) -> dict[str, list[Path]]:
    """Name without its last suffix -> files that may hold captions, in the order in which they count."""
    found: dict[str, list[Path]] = {}
    for name in sorted(names, key=lambda name: (TEXT_SUFFIXES.index(s) if (s := Path(name).suffix.lower()) in TEXT_SUFFIXES else 9, name)):
        if Path(name).suffix.lower() in TEXT_SUFFIXES and name.lower() not in METADATA_NAMES and not _ABOUT.fullmatch(name):
            found.setdefault(Path(name).stem, []).append(folder / name)
    return found


_ABOUT = re.compile(r"(?:read.?me|licen[cs]e|copying|notice|requirements|dataset_infos?|index|classes|labels)\b.*", re.IGNORECASE)
"""Files of text about a folder, which caption nothing."""


class _Bounds:
    """Where the files of a folder may lie: in it, or among the blobs of the Hugging Face cache that it is a snapshot of."""

    def __init__(self, root: Path) -> None:
        self._allowed = [root.resolve()]
        for parent in root.absolute().parents:
            if parent.name == "snapshots" and (blobs := parent.parent / "blobs").is_dir():
                self._allowed.append(blobs.resolve())

    def holds(self, path: Path) -> bool:
        """False for a link that leads out of the bounds, or in a circle."""
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError):
            return False
        return any(resolved.is_relative_to(allowed) for allowed in self._allowed)


def _drop_link(result: DiscoveryWriter, root: Path, document: str, path: Path, why: str) -> None:
    address = encodable(f"folder:{root.name}/{path.relative_to(root).as_posix()}")
    result.add(drops=[Drop("missing_file", why, document, address)])


def read_tar(path: Path, document: str, result: DiscoveryWriter, caption_lines: str = "separate") -> None:
    """Images of a webdataset tar: members that share a key, some of them pictures, `txt`, `caption` or `json` their captions; `json`
    also tells their licence and page.

    A key is a name up to its first dot, or up to its last where several pictures would have one key. Raises `OSError` for a tar that is
    broken, cut off or compressed; what was read of it stays.
    """
    pictures: list[str] = []
    captions: dict[str, _Captions] = {}
    origins: dict[str, tuple[str, str | None]] = {}
    texts: list[str] = []
    unread: list[str] = []
    num_members = 0
    try:
        with _open_tar(path) as tar:
            for num_members, member in enumerate(tar, 1):  # noqa: B007 - for the error
                suffix = PurePosixPath(member.name).suffix.lower()
                address = encodable(f"tar:{path.name}/{member.name}")
                if not member.isfile():
                    if suffix in IMAGE_SUFFIXES | UNREAD_SUFFIXES and not member.isdir():
                        result.add(drops=[Drop("missing_file", "a link, which is not followed; store the file itself", document, address)])
                        unread.append(member.name)
                elif suffix in IMAGE_SUFFIXES:
                    pictures.append(member.name)
                elif suffix in UNREAD_SUFFIXES:
                    result.add(drops=[Drop("unread_format", UNREAD.format(suffix), document, address)])
                    unread.append(member.name)
                elif suffix in TEXT_SUFFIXES and member.size <= MAX_CAPTION_BYTES:
                    texts.append(member.name)
                    file = tar.extractfile(member)
                    found = _captions_of(file.read(), suffix, caption_lines) if file is not None else _NONE
                    for key in _keys_of(member.name):
                        if found.texts and (suffix != ".json" or key not in captions):
                            captions[key] = found
                        if found.page_url or found.licence:
                            origins[key] = found.page_url, found.licence
            if not _has_end(path, tar.offset):
                raise OSError(f"cut off or damaged after {num_members} members, at byte {tar.offset} of {path.stat().st_size}")
    except tarfile.TarError as error:
        raise OSError(f"no uncompressed tar, or damaged after {num_members} members ({error})") from error
    finally:
        for position, member_name in enumerate(dict.fromkeys(pictures)):
            found = next((captions[key] for key in _keys_of(member_name) if key in captions), _NONE)
            page_url, licence = next((origins[key] for key in _keys_of(member_name) if key in origins), ("", None))
            found = found._replace(page_url=page_url, licence=licence)
            _add(result, f"tar:{path.name}/{member_name}", found, document, position)
        keys = {key for name in [*pictures, *unread] for key in _keys_of(name)}
        for name in texts:
            if not name.lower().endswith(".json") and keys.isdisjoint(_keys_of(name)) and not _ABOUT.fullmatch(PurePosixPath(name).name):
                address = encodable(f"tar:{path.name}/{name}")
                result.add(drops=[Drop("no_picture", "a caption without a picture of its name", document, address)])


def _keys_of(member_name: str) -> tuple[str, ...]:
    """What a member may share with others: its name up to the last dot, and up to the first."""
    name = PurePosixPath(member_name)
    return tuple(dict.fromkeys(str(name.parent / key) for key in (name.stem, name.name.partition(".")[0])))


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
        self._bounds = {name: _Bounds(root) for name, root in self._roots.items()}
        self._lock = threading.Lock()
        self._members: dict[Path, dict[str, tuple[int, int]]] = {}
        self._table: _PictureTable | None = None

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes of an image. Raises `FetchError`."""
        kind, _, rest = image_url.partition(":")
        name, _, inside = rest.partition("/")
        root = self._roots.get(name)
        if root is None:
            raise FetchError("missing_file", f"{name} is not among source.inputs")
        try:
            if kind == "table":
                data = self._read_row(root, inside)
            else:
                path, offset, size = self._locate_member(root, inside) if kind == "tar" else self._locate_file(name, inside)
                self._check_size(size)
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(size)
                if len(data) < size:
                    raise FetchError("incomplete_body", f"{len(data)} of {size} bytes: {path.name} is cut off")
        except (OSError, ValueError, tarfile.TarError, pa.ArrowException) as error:
            raise FetchError("missing_file", f"{image_url}: {error}") from error
        if not data:
            raise FetchError("empty_body", f"{image_url} has no bytes")
        return data

    def version(self, image_url: str) -> str | None:
        """What is different when the file of an image is; None if there is none."""
        kind, _, rest = image_url.partition(":")
        name, _, inside = rest.partition("/")
        root = self._roots.get(name)
        try:
            return None if root is None else version_of(root / inside if kind == "folder" else root)
        except OSError:
            return None

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FetchError("too_many_bytes", f"{size} bytes, {self._max_bytes} allowed")

    def _locate_file(self, name: str, inside: str) -> tuple[Path, int, int]:
        root = self._roots[name]
        path = root / inside
        if ".." in PurePosixPath(inside).parts or not self._bounds[name].holds(path):
            raise FetchError("missing_file", f"{inside} lies outside of {name}")
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

    def _read_row(self, path: Path, row: str) -> bytes:
        with self._lock:
            if self._table is None or self._table.path != path:
                self._table = _PictureTable(path)
            data = self._table.read(int(row))
        self._check_size(len(data))
        return data


class _PictureTable:
    """The pictures of a Parquet file, a row group at a time in memory; they are asked for in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_parquet(path)
        place = picture_column(self._file)
        if place is None:
            raise ValueError("it has no column of pictures any more")
        self._column = self._file.schema_arrow.names[place]
        footer: pq.FileMetaData = self._file.metadata
        self._ends: list[int] = []
        for group in range(footer.num_row_groups):
            self._ends.append((self._ends[-1] if self._ends else 0) + footer.row_group(group).num_rows)
        self._group, self._start = -1, 0
        self._values: pa.ChunkedArray | None = None

    def read(self, row: int) -> bytes:
        """The picture of a row; empty if it has none."""
        group = next((group for group, end in enumerate(self._ends) if row < end), None)
        if group is None:
            raise ValueError(f"it has no row {row} any more")
        if group != self._group:
            self._values = None  # before the next one is in memory
            self._values = self._file.read_row_group(group, [self._column]).column(0)
            self._group, self._start = group, self._ends[group - 1] if group else 0
        assert self._values is not None
        value = self._values[row - self._start].as_py()
        return (value.get("bytes") if isinstance(value, Mapping) else value) or b""


def _add(result: DiscoveryWriter, image_url: str, captions: _Captions, document: str, position: int) -> None:
    if encodable(image_url) != image_url:
        result.add(drops=[Drop("bad_url", "its name is not UTF-8", document, encodable(image_url), "".join(captions.texts[:1]))])
        return
    for caption in captions.texts or [""]:
        page_url = captions.page_url or document
        found = FoundImage(image_url, caption, page_url, position, captions.found_in, document, licence=captions.licence)
        result.take(judge(found, captions.decoded, "no caption file or entry", is_local=True))


def _read_metadata(path: Path, root: Path, bounds: _Bounds, document: str, result: DiscoveryWriter, listed: "_Listed") -> None:
    """Add to `listed` (path inside the folder -> captions) what a file of metadata says. Lines that cannot be read become drops."""
    if not path.is_file() or not bounds.holds(path):
        _drop_link(result, root, document, path, "its link leads out of the folder, or nowhere; put the file itself there")
        return
    for number, row, decoded, problem in _metadata_rows(path):
        name = next((row[field] for field in FILE_FIELDS if isinstance(row.get(field), str) and row[field].strip()), "")
        if problem or not name:
            what = problem or f"none of {', '.join(FILE_FIELDS[:3])} names a picture"
            inside = path.relative_to(root).as_posix()
            result.add(drops=[Drop("broken_line", f"line {number} of {inside} cannot be read: {what}"[:200], document)])
            continue
        value = next((row[field] for field in CAPTION_FIELDS if row.get(field)), None)
        picture = os.path.normpath((path.parent.relative_to(root) / name.strip().replace("\\", "/")).as_posix())
        listed[picture] = _Captions([*listed.get(picture, _NONE).texts, *captions_in(value)], "metadata", decoded)


def _metadata_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], Decoded, str]]:
    """(line, values by folded name, how it was decoded, what is wrong with it)."""
    if path.suffix.lower() == ".parquet":
        with open_parquet(path) as parquet:
            wanted = [name for name in parquet.schema_arrow.names if fold_name(name) in {*FILE_FIELDS, *CAPTION_FIELDS}]
            number = 0
            for batch in parquet.iter_batches(columns=wanted):
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    number += 1
                    yield number, {fold_name(name): value for name, value in row.items()}, TEXT, ""
        return
    with path.open("rb") as file:
        text, suffix = TextFile(file), path.suffix.lower()
        records = read_csv(text, "," if suffix == ".csv" else "\t") if suffix in (".csv", ".tsv") else json_records(text)
        for record in records:
            if record.problem or not isinstance(record.value, dict):
                yield record.number, {}, record.decoded, record.problem or "it is no JSON object"
            else:
                yield record.number, {fold_name(name): value for name, value in record.value.items()}, record.decoded, ""


def _captions_of(data: bytes, suffix: str, caption_lines: str) -> _Captions:
    """The captions of a file beside a picture: one for each line, or all lines in one; of JSON, of the first field that has any."""
    decoded = decode_text(data)
    if suffix != ".json":
        lines = [decoded.text] if caption_lines == "joined" else decoded.text.splitlines()
        return _Captions(captions_in(lines), suffix[1:], decoded)
    try:
        value = json.loads(decoded.text)
    except (ValueError, RecursionError):
        return _NONE
    origin: tuple[str, str | None] = ("", None)
    if isinstance(value, dict):
        fields = {fold_name(name): item for name, item in value.items()}
        value, origin = next((fields[name] for name in CAPTION_FIELDS if fields.get(name)), value), origin_of(fields)
    return _Captions(captions_in(value), "json", decoded, *origin)
