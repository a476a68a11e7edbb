"""Captioned images and links of one HTML page. Pure functions from bytes: nothing is fetched here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message

from selectolax.lexbor import LexborHTMLParser, LexborNode

from dalle_datasets.sources.base import Drop, FoundImage, clean_url, judge
from dalle_datasets.texts.captions import clean_caption
from dalle_datasets.texts.decoding import Decoded, decode_text
from dalle_datasets.web.opt_outs import meta_opt_out

MAX_SRCSET_WIDTH = 2_048
"""Largest width that is chosen among several sizes of a picture, pixels."""
SIZES_ATTRIBUTES = ("srcset", "data-srcset", "data-lazy-srcset", "data-original-set", "data-lazy-set")
ADDRESS_ATTRIBUTES = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-original-src", "data-actualsrc", "data-echo", "src")
"""In order of trust: those that programs for lazy loading are known to load, then what is shown until they do."""
LAST_ATTRIBUTES = ("data-img-src", "data-image-src", "data-image", "data-hi-res-src", "data-full", "data-url")
"""Looked at only if all others are placeholders: they may as well name a page."""
UNREAD_TYPES = frozenset({"image/svg+xml", "image/jxl", "image/heic", "image/heif"})
"""Of a picture's sources that we could not decode."""
_PLACEHOLDER = re.compile(
    r"(?:^|/)(?:spacer|blank|pixel|placeholder|transparent|trans|clear|1x1|empty|gr[ae]y|lazy|loading|loader|preload(?:er)?|dummy)"
    r"(?:[-_.\d][^/?]{0,24})?\.(?:gif|png|svg|jpe?g|webp)(?:\?|$)",
    re.IGNORECASE,
)
_META = re.compile(
    rb"""<!--.*?(?:-->|$)|<meta(?=[\s/])((?:[^>"']|"[^"]*"|'[^']*')*)|<\?xml[^>]{0,99}\sencoding\s*=\s*["']([^"']{1,40})""",
    re.DOTALL | re.IGNORECASE,
)
_CHARSET = re.compile(rb"""\bcharset\s*=\s*["']?\s*([^\s"';>/]{1,40})""", re.IGNORECASE)
MAX_HEAD_BYTES = 65_536
"""Where a page may say its encoding. Browsers start over when they find it late."""
_LICENCE = "a[rel~=license], link[rel~=license], [itemprop=license]"
_SRCSET_URL = re.compile(r"[\s,]*(\S+)")
_SRCSET_END = re.compile(r"((?:\([^)]*(?:\)|$)|[^,(])*)(?:,|$)")
_SRCSET_SIZE = re.compile(r"(?:^|\s)(\d{1,9}|\d{0,9}\.\d{1,9})([wx])(?=\s|$)")


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
    decoded = decode_html(body, headers.get_content_charset())
    tree = LexborHTMLParser(decoded.text)
    if against := meta_opt_out(_metas(tree), user_agent_token):
        return Page(drops=[Drop(against.code, against.detail, page_url)], is_closed=True)
    encoding, base = decoded.encoding, page_url
    if base_node := tree.css_first("base[href]"):
        base = clean_url(base_node.attributes.get("href") or "", page_url, encoding)
        base = base if base.startswith(("http://", "https://")) else page_url
    page = Page()
    licence_of_page = _licence([node for node in tree.css(_LICENCE) if not _is_in_figure(node)], base)
    for position, image in enumerate(tree.css("img, amp-img")):  # AMP's has the same attributes
        url = _image_url(image)
        if url is None:
            continue
        image_url = clean_url(url, base, encoding)
        caption, found_in = _caption(image)
        figure = _figure(image)
        licence = (_licence(figure.css(_LICENCE), base) if figure else None) or licence_of_page
        found = FoundImage(image_url, caption, page_url, position, found_in, licence=licence)
        item = judge(found, decoded, "no alt text, figure caption or title")
        if isinstance(item, FoundImage):
            page.found.append(item)
        else:
            page.drops.append(item)
    for anchor in tree.css("a[href]"):
        if "nofollow" not in (anchor.attributes.get("rel") or ""):
            link = clean_url(anchor.attributes.get("href") or "", base, encoding)
            if link.startswith(("http://", "https://")):
                page.links.append(link)
    return page


