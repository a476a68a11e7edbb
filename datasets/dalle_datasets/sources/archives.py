"""Captioned images of archived pages, the way Common Crawl publishes them: WARC (whole pages) and WAT (their links, extracted)."""

import gzip
import json
import zlib
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from dalle_datasets.sources.base import MAX_PAGE_BYTES, Drop, FoundImage, clean_url, judge
from dalle_datasets.sources.discovered import DiscoveryWriter
from dalle_datasets.sources.html import read_page, unescape_attribute
from dalle_datasets.texts.captions import captions_in
from dalle_datasets.texts.decoding import encodable
from dalle_datasets.web.opt_outs import header_opt_out, meta_opt_out

GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
RECORD_END = b"\r\n\r\n"


def read_archive(path: Path, document: str, result: DiscoveryWriter, user_agent_token: str) -> None:
    """Add what a WARC or WAT file (plain, gzip or zstd) holds to `result`. Raises `OSError` where the file is broken or cut off.

    Pages opt out as on the web: `<meta name=robots>` and X-Robots-Tag of the time of the crawl.
    """
    with path.open("rb") as file:
        stream = _Stream(file)
        num_records = expected_bytes = 0
        try:
            # Of all types, so that the last one is known.
            for record in ArchiveIterator(cast(BinaryIO, stream), record_types=WarcRecordType.any_type):
                expected_bytes = record.stream_pos + _num_bytes(record)
                _read_record(record, document, result, user_agent_token)
                num_records += 1
        except OSError as error:
            raise OSError(f"damaged after {num_records} records, within {stream.num_bytes} unpacked bytes ({error})") from error
        if stream.error:
            raise OSError(f"cut off or damaged after {num_records} records, {stream.num_bytes} unpacked bytes ({stream.error})")
        if stream.num_bytes < expected_bytes or stream.end != RECORD_END:
            raise OSError(f"cut off in or after record {num_records}, after {stream.num_bytes} bytes")


def _num_bytes(record: WarcRecord) -> int:
    """Bytes of a record with its header and the two line ends behind it."""
    header = sum(len(name) + len(value) + len(": \r\n") for name, value in record.headers.astuples())
    return len("WARC/1.0\r\n") + header + len("\r\n") + int(record.headers.get("Content-Length") or 0) + len(RECORD_END)


class _Stream:
    """Unpacks an archive for the iterator, which takes the end of a torn file for the end of the archive. Remembers what was wrong.

    So every record before the damage is read, and the damage is known afterwards.
    """

    def __init__(self, file: BinaryIO) -> None:
        magic = file.read(4)
        file.seek(0)
        self._source: Any = file
        if magic.startswith(GZIP_MAGIC):
            self._source = gzip.GzipFile(fileobj=file)
        elif magic == ZSTD_MAGIC:
            self._source = pa.CompressedInputStream(file, "zstd")
        self.error: Exception | None = None
        self.num_bytes = 0
        self.end = RECORD_END

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._source.read1(size)
        except (OSError, EOFError, zlib.error) as error:
            self.error = error
            return b""
        self.num_bytes += len(data)
        self.end = (self.end + data[-len(RECORD_END) :])[-len(RECORD_END) :]
        return data

    def tell(self) -> int:
        return self.num_bytes


def _read_record(record: WarcRecord, document: str, result: DiscoveryWriter, user_agent_token: str) -> None:
    page_url = encodable(record.headers.get("WARC-Target-URI") or "")
    is_page = record.record_type == WarcRecordType.response
    is_wat = record.record_type == WarcRecordType.metadata and (record.headers.get("Content-Type") or "").startswith("application/json")
    if not page_url.startswith(("http://", "https://")) or not (is_page or is_wat):
        return
    date = record.headers.get("WARC-Date")
    if record.content_length > MAX_PAGE_BYTES:
        result.add(drops=[Drop("too_many_bytes", f"{record.content_length} bytes, {MAX_PAGE_BYTES} allowed", page_url)])
    elif is_page:
        _read_response(record, page_url, document, date, result, user_agent_token)
    elif (body := _read_body(record, page_url, result)) is not None:
        _read_wat(body, page_url, document, date, result, user_agent_token)


