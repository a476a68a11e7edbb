"""Captioned images of archived pages, the way Common Crawl publishes them: WARC (whole pages) and WAT (their links, extracted)."""

import json
from email.message import Message
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from dalle_datasets.download.guard import OPT_OUT_DIRECTIVES, opt_out
from dalle_datasets.sources.base import MAX_PAGE_BYTES, Discovered, Drop, Found, clean_caption, clean_url
from dalle_datasets.sources.html import read_page


def read_archive(path: Path, document: str, result: Discovered, user_agent_token: str) -> None:
    """Add what a WARC or WAT file (plain, gzip or zstd) holds to `result`. Raises `OSError` where the file is broken.

    Pages opt out as on the web: `<meta name=robots>` and X-Robots-Tag of the time of the crawl.
    """
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response | WarcRecordType.metadata):
            page_url = record.headers.get("WARC-Target-URI") or ""
            if not page_url.startswith(("http://", "https://")):
                continue
            if record.content_length > MAX_PAGE_BYTES:
                result.drops.append(Drop("too_many_bytes", f"{record.content_length} bytes, {MAX_PAGE_BYTES} allowed", page_url))
                continue
            date = record.headers.get("WARC-Date")
            if record.record_type == WarcRecordType.response:
                _read_response(record, page_url, document, date, result, user_agent_token)
            elif (record.headers.get("Content-Type") or "").startswith("application/json"):
                _read_wat(record.reader.read(), page_url, document, date, result, user_agent_token)


def _read_response(record: WarcRecord, page_url: str, document: str, date: str | None, result: Discovered, user_agent_token: str) -> None:
    """A page as it was served."""
    http = record.http_headers
    if http is None or http.status_code != 200:
        return  # redirects and errors are no pages, and the crawl has their targets as records of their own
    headers = _message(list(http.astuples()))
    if headers.get_content_type() not in ("text/html", "application/xhtml+xml"):
        return
    if directive := opt_out(headers, user_agent_token):
        result.drops.append(Drop("x_robots_tag", f"X-Robots-Tag: {directive}", page_url))
        return
    page = read_page(record.reader.read(), page_url, headers, user_agent_token)
    result.found += [found._replace(document=document, date=date) for found in page.found]
    result.drops += page.drops


def _read_wat(body: bytes, page_url: str, document: str, date: str | None, result: Discovered, user_agent_token: str) -> None:
    """The links of a page, as Common Crawl extracted them: images with their alt text, but without figures and sizes."""
    try:
        response = json.loads(body)["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
        page = response.get("HTML-Metadata")
        if page is None:
            return
        headers = _message([(name, str(value)) for name, value in (response.get("Headers") or {}).items()])
        head: dict[str, Any] = page.get("Head") or {}
        directives = {
            directive.strip()
            for meta in head.get("Metas") or []
            if str(meta.get("name", "")).lower() in ("robots", user_agent_token)
            for directive in str(meta.get("content", "")).lower().split(",")
        }
        base = clean_url(str(head.get("Base") or page_url), page_url)
        images = [link for link in page.get("Links") or [] if link.get("path") == "IMG@/src"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # the metadata of a request, or of the whole crawl
    if directive := opt_out(headers, user_agent_token):
        result.drops.append(Drop("x_robots_tag", f"X-Robots-Tag: {directive}", page_url))
        return
    if closed := directives & OPT_OUT_DIRECTIVES:
        result.drops.append(Drop("meta_robots", f"<meta name=robots> says {min(closed)}", page_url))
        return
    for position, link in enumerate(images):
        address, caption = clean_url(str(link.get("url") or ""), base), clean_caption(str(link.get("alt") or ""))
        if not caption:
            caption = clean_caption(str(link.get("title") or ""))
        if not caption:
            result.drops.append(Drop("no_caption", "no alt text or title", page_url, address[:200]))
        elif not address.startswith(("http://", "https://")):
            result.drops.append(Drop("bad_scheme", f"scheme {address.partition(':')[0][:20]!r}", page_url, address[:200], caption))
        else:
            result.found.append(Found(address, caption, page_url, position, "img alt", document, date))


def _message(fields: list[tuple[str, str]]) -> Message:
    message = Message()
    for name, value in fields:
        message[name] = value.replace("\r", " ").replace("\n", " ")
    return message