def decode_html(body: bytes, charset: str | None) -> Decoded:
    """Text of a page: by its byte order mark, the header's charset, or the page's own, in this order; else by a guess."""
    return decode_text(body, charset, _declared_charset(body[:MAX_HEAD_BYTES]))


def _declared_charset(head: bytes) -> str | None:
    """What `<meta>` or an XML declaration say, outside of comments."""
    for found in _META.finditer(head):
        declared = found[2] or ((charset := _CHARSET.search(found[1] or b"")) and charset[1])
        if declared:
            label = declared.decode("ascii", "replace").strip().lower()
            # Whoever could read the declaration as it stands has no UTF-16.
            return {"x-user-defined": "windows-1252"}.get(label, "utf-8" if label.startswith("utf-16") else label)
    return None


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
    nodes = [image]
    picture = image.parent
    if picture is not None and picture.tag == "picture":
        nodes += [source for source in picture.css("source") if (source.attributes.get("type") or "").strip().lower() not in UNREAD_TYPES]
    entries = [entry for node in nodes for name in SIZES_ATTRIBUTES for entry in parse_srcset(node.attributes.get(name))]
    sizes = [entry for entry in entries if not _is_placeholder(entry[1])]
    if sizes:
        fitting = [size for size in sizes if size[0] <= MAX_SRCSET_WIDTH]
        return max(fitting, key=lambda size: size[0])[1] if fitting else min(sizes, key=lambda size: size[0])[1]
    values = [(image.attributes.get(name) or "").strip() for name in (*ADDRESS_ATTRIBUTES, *LAST_ATTRIBUTES)]
    given = [*filter(None, values), *(address for _, address in entries)]
    if all(map(_is_placeholder, given)):  # of a program for lazy loading that is not known here
        unknown = [value for name, value in image.attributes.items() if value and name.startswith("data-")]
        given = [*filter(_PICTURE.match, unknown), *given]
    return next((value for value in given if not _is_placeholder(value)), given[0] if given else None)


def _is_placeholder(address: str) -> bool:
    """Whether a URL only holds the place of a picture that a script loads later."""
    address = address.strip()
    return not address or bool(_NO_ADDRESS.match(address) or _PLACEHOLDER.search(address))


_PICTURE = re.compile(r"[^\s{}\"<>]+\.(?:jpe?g|png|webp|gif|avif|bmp|jfif)(?:[?#]\S*)?$", re.IGNORECASE)
_NO_ADDRESS = re.compile(r"(?:data|about|blob|javascript):|[#\[{]|\S*\{\{", re.IGNORECASE)


def parse_srcset(value: str | None) -> list[tuple[float, str]]:
    """(width or density, URL) of every entry, by the grammar of HTML. a URL without either counts as density 1."""
    value, place = value or "", 0
    found: list[tuple[float, str]] = []
    while match := _SRCSET_URL.match(value, place):
        address, place = match[1], match.end()
        sizes = ""
        if address.endswith(","):
            address = address.rstrip(",")
        elif end := _SRCSET_END.match(value, place):
            sizes, place = end[1], end.end()
        size = _SRCSET_SIZE.search(sizes)
        if address and (size or not sizes.strip()):
            found.append((float(size[1]) if size else 1.0, address))
    return found


def unescape_attribute(value: str) -> str:
    """A value of an attribute as it is written in a page, read by the rules of HTML: `&copy=` in a URL is no sign."""
    if "&" not in value:
        return value
    image = LexborHTMLParser(f'<img alt="{value.replace(chr(34), "&quot;")}">').css_first("img")
    return (image.attributes.get("alt") or "") if image else value


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
