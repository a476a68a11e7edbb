"""The block list of a data root: what was forgotten on request, and must not come back from any source.

`blocked.jsonl` has one JSON object a line: `kind`, `value`, `request` (whose record is in `forgotten/`) and `at`. Values of addresses
and pictures are SHA-256, so that the list itself names nobody; only a look is kept as it is, because looks are compared by likeness.

    url, page, host    an address without its scheme; a host stands for the hosts below it, too
    picture            SHA-256 of a file's bytes, or of its decoded pixels
    look               two perceptual hashes of 64 bits and a thumbnail of 4 x 4 pixels (`filters/hashes.py`)
"""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dalle_datasets.sources.base import clean_url
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path

ADDRESSES = ("url", "page", "host")
_DIGITS = {"url": 64, "page": 64, "host": 64, "picture": 64, "look": 128}
"""Kind of entry -> hex digits of its value."""
PENDING, DONE = "pending", "done"


class Block(NamedTuple):
    """One entry."""

    kind: str
    value: str
    request: str = ""
    at: str = ""


def block(kind: str, text: str) -> Block:
    """The entry that keeps an address or the SHA-256 of a picture out. Raises `ValueError` for a host that is none."""
    return Block(kind, _value(kind, _host_key(text) if kind == "host" else text.lower() if kind == "picture" else _address_key(text)))


class BlockList:
    """Answers whether an address or a picture is on the list."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.blocks = list(blocks)
        self._values: dict[str, set[str]] = {kind: set() for kind in _DIGITS}
        for entry in self.blocks:
            self._values[entry.kind].add(entry.value)

    def __len__(self) -> int:
        return len(self.blocks)

    def __contains__(self, entry: Block) -> bool:
        return entry.value in self._values[entry.kind]

    @property
    def ids(self) -> list[str]:
        """What decides what is kept out, none for an empty list."""
        return sorted({f"{entry.kind} {entry.value}" for entry in self.blocks})

    @property
    def looks(self) -> list[bytes]:
        """64 bytes each: pHash, dHash, thumbnail."""
        return [bytes.fromhex(value) for value in sorted(self._values["look"])]

    def has_address(self, image_url: str, *page_urls: str | None) -> bool:
        """Whether a picture at this address, shown on these pages, was forgotten by its address, its page or a host."""
        if image_url and self._values["url"] and _value("url", _address_key(image_url)) in self._values["url"]:
            return True
        return any(self.has_page(page) for page in page_urls if page) or self._has_host(image_url)

    def has_page(self, page_url: str) -> bool:
        """Whether a page is not to be read."""
        return (bool(self._values["page"]) and _value("page", _address_key(page_url)) in self._values["page"]) or self._has_host(page_url)

    def has_picture(self, *digests: str | None) -> bool:
        """Whether one of some SHA-256 is of a forgotten picture."""
        return bool(self._values["picture"]) and any(digest and _value("picture", digest) in self._values["picture"] for digest in digests)

    def _has_host(self, url: str) -> bool:
        if not self._values["host"]:
            return False
        return any(_value("host", name) in self._values["host"] for name in _names_of(url))


def read_blocks(layout: Layout, finishing: bool = False) -> BlockList:
    """The block list of a data root, empty if nothing was ever forgotten there.

    Raises `ValueError` for a line that is no entry, and, unless `finishing`, when a request to forget was interrupted: until that is
    finished nothing is collected and no training set is made.
    """
    if not finishing and (unfinished := pending_records(layout)):
        raise ValueError(
            f"the request to forget {unfinished[0].stem} was interrupted ({unfinished[0]}); finish it with `dalle forget --yes` first"
        )
    if not layout.blocked.exists():
        return BlockList()
    return BlockList(
        _parse(layout.blocked, number, line) for number, line in enumerate(layout.blocked.read_bytes().splitlines(), 1) if line.strip()
    )


def pending_records(layout: Layout) -> list[Path]:
    """The records of requests to forget that were interrupted."""
    return [path for path in sorted(layout.forgotten.glob("*.json")) if read_record(path)["status"] == PENDING]


def read_record(path: Path) -> dict[str, object]:
    """The record of a request to forget. Raises `ValueError` when it is damaged."""
    try:
        record: dict[str, object] = json.loads(path.read_text())
        if record["status"] not in (PENDING, DONE):
            raise ValueError(f"its status is {record['status']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a backup, or delete it and ask to forget again") from error
    return record


def add_blocks(layout: Layout, blocks: Iterable[Block]) -> None:
    """Append entries that are not there yet. The list is whole at every moment."""
    known = read_blocks(layout, finishing=True)
    added = [entry for entry in dict.fromkeys(blocks) if entry not in known]
    if not added:
        return
    lines = layout.blocked.read_text() if layout.blocked.exists() else ""
    with atomic_path(layout.blocked) as partial:
        partial.write_text(lines + "".join(json.dumps(entry._asdict()) + "\n" for entry in added))


def _parse(path: Path, number: int, line: bytes) -> Block:
    try:
        found = json.loads(line)
        entry = Block(*(found.get(name, "") for name in Block._fields))
        if not all(isinstance(value, str) for value in entry):
            raise ValueError("its values are no texts")
        if entry.kind not in _DIGITS:
            raise ValueError(f"kind {entry.kind[:40]!r} is none of {', '.join(_DIGITS)}")
        if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[entry.kind]}}}", entry.value):
            raise ValueError(f"the value of a {entry.kind} has {_DIGITS[entry.kind]} hex digits")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}, line {number} is no entry of a block list ({error}); mend the line or take it from a backup: until then nothing is "
            "collected or trained on, lest what was forgotten comes back"
        ) from error
    return entry


def _value(kind: str, key: str) -> str:
    return hashlib.sha256(f"{kind} {key}".encode()).hexdigest()


def _address_key(url: str) -> str:
    """An address without its scheme and fragment: both ways to ask for a page are the same page."""
    return re.sub(r"^https?://", "", clean_url(url))


def _host_key(text: str) -> str:
    """A host, with its port if one is named, as addresses have it. Raises `ValueError` when it is none."""
    url = clean_url(text if "://" in text else f"http://{text.strip()}/")
    host = urllib.parse.urlsplit(url).netloc if url.startswith(("http://", "https://")) else ""
    if not host:
        raise ValueError(f"{text!r} is no host; name one as in example.com")
    return host


def _names_of(url: str) -> Iterator[str]:
    """The host of an address with its port, then without, then every domain that it is in."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else "")
        host = parts.hostname or ""
    except ValueError:
        return
    if host:
        yield parts.netloc
        yield host if ":" not in host else f"[{host}]"
        labels = host.split(".")
        yield from (".".join(labels[start:]) for start in range(1, len(labels)))
