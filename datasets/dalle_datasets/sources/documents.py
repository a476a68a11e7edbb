"""Files that hold many pages or rows: found by path or pattern, or fetched from an address into a temporary file."""

import glob
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dalle_datasets.config import SourceConfig
from dalle_datasets.download.failures import FetchError
from dalle_datasets.download.guard import Guard, fetch
from dalle_datasets.sources.base import Discovered, Drop, SeenPage
from dalle_datasets.stage import Report

logger = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 8 * 2**30
DOCUMENT_DEADLINE_S = 6 * 3_600.0

Reader = Callable[[Path, str, Discovered], None]
"""(path of the file, name of the document, where to put what was found)."""


def read_documents(source: SourceConfig, guard: Guard, known: Mapping[str, SeenPage], reader: Reader, report: Report) -> Discovered:
    """Run `reader` over every document of `source.inputs` that is not known unchanged.

    A document that cannot be fetched or read becomes a drop. Raises `ValueError` for an input that matches no file.
    """
    result = Discovered()
    documents = list_documents(source.inputs)
    for done, document in enumerate(documents, 1):
        try:
            with _open_document(document, guard) as path:
                version = _version(document, path)
                if document in known and known[document].etag == version:
                    result.num_unchanged += 1
                else:
                    reader(path, document, result)
                result.pages.append(SeenPage(document, version, None, []))
        except FetchError as error:
            result.drops.append(Drop(error.code, error.detail, document))
        except (OSError, ValueError, EOFError) as error:  # a broken file; what was read of it stays
            what = " ".join(str(error).split())
            result.drops.append(Drop("broken_document", f"{type(error).__name__}: {what}"[:200], document))
            logger.warning("%s is broken: %s; what was read before stays, the rest is missing; get it again and refresh", document, what)
        report(done, len(documents), "documents", candidates=len(result.found))
    return result


def list_documents(inputs: tuple[str, ...]) -> list[str]:
    """Every input, with patterns resolved, sorted and without repeats. Raises `ValueError` for one that matches nothing."""
    documents: dict[str, None] = {}
    for item in inputs:
        if item.startswith(("http://", "https://")):
            documents[item] = None
            continue
        matches = sorted(glob.glob(str(Path(item).expanduser()), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            raise ValueError(f"source.inputs has {item!r}, which matches no file; check the path, relative to {Path.cwd()}")
        documents |= dict.fromkeys(matches)
    return list(documents)


@contextmanager
def _open_document(document: str, guard: Guard) -> Iterator[Path]:
    if not document.startswith(("http://", "https://")):
        yield Path(document)
        return
    with tempfile.NamedTemporaryFile(suffix=Path(document.partition("?")[0]).name[-40:]) as file:
        fetch(document, replace(guard, max_bytes=MAX_DOCUMENT_BYTES, deadline_s=DOCUMENT_DEADLINE_S), into=file)  # type: ignore[arg-type]
        file.flush()
        yield Path(file.name)


def _version(document: str, path: Path) -> str:
    """Tells whether a document is the same as before. Published archives do not change under one address."""
    if document.startswith(("http://", "https://")):
        return "fetched"
    return "-".join(f"{stat.st_size}.{stat.st_mtime_ns}" for stat in (path.stat(),))
