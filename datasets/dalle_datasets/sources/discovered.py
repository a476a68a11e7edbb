"""Writer of a discovery: finds go to disk at once, so any size takes the memory of a few thousand rows."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.sources.base import Drop, FoundImage, SeenPage
from dalle_datasets.sources.blocked import BlockList
from dalle_datasets.store.ids import candidate_id, content_id
from dalle_datasets.store.parquet import RowsWriter, check_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, PAGES

FOUND_FILE, DROPS_FILE, PAGES_FILE, FATES_FILE = "found.parquet", "drops.parquet", "pages.parquet", "fates.parquet"
PAGES_IN_GROUP = 64
"""Few, because a page may have thousands of links, and because one of them is looked up by reading its group."""
_FIND = [*CANDIDATES, pa.field("address_id", pa.string()), pa.field("unit", pa.string())]
FINDS = pa.schema(
    [*_FIND, pa.field("is_candidate", pa.bool_()), pa.field("replaced_by", pa.string())], metadata={"schema": "finds", "version": "1"}
)
"""Every place where a candidate is shown. `unit` is what is asked to see whether it still is: the address of a page as it was asked for,
or a document. The first find of a candidate stands for it. `replaced_by` is the id of the caption that a page has given the same address
since."""
FOUND = pa.schema([*_FIND, pa.field("reader", pa.int32()), pa.field("place", pa.int64())], metadata={"schema": "found", "version": "1"})
"""A find, who made it, and when: those of a reader are in the order of their places."""
FATES = pa.schema([("page_url", pa.string()), ("code", pa.string()), ("detail", pa.string())], metadata={"schema": "fates", "version": "1"})
"""What became of pages and documents: `READ`, `UNCHANGED`, or why their finds are withdrawn."""
READ, UNCHANGED, PAGE_GONE = "read", "unchanged", "page_gone"


class DiscoveryWriter:
    """Rows for four files of a folder, which are there when the `with` block ends well. Threads may share it.

    The finds of each `reader` (a number) keep their order, whatever the others do meanwhile. What is on the block list is counted and
    not written.
    """

    def __init__(self, folder: Path, source: str, blocks: BlockList | None = None) -> None:
        self.folder = folder
        self.blocks = blocks or BlockList()
        self.num_blocked = 0
        """Finds, drops and pages on the block list."""
        self.num_found = 0
        self.num_pages = 0
        """Pages (or documents) read, or unchanged since they were read."""
        self.num_unchanged = 0
        """How many of them did not change, so that their candidates are known."""
        self.num_left = 0
        """Pages known but not asked for."""
        self.num_finds_of: Counter[str] = Counter()
        """Of each page and document."""
        self.reasons: Counter[str] = Counter()
        self.first_drop: Drop | None = None
        self.error: OSError | None = None
        """Why nothing more can be kept, e.g. a full disk: not the fault of the document that is being read."""
        self._source = source
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        def writer(name: str, schema: pa.Schema, row_group_size: int = 4_096) -> RowsWriter:
            return self._stack.enter_context(RowsWriter(self.folder / name, schema, row_group_size))

        self._found, self._drops = writer(FOUND_FILE, FOUND), writer(DROPS_FILE, DROPPED_PAIRS)
        self._pages, self._fates = writer(PAGES_FILE, PAGES, PAGES_IN_GROUP), writer(FATES_FILE, FATES)
        return self

    def add(self, found: Iterable[FoundImage] = (), drops: Iterable[Drop] = (), reader: int = 0, unit: str = "") -> None:
        """Keep candidates, and what cannot become one. `unit` is the page or document as it was asked for, if the finds do not say."""
        with self._writing():
            for item in found:
                if self._is_blocked(item.image_url, item.page_url, unit):
                    continue
                place = {"reader": reader, "place": self._found.num_rows, "source": self._source}
                row = find_row({**place, **item._asdict(), "unit": unit or item.document or item.page_url})
                self._found.append(row)
                self.num_finds_of[row["unit"]] += 1
            self.num_found = self._found.num_rows
            for drop in drops:
                if self._is_blocked(drop.image_url, drop.page_url, unit):
                    continue
                self._drops.append(drop_row(drop, self._source))
                self.reasons[drop.reason] += 1
                self.first_drop = self.first_drop or drop

    def take(self, *items: FoundImage | Drop, reader: int = 0) -> None:
        """Keep what was judged, each as what it is."""
        found = [item for item in items if isinstance(item, FoundImage)]
        self.add(found, [item for item in items if isinstance(item, Drop)], reader)

    def add_page(self, page: SeenPage, is_unchanged: bool) -> None:
        """Keep a page that was read, or that did not change since."""
        with self._writing():
            self._write_page(page)
            self.num_pages += 1
            self.num_unchanged += is_unchanged
            if is_unchanged:
                self._fates.append({"page_url": page.page_url, "code": UNCHANGED, "detail": ""})

    def keep_page(self, page: SeenPage) -> None:
        """Go on knowing a page that could not be asked today."""
        with self._writing():
            self._write_page(page)

    def add_fate(self, code: str, detail: str, *page_urls: str) -> None:
        """Keep that pages were read, in which case earlier finds and drops of theirs do not count any more, or why they are not to be."""
        with self._writing():
            for page_url in page_urls:
                self._fates.append({"page_url": page_url, "code": code, "detail": detail})

    def add_read_anew(self, *page_urls: str) -> None:
        """Keep addresses of pages that were read."""
        self.add_fate(READ, "", *page_urls)

    def _is_blocked(self, image_url: str, *page_urls: str) -> bool:
        is_blocked = self.blocks.has_address(image_url, *page_urls)
        self.num_blocked += is_blocked
        return is_blocked

    def _write_page(self, page: SeenPage) -> None:
        if not self.blocks.has_page(page.page_url):
            self._pages.append(page._replace(links=[link for link in page.links if not self.blocks.has_address(link, link)])._asdict())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except OSError as error:
                self.error = error
                raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, traceback)


def drop_row(drop: Drop, source: str) -> dict[str, Any]:
    """A drop of discovery: an image has the id it would have had as a candidate, a page one of its own."""
    id = candidate_id(drop.image_url, drop.caption) if drop.image_url else content_id("page", drop.page_url)
    return {"candidate_id": id, "source": source, "stage": "discover", **drop._asdict()}


def find_row(find: Mapping[str, Any]) -> dict[str, Any]:
    """A find with its ids."""
    ids = {"candidate_id": candidate_id(find["image_url"], find["caption"]), "address_id": content_id("address", find["image_url"])}
    return {**ids, **find}


class KnownPages:
    """The pages of an earlier discovery. Their URLs are in memory, their links stay on disk. Threads may share it."""

    def __init__(self, path: Path, units: Collection[str] = (), is_current: bool = True) -> None:
        """`units` are the pages and documents with finds; without `is_current` they were read by other rules, and are to be read again.

        Raises `SchemaError`.
        """
        check_parquet(path, PAGES)
        self._file = pq.ParquetFile(path)
        self.units = frozenset(units)
        self._is_current = is_current
        self._place_of: dict[str, tuple[int, int]] = {}
        for group in range(self._file.num_row_groups):
            urls = self._file.read_row_group(group, ["page_url"])["page_url"].to_pylist()
            self._place_of.update((url, (group, row)) for row, url in enumerate(urls))
        self._lock = threading.Lock()

    def get(self, page_url: str) -> SeenPage | None:
        """The page as it was, if it was read."""
        if page_url not in self._place_of:
            return None
        group, row = self._place_of[page_url]
        with self._lock:
            rows = self._file.read_row_group(group)
        page = SeenPage(**rows.slice(row, 1).to_pylist()[0])
        return page if self._is_current else page._replace(etag=None, last_modified=None)
