"""Captioned images and links of one HTML page. Pure functions from bytes: nothing is fetched here."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message

from selectolax.lexbor import LexborHTMLParser, LexborNode

from dalle_datasets.sources.base import Drop, FoundImage, clean_caption, clean_url
from dalle_datasets.web.opt_outs import meta_opt_out

MAX_SRCSET_WIDTH = 2_048
"""Largest width that is chosen among several sizes of a picture, pixels."""
LAZY_ATTRIBUTES = ("data-src", "data-original", "data-lazy-src", "data-url")
NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"})
"""Codecs of Python that no page is written in; some of them give halves of characters, or fail in ways of their own."""
_LICENCE = "a[rel~=license], link[rel~=license], [itemprop=license]"
_SRCSET_ENTRY = re.compile(r"\s*([^\s,]\S*[^\s,]|[^\s,])(?:\s+([\d.]+)([wx]))?\s*(?:,|$)")


@dataclass(slots=True)
class Page:
    """Captioned images, links and drops of one page."""

    found: list[FoundImage] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    is_closed: bool = False
    """True if the page is not for us; its one drop says why."""


def read_page(body: bytes, page_url: str, headers: Message, user_agent_token: str) -> Page:
    """Captioned images, drops and links of a page, in document order.

    A page that opts out by `<meta name=robots>` gives one drop and nothing else.
    """
    content_type = headers.get_content_type()
    if content_type not in ("text/html", "application/xhtml+xml"):
        return Page(drops=[Drop("not_html", f"Content-Type {content_type}", page_url)], is_closed=True)
    tree = LexborHTMLParser(decode_html(body, headers.get_content_charset()))
    if against := meta_opt_out(_metas(tree), user_agent_token):
        return Page(drops=[Drop(against.code, against.detail, page_url)], is_closed=True)
    base_node = tree.css_first("base[href]")
    base = clean_url(base_node.attributes.get("href") or "", page_url) if base_node else page_url
    page = Page()
    licence_of_page = _licence([node for node in tree.css(_LICENCE) if not _is_in_figure(node)], base)
    for position, image in enumerate(tree.css("img")):
        url = _image_url(image)
        if url is None:
            continue
        image_url = clean_url(url, base)
        caption, found_in = _caption(image)
        scheme = image_url.partition(":")[0]
        if not caption:
            page.drops.append(Drop("no_caption", "no alt text, figure caption or title", page_url, image_url[:200]))
        elif scheme not in ("http", "https"):
            page.drops.append(Drop("bad_scheme", f"scheme {scheme[:20]!r}", page_url, image_url[:200], caption))
        else:
            figure = _figure(image)
            licence = _licence(figure.css(_LICENCE), base) if figure else None
            page.found.append(FoundImage(image_url, caption, page_url, position, found_in, licence=licence or licence_of_page))
    for anchor in tree.css("a[href]"):
        if "nofollow" not in (anchor.attributes.get("rel") or ""):
            link = clean_url(anchor.attributes.get("href") or "", base)
            if link.startswith(("http://", "https://")):
                page.links.append(link)
    return page


def decode_html(body: bytes, charset: str | None) -> str:
    """Text of a page: by the header's charset, the page's own, UTF-8, or Windows-1252, whichever works first."""
    declared = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,20})""", body[:2048], re.IGNORECASE)
    for name in (charset, declared and declared[1].decode("ascii", "replace"), "utf-8"):
        try:
            if name and codecs.lookup(name).name not in NO_CHARSETS:
                return body.decode(name)
        except (LookupError, UnicodeError, ValueError):  # ValueError: a zero byte in the name
            continue
    return body.decode("windows-1252", "replace")


def _metas(tree: LexborHTMLParser) -> Iterator[tuple[str, str]]:
    """(name, content) of the `<meta>` elements, wherever they stand."""
    for meta in tree.css("meta[content]"):
        for attribute in ("name", "http-equiv", "property"):
            if name := meta.attributes.get(attribute):
                yield name, meta.attributes.get("content") or ""


def _licence(nodes: list[LexborNode], base: str) -> str | None:
    """What the first of these links points to, or says."""
    for node in nodes:
        if href := (node.attributes.get("href") or "").strip():
            return clean_url(href, base)
        if text := clean_caption(node.attributes.get("content") or node.text()):
            return text
    return None


def _is_in_figure(node: LexborNode) -> bool:
    return _figure(node) is not None


def _figure(node: LexborNode) -> LexborNode | None:
    """The figure round a node, if it is near."""
    parent = node.parent
    for _ in range(4):  # a figure's caption is rarely further away
        if parent is None or parent.tag == "figure":
            return parent
        parent = parent.parent
    return None


def _image_url(image: LexborNode) -> str | None:
    """The best URL of an image: largest of its sizes, then what lazy loading would load, then `src`."""
    sizes = _srcset(image.attributes.get("srcset") or image.attributes.get("data-srcset"))
    picture = image.parent
    if picture is not None and picture.tag == "picture":
        for source in picture.css("source"):
            if source.attributes.get("type") != "image/svg+xml":
                sizes += _srcset(source.attributes.get("srcset") or source.attributes.get("data-srcset"))
    if sizes:
        fitting = [size for size in sizes if size[0] <= MAX_SRCSET_WIDTH]
        return max(fitting, key=lambda size: size[0])[1] if fitting else min(sizes, key=lambda size: size[0])[1]
    for attribute in (*LAZY_ATTRIBUTES, "src"):
        if value := (image.attributes.get(attribute) or "").strip():
            return value
    return None


def _srcset(value: str | None) -> list[tuple[float, str]]:
    """(width or density, URL) of every entry. A bare URL counts as density 1."""
    return [(float(number or 1), url) for url, number, _ in _SRCSET_ENTRY.findall(value or "")]


def _caption(image: LexborNode) -> tuple[str, str]:
    """The text that describes an image best, and where it was."""
    if alt := clean_caption(image.attributes.get("alt")):
        return alt, "img alt"
    figure = _figure(image)
    caption = figure.css_first("figcaption") if figure else None
    if caption is not None and (text := clean_caption(caption.text(separator=" "))):
        return text, "figcaption"
    if title := clean_caption(image.attributes.get("title")):
        return title, "img title"
    return "", ""
