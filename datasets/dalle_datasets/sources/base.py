"""What every kind of source has in common: candidates, drops, clean addresses and captions, and the site that may have to be served."""

import html
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import ftfy

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.demo.demo_site import START_URL, publish_site
from dalle_datasets.web.guard import Guard

MAX_PAGE_BYTES = 10 * 2**20


class Found(NamedTuple):
    """An image with a caption on a page."""

    image_url: str
    caption: str
    page_url: str
    position: int
    """Place among the page's images, from 0."""
    found_in: str
    """Where the caption was: 'img alt', 'figcaption', 'img title', 'sitemap', 'table', …"""
    document: str | None = None
    """The file that held the page."""
    date: str | None = None
    """When the page was captured, as the document says."""
    licence: str | None = None
    """What the page or table says about this image: an address or a name."""


class Drop(NamedTuple):
    """A page or an image that cannot become a candidate, and why."""

    reason: str
    detail: str
    page_url: str
    image_url: str = ""
    caption: str = ""


class SeenPage(NamedTuple):
    """A page that was read, and what tells next time whether it changed."""

    page_url: str
    etag: str | None
    last_modified: str | None
    links: list[str]


def check_source(source: SourceConfig) -> None:
    """Raises `ValueError` if there is nothing to read."""
    if source.kind == "web_pages" and not source.start_urls:
        raise ValueError("source.start_urls is empty, so there is no page to read; give at least one address")
    if source.kind not in ("emoji_scenes", "web_pages") and not source.inputs:
        raise ValueError(f"source.inputs is empty, but source.kind={source.kind} reads files; give at least one path or pattern")


@contextmanager
def open_source(source: SourceConfig) -> Iterator[tuple[tuple[str, ...], Mapping[str, tuple[str, int]]]]:
    """(start addresses, host -> (address, port)) of a source for as long as it is read. The demo's site is served meanwhile."""
    if source.kind == "emoji_scenes":
        with publish_site(source) as connect_to:
            yield (START_URL,), connect_to
    else:
        yield source.start_urls, {}


def page_guard(source: SourceConfig, download: DownloadConfig, connect_to: Mapping[str, tuple[str, int]]) -> Guard:
    """The limits of a request for a page."""
    return Guard(
        user_agent=source.user_agent,
        timeout_s=source.page_timeout_s,
        deadline_s=2 * source.page_timeout_s,
        max_bytes=MAX_PAGE_BYTES,
        allow_addresses=download.allow_addresses,
        connect_to=connect_to,
    )


def clean_url(url: str, base: str = "") -> str:
    """`url` made absolute and written in one way: no fragment, no spaces around it, lower-case host, no default port.

    Addresses that cannot be read are returned as they are; fetching them says what is wrong.
    """
    url = encodable(re.sub(r"[\t\r\n]", "", url.strip()))
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, url))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return parts.geturl()
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port
    except ValueError:
        return url
    default_port = 443 if parts.scheme == "https" else 80
    netloc = host if port in (None, default_port) else f"{host}:{port}"
    return urllib.parse.urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))


def encodable(text: str) -> str:
    """`text` without the halves of characters that JSON escapes and file names can smuggle in, and that no file of ours can hold."""
    return text.encode("utf-8", "replace").decode()


def clean_caption(text: str | None) -> str:
    """`text` on one line, with HTML entities and wrongly decoded characters repaired."""
    text = ftfy.fix_text(html.unescape(text or ""), normalization="NFC")
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
