"""Files that hold many pages or rows: found by path or pattern, or fetched from a URL into a temporary file."""

import glob
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dalle_datasets.config import SourceConfig
from dalle_datasets.sources.base import Drop, SeenPage
from dalle_datasets.sources.discovered import DiscoveryWriter, KnownPages
from dalle_datasets.store.ids import content_id_of
from dalle_datasets.store.manifest import Report
from dalle_datasets.texts.decoding import encodable
from dalle_datasets.web.failures import OPT_OUTS, FetchError
from dalle_datasets.web.guard import RequestLimits, Wish, fetch

logger = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 8 * 2**30
DOCUMENT_DEADLINE_S = 6 * 3_600.0

KINDS_OF_SUFFIXES = {
    "webdatasets": frozenset({".tar"}),
    "url_tables": frozenset({".csv", ".tsv", ".jsonl", ".json", ".parquet"}),
    "web_archives": frozenset({".warc", ".wat", ".wacz"}),
}
"""Ends of names, of which `.gz` may be the last."""

Reader = Callable[[Path, str, DiscoveryWriter], None]
"""(path of the file, name of the document, where to put what was found)."""


def read_documents(
    source: SourceConfig, limits: RequestLimits, known: KnownPages | None, reader: Reader, result: DiscoveryWriter, report: Report
) -> None:
    """Run `reader` over every document of `source.inputs` that is not known unchanged.

    A document that cannot be fetched or read becomes a drop. Raises `ValueError` for an input that matches no file.
    """
    documents = list_documents(source.inputs)
    for done, document in enumerate(documents, 1):
        earlier = known.get(document) if known else None
        try:
            read = _read_url if document.startswith(("http://", "https://")) else _read_file
            page = read(document, limits, earlier, lambda path, document=document: reader(path, document, result))  # type: ignore[misc]
            result.add_page(page, is_unchanged=page is earlier)
            if page is not earlier:
                result.add_read_anew(document)
        except FetchError as error:
            result.add(drops=[Drop(error.code, error.detail, document)])
            if error.code in OPT_OUTS:
                result.add_fate(error.code, error.detail, document)
            elif earlier is not None:
                result.keep_page(earlier)
        except (OSError, ValueError, EOFError) as error:  # a broken file; what was read of it stays
            if result.error is not None:
                raise result.error from error
            what = " ".join(str(error).split())
            result.add(drops=[Drop("broken_document", f"{type(error).__name__}: {what}"[:200], document)])
            logger.warning("%s is broken: %s; what was read before stays, the rest is missing; get it again and refresh", document, what)
        report(done, len(documents), "documents", candidates=result.num_found)


def list_documents(inputs: tuple[str, ...]) -> list[str]:
    """Every input, patterns resolved (what exists is none), sorted, without repeats. Raises `ValueError` for one that matches nothing."""
    documents: dict[str, None] = {}
    for item in inputs:
        if item.startswith(("http://", "https://")):
            documents[item] = None
            continue
        path = Path(item).expanduser()
        # A name may have brackets in it; what is there is meant as it stands.
        matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            raise ValueError(
                f"source.inputs has {item!r}, which matches no file; check the path, relative to {Path.cwd()}, or take it out, which "
                "withdraws what came from it"
            )
        documents |= dict.fromkeys(matches)
    return list(documents)


def kind_of_document(path: Path) -> str:
    """The `source.kind` that reads a folder or file, known by its name. Raises `ValueError` when none does."""
    if path.is_dir():
        return "image_folders"
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    for kind, known in KINDS_OF_SUFFIXES.items():
        if known.intersection(suffixes):
            return kind
    known_ones = ", ".join(sorted(suffix for known in KINDS_OF_SUFFIXES.values() for suffix in known))
    raise ValueError(f"{path} is no folder, tar or table ({known_ones}); give one of these, or an http(s) address")


def version_of(path: Path) -> str:
    """What is different as soon as a file, or any file of a folder, is: sizes and times of change. Raises `OSError`."""
    if not path.is_dir():
        stat = path.stat()
        return f"{stat.st_size}.{stat.st_mtime_ns}"
    return content_id_of(part for line in _listing(str(path)) for part in line)


def _listing(folder: str, inside: str = "") -> Iterator[tuple[str, str]]:
    """(path inside, size and time) of every file in a folder and those in it, links to folders left out."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _listing(entry.path, f"{name}/")
                continue
            try:
                stat = entry.stat()
            except OSError:  # a link that leads nowhere
                stat = entry.stat(follow_symlinks=False)
            yield encodable(name), f"{stat.st_size}.{stat.st_mtime_ns}"


def documents_id(inputs: tuple[str, ...]) -> str:
    """Id of what `inputs` name on this machine, by names, sizes and times of change: a blink for thousands of files.

    Raises `ValueError` for an input that matches nothing.
    """
    documents = list_documents(inputs)
    versions = ("" if document.startswith(("http://", "https://")) else _version_or_error(Path(document)) for document in documents)
    return content_id_of(part for pair in zip(map(encodable, documents), versions, strict=True) for part in pair)


def _version_or_error(path: Path) -> str:
    """A document that cannot be looked at is one that cannot be read, which discovery will say."""
    try:
        return version_of(path)
    except OSError as error:
        return str(error)


def _read_file(document: str, guard: RequestLimits, earlier: SeenPage | None, read: Callable[[Path], None]) -> SeenPage:
    """Read a file unless it is as before; its size and time of change tell."""
    path = Path(document)
    version = version_of(path)
    if earlier is not None and earlier.etag == version:
        return earlier
    read(path)
    return SeenPage(document, version, None, [])


def _read_url(document: str, limits: RequestLimits, earlier: SeenPage | None, read: Callable[[Path], None]) -> SeenPage:
    """Read what a URL holds unless it is as before. One that gives no means to tell is a published archive: it does not change."""
    conditions = {}
    if earlier is not None:
        if earlier.etag:
            conditions["If-None-Match"] = earlier.etag
        elif earlier.last_modified:
            conditions["If-Modified-Since"] = earlier.last_modified
        else:
            return earlier
    limits = replace(limits, max_bytes=MAX_DOCUMENT_BYTES, deadline_s=DOCUMENT_DEADLINE_S)
    with tempfile.NamedTemporaryFile(suffix=Path(document.partition("?")[0]).name[-40:]) as file:
        answer = fetch(document, limits, Wish(headers=conditions, into=file))  # type: ignore[arg-type]
        if answer.status == 304 and earlier is not None:
            return earlier
        file.flush()
        read(Path(file.name))
    return SeenPage(document, answer.headers.get("ETag"), answer.headers.get("Last-Modified"), [])
