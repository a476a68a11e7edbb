"""What readers of every kind of source share: finds and drops, clean URLs, and which finds can be used."""

from typing import NamedTuple

from dalle_datasets.texts.decoding import TEXT, Decoded, encodable
from dalle_datasets.web.urls import resolve_url

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


def clean_url(url: str, base: str = "", encoding: str = "utf-8") -> str:
    """`url` made absolute and written as browsers write it (see `resolve_url`), without its fragment and a user's name.

    URLs that cannot be read are returned as they are; fetching them says what is wrong.
    """
    url = encodable(url.strip())
    found = resolve_url(url, base, encoding)
    if found is None or found.protocol not in ("http:", "https:"):
        return url
    return f"{found.protocol}//{found.host}{found.pathname}{found.search}"


def judge(found: FoundImage, decoded: Decoded = TEXT, nothing: str = "", is_local: bool = False) -> FoundImage | Drop:
    """`found` if its URL and caption can be used, else why not. `nothing` says what was looked for if there is no caption.

    `decoded` is the text that the caption is from: a caption that was read in a wrong encoding is none. Only what a reader found in
    a file of its own `is_local`; a URL that is written anywhere is one of the web.
    """
    page_url, image_url, caption = found.page_url, found.image_url, found.caption
    if not caption:
        return Drop("no_caption", nothing, page_url, image_url[:200])
    if not is_local and not image_url.startswith(("http://", "https://")):
        return Drop("bad_scheme", f"scheme {image_url.partition(':')[0][:20]!r}", page_url, image_url[:200], caption)
    if problem := decoded.problem(caption):
        return Drop("broken_text", problem, page_url, image_url, caption)
    return found._replace(found_in=decoded.note(found.found_in, caption))
