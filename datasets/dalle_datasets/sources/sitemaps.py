"""Sitemaps: pages, and images with captions, that a site lists itself (sitemaps.org, with Google's image extension)."""

import gzip
import io
import xml.etree.ElementTree as ElementTree
import zlib

from dalle_datasets.sources.base import MAX_PAGE_BYTES, Drop, FoundImage, clean_url
from dalle_datasets.texts.captions import clean_caption
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import FetchError

MAX_SITEMAPS = 50
_SITE = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
_IMAGE = "{http://www.google.com/schemas/sitemap-image/1.1}"


def read_sitemaps(site_url: str, client: PoliteClient, max_pages: int) -> tuple[list[str], list[FoundImage], list[Drop]]:
    """(pages, captioned images, drops) that the sitemaps of a host list: those its robots.txt names, or `/sitemap.xml`."""
    queue = [clean_url(url, site_url) for url in client.sitemaps(site_url)] or [clean_url("/sitemap.xml", site_url)]
    is_guess = queue == [clean_url("/sitemap.xml", site_url)]
    seen = set(queue)
    pages: list[str] = []
    found: list[FoundImage] = []
    drops: list[Drop] = []
    while queue and len(seen) <= MAX_SITEMAPS and len(pages) < max_pages:
        url = queue.pop(0)
        try:
            root = _parse(client.fetch(url).body)
        except FetchError as error:
            if not is_guess:
                drops.append(Drop(error.code, error.detail, url))
            continue
        except (ElementTree.ParseError, LookupError, ValueError, OSError, EOFError, zlib.error) as error:
            drops.append(Drop("not_xml", f"not a sitemap: {error}"[:200], url))
            continue
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
                image_url = clean_url(image.findtext(f"{_IMAGE}loc") or "", url)
                if caption and image_url.startswith(("http://", "https://")):
                    found.append(FoundImage(image_url, caption, page, position, "sitemap"))
    return pages[:max_pages], found, drops


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
