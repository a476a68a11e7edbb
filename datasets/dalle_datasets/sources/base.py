"""What readers of every kind of source share: finds and drops, clean URLs and captions."""

import html
import re
import urllib.parse
from typing import NamedTuple

import ftfy

MAX_PAGE_BYTES = 10 * 2**20


class FoundImage(NamedTuple):
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
    """What the page or table says about this image: a URL or a name."""


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


def clean_url(url: str, base: str = "") -> str:
    """`url` made absolute and written in one way: no fragment, no spaces around it, lower-case host, no default port.

    URLs that cannot be read are returned as they are; fetching them says what is wrong.
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
