"""Captioned images of archived pages, the way Common Crawl publishes them: WARC (whole pages) and WAT (their links, extracted)."""

import gzip
import json
import re
import zipfile
import zlib
from collections import Counter
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
ZSTD_DICTIONARY_MAGIC, ZIP_MAGIC = b"\x5d\x2a\x4d\x18", b"PK\x03\x04"
_STATUS = re.compile(rb"\s*(?:HTTP/[\d.]+|ICY)[ \t]+(\d{3})[^\n]*\n")
_HEAD_END = re.compile(rb"\n\r?\n")
"""Servers end lines in both ways, and archives keep what they sent."""
RECORD_END = b"\r\n\r\n"
HTML_TYPES = ("text/html", "application/xhtml+xml")
OTHERS = "ARC and other archives have to be converted to WARC, e.g. by `warcio recompress`"


def read_archive(path: Path, document: str, result: DiscoveryWriter, user_agent_token: str) -> None:
    """Add what a WARC or WAT file (plain, gzip or zstd), or a WACZ of Browsertrix, holds to `result`.

    Pages opt out as on the web: `<meta name=robots>` and X-Robots-Tag of the time of the crawl. Records that hold no page are counted
    by their reasons in one drop. Raises `OSError` where the file is broken, cut off, or of another kind.
    """
    skipped: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            if file.read(4) != ZIP_MAGIC:
                file.seek(0)
                _read_stream(file, document, result, user_agent_token, skipped)
                return
        try:
            with zipfile.ZipFile(path) as packed:
                names = [name for name in packed.namelist() if name.lower().endswith((".warc", ".warc.gz", ".warc.zst"))]
                if not names:
                    raise OSError("a zip file without a WARC in it")
                for name in names:
                    with packed.open(name) as member:
                        _read_stream(cast(BinaryIO, member), document, result, user_agent_token, skipped)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            raise OSError(f"a broken zip file ({error})") from error
    finally:
        if skipped:
            said = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            result.add(drops=[Drop("skipped_records", said[:1_000], document)])


def _read_stream(file: BinaryIO, document: str, result: DiscoveryWriter, user_agent_token: str, skipped: Counter[str]) -> None:
    stream = _Stream(file)
    num_records = expected_bytes = 0
    try:
        # Of all types, so that the last one is known.
        for record in ArchiveIterator(cast(BinaryIO, stream), record_types=WarcRecordType.any_type, parse_http=False):
            expected_bytes = record.stream_pos + _num_bytes(record)
            if reason := _read_record(record, document, result, user_agent_token):
                skipped[reason] += 1
            num_records += 1
    except OSError as error:
        if not num_records and not stream.error:
            raise OSError(f"no WARC record at its start ({error}); {OTHERS}") from error
        raise OSError(f"damaged after {num_records} records, within {stream.num_bytes} unpacked bytes ({error})") from error
    if stream.error:
        raise OSError(f"cut off or damaged after {num_records} records, {stream.num_bytes} unpacked bytes ({stream.error})")
    if not num_records:
        raise OSError(f"no WARC record in {stream.num_bytes} bytes; {OTHERS}")
    if stream.num_bytes < expected_bytes or stream.end != RECORD_END:
        raise OSError(f"cut off in or after record {num_records}, after {stream.num_bytes} bytes")


def _num_bytes(record: WarcRecord) -> int:
    """Bytes that a record has at least, with its header and the two line ends behind it; not every program writes spaces in headers."""
    header = sum(len(name) + len(value) + len(":\r\n") for name, value in record.headers.astuples())
    return len("WARC/1.0\r\n") + header + len("\r\n") + int(record.headers.get("Content-Length") or 0) + len(RECORD_END)


class _Stream:
    """Unpacks an archive for the iterator, which takes the end of a torn file for the end of the archive. Remembers what was wrong.

    So every record before the damage is read, and the damage is known afterwards.
    """

    def __init__(self, file: BinaryIO) -> None:
        magic = file.read(4)
        file.seek(0)
        self._source: Any = file
        if magic == ZSTD_DICTIONARY_MAGIC:
            raise OSError("compressed with a zstd dictionary of its own; unpack it first")
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


