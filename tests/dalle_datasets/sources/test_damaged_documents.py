"""Random damage to archives, tars, tables and folders: never a crash or a hang; what was read stays, and what is missing has a reason.

Seeded, so a failure names the case that fails again.
"""

import contextlib
import csv
import gzip
import io
import json
import random
import re
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.sources.archives import read_archive
from dalle_datasets.sources.discover import candidates_path, discover
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS
from dalle_datasets.web.failures import FetchError

FEW, MANY = 20, 300
LOCAL = DownloadConfig(allow_addresses=("127.0.0.1",))
CAPTIONS = [f"picture number {i} é 猫" for i in range(8)]


def warc_record(kind, uri, content_type, body):
    fields = {"WARC-Type": kind, "WARC-Target-URI": uri, "WARC-Date": "2021-02-24T12:00:00Z", "Content-Type": content_type}
    head = "".join(f"{name}: {value}\r\n" for name, value in (fields | {"Content-Length": len(body)}).items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + body + b"\r\n\r\n"


def warc_records():
    for i, caption in enumerate(CAPTIONS):
        page = f'<img src="{i}.png" alt="{caption}">'.encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
        if i % 4 == 1:
            head, page = head + b"Content-Encoding: gzip\r\n", gzip.compress(page, mtime=0)
        if i % 4 == 2:
            head, page = head + b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(page), page)
        yield warc_record("response", f"http://a.example/{i}.html", "application/http; msgtype=response", head + b"\r\n" + page)


def wat_records():
    for i, caption in enumerate(CAPTIONS):
        links = [{"path": "IMG@/src", "url": f"{i}.png", "alt": caption}]
        page = {"Headers": {"Content-Type": "text/html"}, "HTML-Metadata": {"Head": {"Metas": []}, "Links": links}}
        envelope = {"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": page}}}
        yield warc_record("metadata", f"http://a.example/{i}.html", "application/json", json.dumps(envelope).encode())


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for i, caption in enumerate(CAPTIONS):
            text = caption.encode() if i % 2 else json.dumps({"caption": caption}).encode()
            for name, data in ((f"{i:04d}.png", b"\x89PNG%d" % i), (f"{i:04d}.{'txt' if i % 2 else 'json'}", text)):
                info = tarfile.TarInfo(name if i % 3 else "long/" * 30 + name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def table(kind):
    columns = {"url": [f"http://a.example/{i}.png" for i in range(len(CAPTIONS))], "caption": CAPTIONS}
    buffer = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table(columns), buffer)
        return buffer.getvalue()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


DOCUMENTS = {
    "crawl.warc": ("web_archives", b"".join(warc_records())),
    "crawl.warc.gz": ("web_archives", b"".join(gzip.compress(record, mtime=0) for record in warc_records())),
    "crawl.warc.zst": ("web_archives", zstd(b"".join(warc_records()))),
    "links.warc.wat.gz": ("web_archives", b"".join(gzip.compress(record, mtime=0) for record in wat_records())),
    "links.wat": ("web_archives", b"".join(wat_records())),
    "shard.tar": ("webdatasets", tar()),
    "t.csv": ("url_tables", table("csv")),
    "t.csv.gz": ("url_tables", gzip.compress(table("csv"), mtime=0)),
    "t.jsonl": ("url_tables", table("jsonl")),
    "t.parquet": ("url_tables", table("parquet")),
}


