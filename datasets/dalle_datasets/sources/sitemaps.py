"""Sitemaps: pages, and images with captions, that a site lists itself (sitemaps.org, with Google's image extension)."""

import gzip
import io
import xml.etree.ElementTree as ElementTree
import zlib

from dalle_datasets.sources.base import MAX_PAGE_BYTES, Drop, FoundImage, clean_url
from dalle_datasets.sources.discovered import PAGE_GONE, DiscoveryWriter
from dalle_datasets.texts.captions import clean_caption
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import GONE_STATUSES, OPT_OUTS, FetchError

MAX_SITEMAPS = 50
_SITE = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
_IMAGE = "{http://www.google.com/schemas/sitemap-image/1.1}"


UNIT = "sitemap "
"""How the units of finds in sitemaps begin, unlike those of pages."""


def read_sitemaps(site_url: str, client: PoliteClient, max_pages: int, result: DiscoveryWriter, reader: int) -> list[str]:
    """The pages that the sitemaps of a host list: those its robots.txt names, or `/sitemap.xml`. Captioned images go to `result`."""
    queue = [clean_url(url, site_url) for url in client.sitemaps(site_url)] or [clean_url("/sitemap.xml", site_url)]
    is_guess = queue == [clean_url("/sitemap.xml", site_url)]
    seen = set(queue)
    pages: list[str] = []
    while queue and len(seen) <= MAX_SITEMAPS and len(pages) < max_pages:
        url = queue.pop(0)
        try:
            root = _parse(client.fetch(url).body)
        except FetchError as error:
            if not is_guess:
                result.add(drops=[Drop(error.code, error.detail, url)])
            if error.code in OPT_OUTS or error.status in GONE_STATUSES:
                result.add_fate(error.code if error.code in OPT_OUTS else PAGE_GONE, error.detail, UNIT + url)
            continue
        except (ElementTree.ParseError, LookupError, ValueError, OSError, EOFError, zlib.error) as error:
            result.add(drops=[Drop("not_xml", f"not a sitemap: {error}"[:200], url)])
            continue
        found: list[FoundImage] = []
        for entry in root.iter(f"{_SITE}sitemap"):
            link = clean_url(entry.findtext(f"{_SITE}loc") or "", url)
            if link not in seen:
                seen.add(link)
                queue.append(link)
        for entry in root.iter(f"{_SITE}url"):
            page = clean_url(entry.findtext(f"{_SITE}loc") or "", url)
            pages.append(page)
            for position, image in enumerate(entry.iter(f"{_IMAGE}image")):
                caption = clean_caption(image.findtext(f"{_IMAGE}caption")) or clean_caption(image.findtext(f"{_IMAGE}title"))
                address = clean_url(image.findtext(f"{_IMAGE}loc") or "", url)
                if caption and address.startswith(("http://", "https://")):
                    found.append(FoundImage(address, caption, page, position, "sitemap"))
        result.add_read_anew(UNIT + url, url)
        result.add(found, reader=reader, unit=UNIT + url)
    return pages[:max_pages]


def _parse(body: bytes) -> ElementTree.Element:
    """The XML of a sitemap, also compressed. Raises `ValueError` for entities (they can blow up) and for more than a page's bytes."""
    if body.startswith(b"\x1f\x8b"):
        with gzip.open(io.BytesIO(body)) as file:
            body = file.read(MAX_PAGE_BYTES + 1)
    if len(body) > MAX_PAGE_BYTES:
        raise ValueError(f"more than {MAX_PAGE_BYTES} bytes")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ValueError("it declares entities")
    return ElementTree.fromstring(body)