def _read_record(record: WarcRecord, document: str, result: DiscoveryWriter, user_agent_token: str) -> str | None:
    """Take the pictures of a record; returns what it is if it holds no page."""
    # GNU Wget puts the URL in angle brackets, as an old edition of the standard had it.
    page_url = encodable((record.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">").strip())
    content_type = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    kind = " ".join(encodable(record.headers.get("WARC-Type") or "unknown").lower().split())[:20]
    is_resource = kind == "resource" and content_type in HTML_TYPES
    is_wat = kind == "metadata" and content_type == "application/json"
    if kind != "response" and not is_resource and not is_wat:
        return f"of type {kind}"
    if not page_url.lower().startswith(("http://", "https://")):
        return "without an http or https URL"
    date = record.headers.get("WARC-Date")
    if record.content_length > MAX_PAGE_BYTES:
        result.add(drops=[Drop("too_many_bytes", f"{record.content_length} bytes, {MAX_PAGE_BYTES} allowed", page_url)])
        return None
    body: bytes = record.reader.read()
    if len(body) < record.content_length:
        return None  # the end of the archive says so
    if kind == "response":
        return _read_response(body, page_url, document, date, result, user_agent_token)
    if is_wat:
        return _read_wat(body, page_url, document, date, result, user_agent_token)
    page = read_page(body, page_url, _message([("Content-Type", record.headers.get("Content-Type") or "")]), user_agent_token)
    result.add([found._replace(document=document, date=date) for found in page.found], page.drops)
    return None


def _unpack(body: bytes, headers: Message, page_url: str, result: DiscoveryWriter) -> bytes | None:
    """The body of an answer, unless it cannot be unpacked within the limit."""
    if str(headers.get("Transfer-Encoding") or "").strip().lower() == "chunked":
        body = _join_chunks(body)
    encoding = str(headers.get("Content-Encoding") or "").strip().lower()
    # Some crawlers keep the header of a body that they have unpacked.
    is_packed = {"gzip": GZIP_MAGIC, "x-gzip": GZIP_MAGIC, "zstd": ZSTD_MAGIC}.get(encoding)
    if encoding in ("", "identity", "none") or (is_packed and not body.startswith(is_packed)):
        return body
    try:
        if encoding == "zstd":
            with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as unpacked:
                body = unpacked.read(MAX_PAGE_BYTES + 1)
        elif is_packed or encoding == "deflate":
            body = zlib.decompressobj(ZLIB_OR_GZIP).decompress(body, MAX_PAGE_BYTES + 1)
        elif body.lstrip()[:1] != b"<":
            raise zlib.error("cannot be unpacked here")
    except (zlib.error, OSError) as error:
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
    answer: bytes, page_url: str, document: str, date: str | None, result: DiscoveryWriter, user_agent_token: str
) -> str | None:
    """A page as it was served; returns why it is none. Redirects and errors have their targets as records of their own."""
    start = _STATUS.match(answer)
    if start is None:
        return "without an answer of HTTP"
    if start[1] != b"200":
        return f"with status {start[1].decode()}"
    head_end = _HEAD_END.search(answer, start.end() - 1)  # the line before may be the last one
    head, body = (answer[start.end() : head_end.start()], answer[head_end.end() :]) if head_end else (answer[start.end() :], b"")
    lines = re.sub(rb"\r?\n[ \t]+", b" ", head).decode("utf-8", "replace").splitlines()
    headers = _message([(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)])
    if headers.get_content_type() not in HTML_TYPES:
        return "of pages that are no HTML"
    if against := header_opt_out(headers, user_agent_token):
        result.add(drops=[Drop(against.code, against.detail, page_url)])
    elif (unpacked := _unpack(body, headers, page_url, result)) is not None:
        page = read_page(unpacked, page_url, headers, user_agent_token)
        result.add([found._replace(document=document, date=date) for found in page.found], page.drops)
    return None


def _read_wat(body: bytes, page_url: str, document: str, date: str | None, result: DiscoveryWriter, user_agent_token: str) -> str | None:
    """The links of a page, as Common Crawl extracted them: images with their alt text, but without figures and sizes."""
    try:
        response = json.loads(body)["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
        page = response.get("HTML-Metadata")
        if page is None:
            return "of pages that are no HTML"
        headers = _message([(name, str(value)) for name, value in (response.get("Headers") or {}).items()])
        head: dict[str, Any] = page.get("Head") or {}
        metas = [(str(meta.get("name") or meta.get("http-equiv")), str(meta.get("content"))) for meta in head.get("Metas") or []]
        base = clean_url(str(head.get("Base") or page_url), page_url)
        images = [link for link in page.get("Links") or [] if link.get("path") == "IMG@/src"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "of metadata without links"  # of a request, or of the whole crawl
    if against := header_opt_out(headers, user_agent_token) or meta_opt_out(metas, user_agent_token):
        result.add(drops=[Drop(against.code, against.detail, page_url)])
        return None
    for position, link in enumerate(images):
        caption = next(iter(captions_in(link.get("alt")) or captions_in(link.get("title"))), "")
        address = clean_url(unescape_attribute(str(link.get("url") or "")), base)
        result.take(judge(FoundImage(address, caption, page_url, position, "img alt", document, date), nothing="no alt text or title"))
    return None


def _message(fields: list[tuple[str, str]]) -> Message:
    message = Message()
    for name, value in fields:
        message[name] = value.replace("\r", " ").replace("\n", " ")
    return message