def damaged(data, rng):
    """A few bytes changed, removed, repeated or cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, length = rng.randrange(len(data)) if data else 0, rng.choice((1, 1, 2, 4, 16, 64, 512))
        match rng.randrange(5):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place : place + length] = rng.choice((b"\x00", b"\xff", b"\x80", b"9", b"[", b'"', b"\\ud800")) * length
            case 4:
                del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def outcome(source, layout):
    """(captions found, drops) of one document; an error that says that nothing was found is an outcome too."""
    try:
        discover(source, LOCAL, layout, refresh=True)
    except ValueError as error:
        if not re.search(r"source\.inputs: no captioned image in \d documents \(.*\); check the addresses", str(error)):
            raise
        return [], []
    drops = read_parquet(layout.dropped("web") / "discover.parquet", DROPPED_PAIRS).to_pylist()
    return read_parquet(candidates_path(layout, "web"), CANDIDATES)["caption"].to_pylist(), drops


@pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_damaged_documents(tmp_path, name, cases):
    kind, data = DOCUMENTS[name]
    path = tmp_path / name
    source = SourceConfig(kind=kind, inputs=(str(path),))
    path.write_bytes(data)
    assert sorted(outcome(source, Layout(tmp_path / "whole"))[0]) == CAPTIONS
    for case in range(cases):
        rng = random.Random(f"{name} {case}")
        bad = damaged(data, rng)
        if name.endswith(".gz") and case % 2:  # damage before packing gets past the checksum
            bad = gzip.compress(damaged(gzip.decompress(data), rng), mtime=0)
        path.write_bytes(bad)
        start = time.process_time()
        captions, _ = outcome(source, Layout(tmp_path / f"{case}"))
        assert time.process_time() - start < 2, case
        assert all(captions), case
        if kind == "webdatasets":
            reader = LocalReader((str(path),), 1_000)
            for address in read_addresses(tmp_path / f"{case}"):
                with contextlib.suppress(FetchError):
                    assert len(reader.fetch_image(address)) <= 1_000


def read_addresses(root):
    path = candidates_path(Layout(root), "web")
    return read_parquet(path, CANDIDATES)["image_url"].to_pylist() if path.exists() else []


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz", "links.warc.wat.gz", "links.wat", "shard.tar"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_document_that_was_cut_off_is_reported_and_what_it_held_is_kept(tmp_path, name, share, caplog):
    """fastwarc and tarfile both take the end of a torn file for the end of the archive."""
    kind, data = DOCUMENTS[name]
    path = tmp_path / name
    path.write_bytes(data[: int(len(data.rstrip(b"\0")) * share)])  # a tar ends in zeros
    captions, drops = outcome(SourceConfig(kind=kind, inputs=(str(path),)), Layout(tmp_path / "data"))
    assert len(CAPTIONS) * share - 2.5 <= len(captions) <= len(CAPTIONS)
    (drop,) = [drop for drop in drops if drop["reason"] == "broken_document"]
    assert drop["page_url"] == str(path)
    assert re.search(r"(cut off|damaged).* after \d+ ", drop["detail"])
    assert f"{path} is broken: " in caplog.text
    assert "what was read before stays, the rest is missing; get it again and refresh" in caplog.text


def test_a_zstd_archive_that_was_cut_off(tmp_path, found_by):
    path = tmp_path / "crawl.warc.zst"
    path.write_bytes(DOCUMENTS["crawl.warc.zst"][1][:-20])
    with pytest.raises(OSError, match=r"cut off or damaged after 0 records, 0 unpacked bytes \(Truncated compressed stream\)"):
        found_by(lambda result: read_archive(path, "crawl", result, "open-dalle"))


def test_every_whole_record_before_the_cut_is_kept(tmp_path):
    """To the record, also in gzip, whose buffers hold many of them."""
    records = [gzip.compress(record, mtime=0) for record in warc_records()]
    path = tmp_path / "crawl.warc.gz"
    for whole in range(1, len(records)):
        path.write_bytes(b"".join(records[:whole]) + records[whole][: len(records[whole]) // 2])
        captions, _ = outcome(SourceConfig(kind="web_archives", inputs=(str(path),)), Layout(tmp_path / f"{whole}"))
        assert sorted(captions) == CAPTIONS[:whole], whole


def test_a_document_that_was_broken_is_read_again_once_it_is_whole(tmp_path):
    kind, data = DOCUMENTS["crawl.warc.gz"]
    path = tmp_path / "crawl.warc.gz"
    source, layout = SourceConfig(kind=kind, inputs=(str(path),)), Layout(tmp_path / "data")
    path.write_bytes(data[: len(data) // 2])
    assert len(outcome(source, layout)[0]) < len(CAPTIONS)
    path.write_bytes(data)
    captions, drops = outcome(source, layout)
    assert (sorted(captions), drops) == (CAPTIONS, [])