def _read_body(record: WarcRecord, page_url: str, result: DiscoveryWriter) -> bytes | None:
    """The body of a record, unless it is cut off, or cannot be unpacked within the limit."""
    body: bytes = record.reader.read()
    if len(body) < record.content_length:
        return None  # the end of the archive says so
    http = record.http_headers
    if http is not None and (http.get("Transfer-Encoding") or "").strip().lower() == "chunked":
        body = _join_chunks(body)
    encoding = (http.get("Content-Encoding") or "").strip().lower() if http is not None else ""
    # Some crawlers keep the header of a body that they have unpacked.
    if encoding not in ("gzip", "x-gzip", "deflate", "br") or (encoding.endswith("gzip") and not body.startswith(GZIP_MAGIC)):
        return body
    try:
        if encoding == "br":
            raise zlib.error("cannot be unpacked here")
        body = zlib.decompressobj(ZLIB_OR_GZIP).decompress(body, MAX_PAGE_BYTES + 1)
    except zlib.error as error:
        result.add(drops=[Drop("broken_body", f"Content-Encoding {encoding}: {error}", page_url)])
        return None
    if len(body) > MAX_PAGE_BYTES:
        result.add(drops=[Drop("too_many_bytes", f"more than {MAX_PAGE_BYTES} bytes unpacked", page_url)])
        return None
    return body


def _join_chunks(body: bytes) -> bytes:
    """A body as it was before it was sent in chunks, as far as they are good.

    (fastwarc can do that too, but gives the whole archive up at a bad one.)
    """
    joined, start = bytearray(), 0
    while (end := body.find(b"\r\n", start)) >= 0:
        try:
            size = int(body[start:end].partition(b";")[0], 16)
        except ValueError:
            return bytes(joined) or body  # not chunked, or not any more
        if size <= 0:
            break
        joined += body[end + 2 : end + 2 + size]
        start = end + 2 + size + 2
    return bytes(joined)


def _read_response(
    record: WarcRecord, page_url: str, document: str, date: str | None, result: DiscoveryWriter, user_agent_token: str
) -> None:
    """A page as it was served."""
    http = record.http_headers
    if http is None or http.status_code != 200:
        return  # redirects and errors are no pages, and the crawl has their targets as records of their own
    headers = _message(list(http.astuples()))
    if headers.get_content_type() not in ("text/html", "application/xhtml+xml"):
        return
    if against := header_opt_out(headers, user_agent_token):
        result.add(drops=[Drop(against.code, against.detail, page_url)])
        return
    if (body := _read_body(record, page_url, result)) is None:
        return
    page = read_page(body, page_url, headers, user_agent_token)
    result.add([found._replace(document=document, date=date) for found in page.found], page.drops)


def _read_wat(body: bytes, page_url: str, document: str, date: str | None, result: DiscoveryWriter, user_agent_token: str) -> None:
    """The links of a page, as Common Crawl extracted them: images with their alt text, but without figures and sizes."""
    try:
        response = json.loads(body)["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
        page = response.get("HTML-Metadata")
        if page is None:
            return
        headers = _message([(name, str(value)) for name, value in (response.get("Headers") or {}).items()])
        head: dict[str, Any] = page.get("Head") or {}
        metas = [(str(meta.get("name") or meta.get("http-equiv")), str(meta.get("content"))) for meta in head.get("Metas") or []]
        base = clean_url(str(head.get("Base") or page_url), page_url)
        images = [link for link in page.get("Links") or [] if link.get("path") == "IMG@/src"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # the metadata of a request, or of the whole crawl
    if against := header_opt_out(headers, user_agent_token) or meta_opt_out(metas, user_agent_token):
        result.add(drops=[Drop(against.code, against.detail, page_url)])
        return
    for position, link in enumerate(images):
        caption = next(iter(captions_in(link.get("alt")) or captions_in(link.get("title"))), "")
        address = clean_url(unescape_attribute(str(link.get("url") or "")), base)
        result.take(judge(FoundImage(address, caption, page_url, position, "img alt", document, date), nothing="no alt text or title"))


def _message(fields: list[tuple[str, str]]) -> Message:
    message = Message()
    for name, value in fields:
        message[name] = value.replace("\r", " ").replace("\n", " ")
    return message
