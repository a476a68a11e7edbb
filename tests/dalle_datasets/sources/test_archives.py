"""WARC and WAT files, written here byte by byte as crawlers write them."""

import gzip
import io
import json
import resource
import zipfile

import pyarrow as pa
import pytest

from dalle_datasets.sources.archives import read_archive

DATE = "2021-02-24T12:00:00Z"


def record(kind, uri, content_type, body):
    fields = {"WARC-Type": kind, "WARC-Target-URI": uri, "WARC-Date": DATE, "Content-Type": content_type, "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + body + b"\r\n\r\n"


def response(uri, html, status="200 OK", headers="Content-Type: text/html"):
    return record("response", uri, "application/http; msgtype=response", f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n{html}".encode())


def wat(uri, links=(), metas=(), headers=None, base=None):
    head = {"Metas": list(metas), **({"Base": base} if base else {})}
    envelope = {
        "Payload-Metadata": {"HTTP-Response-Metadata": {"Headers": headers or {}, "HTML-Metadata": {"Head": head, "Links": list(links)}}}
    }
    return record("metadata", uri, "application/json", json.dumps({"Envelope": envelope}).encode())


def image(url, alt, **more):
    return {"path": "IMG@/src", "url": url, "alt": alt, **more}


@pytest.fixture
def read(tmp_path, found_by):
    def run(data, name="crawl.warc"):
        path = tmp_path / name
        path.write_bytes(data)
        return found_by(lambda result: read_archive(path, name, result, "open-dalle"))

    return run


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_pages_of_a_warc(read, packed):
    records = [
        record("warcinfo", "", "application/warc-fields", b"software: x\r\n"),
        record("request", "http://a.example/", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
        response("http://a.example/p/1.html", '<img src="x.png" alt="a red cat"><img src="y.png">'),
        response("http://a.example/2.html", "gone", status="404 Not Found"),
        response("http://a.example/3.png", "not html", headers="Content-Type: image/png"),
        response("http://b.example/", '<img src="/z.png" alt="un chat rouge">', headers="Content-Type: text/html; charset=utf-8"),
    ]
    data = b"".join(gzip.compress(r) if packed else r for r in records)
    result = read(data, "crawl.warc.gz" if packed else "crawl.warc")
    assert [(f.image_url, f.caption, f.page_url, f.position, f.found_in, f.date) for f in result.found] == [
        ("http://a.example/p/x.png", "a red cat", "http://a.example/p/1.html", 0, "img alt", DATE),
        ("http://b.example/z.png", "un chat rouge", "http://b.example/", 0, "img alt", DATE),
    ]
    assert all(f.document.startswith("crawl.warc") for f in result.found)
    assert [(d.reason, d.image_url) for d in result.drops] == [("no_caption", "http://a.example/p/y.png"), ("skipped_records", "")]
    assert result.drops[-1].detail == "1 of pages that are no HTML, 1 of type request, 1 of type warcinfo, 1 with status 404"


def test_archived_pages_opt_out_as_on_the_web(read):
    cat = '<img src="x.png" alt="a red cat">'
    result = read(
        response("http://a.example/1", f'<meta name="robots" content="noai">{cat}')
        + response("http://a.example/2", cat, headers="Content-Type: text/html\r\nX-Robots-Tag: noimageai"),
    )
    assert not result.found
    assert [(d.reason, d.page_url) for d in result.drops] == [("meta_robots", "http://a.example/1"), ("x_robots_tag", "http://a.example/2")]


def test_links_of_a_wat(read):
    data = (
        wat(
            "http://a.example/p/1.html",
            [image("x.png", "a red cat"), {"path": "A@/href", "url": "/"}, image("/y.png", "", title="a dog"), image("data:x", "d")],
        )
        + wat("http://a.example/2", [image("x.png", "b")], base="http://cdn.example/i/")
        + wat("http://a.example/3", [image("x.png", "c")], metas=[{"name": "Robots", "content": "index,noai"}])
        + wat("http://a.example/4", [image("x.png", "d")], headers={"X-Robots-Tag": "noai"})
        + record("metadata", "http://a.example/5", "application/json", b'{"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {}}}}')
        + record("metadata", "http://a.example/6", "application/json", b"{broken")
    )
    result = read(gzip.compress(data), "crawl.warc.wat.gz")
    assert [(f.image_url, f.caption, f.position) for f in result.found] == [
        ("http://a.example/p/x.png", "a red cat", 0), ("http://a.example/y.png", "a dog", 1), ("http://cdn.example/i/x.png", "b", 0)
    ]  # fmt: skip
    assert [(d.reason, d.page_url[-1]) for d in result.drops] == [
        ("bad_scheme", "l"), ("meta_robots", "3"), ("x_robots_tag", "4"), ("skipped_records", "z"),
    ]  # fmt: skip


def test_what_was_read_of_a_broken_archive_stays(tmp_path, found_by):
    data = gzip.compress(response("http://a.example/", '<img src="x.png" alt="a red cat">')) + gzip.compress(b"no record at all\r\n" * 9)
    path = tmp_path / "broken.warc.gz"
    path.write_bytes(data)

    def broken(result):
        with pytest.raises((OSError, ValueError, EOFError)):
            read_archive(path, "broken", result, "open-dalle")

    assert len(found_by(broken).found) == 1


def test_packed_bodies_are_unpacked(read):
    """wget and Heritrix store what the server sent; Common Crawl has unpacked it before."""
    cat = b'<img src="x.png" alt="a red cat">'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    packed = head + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(cat)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(cat), cat)
    kind = "application/http; msgtype=response"
    result = read(record("response", "http://a.example/1", kind, packed) + record("response", "http://a.example/2", kind, chunked))
    assert [(f.page_url, f.caption) for f in result.found] == [("http://a.example/1", "a red cat"), ("http://a.example/2", "a red cat")]


def test_a_body_that_swells_is_dropped(read):
    bomb = gzip.compress(bytes(200 * 2**20))
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + bomb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind = "application/http; msgtype=response"
    result = read(record("response", "http://a.example/", kind, body) + response("http://b.example/", "<img src=x.png alt=cat>"))
    assert [(d.reason, d.detail) for d in result.drops] == [("too_many_bytes", "more than 10485760 bytes unpacked")]
    assert len(result.found) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize(("encoding", "body"), [("gzip", gzip.compress(b"x")[:10] + b"\xff" * 20), ("br", b"x")], ids=["gzip", "br"])
def test_a_body_that_cannot_be_unpacked(read, encoding, body):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
    result = read(record("response", "http://a.example/", "application/http; msgtype=response", head + body))
    assert [(d.reason, d.detail.startswith(f"Content-Encoding {encoding}: ")) for d in result.drops] == [("broken_body", True)]


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Transfer-Encoding: chunked"])
def test_headers_of_bodies_that_were_unpacked_before(read, header):
    cat = "<img src=x.png alt=cat>\r\n"
    result = read(response("http://a.example/", cat, headers=f"Content-Type: text/html\r\n{header}"))
    assert [f.caption for f in result.found] == ["cat"]


def test_a_bad_chunk_costs_nobody_else_anything(read):
    cat = "<img src=x.png alt=cat>"
    bad = response("http://a.example/", f"17\r\n{cat}\r\nzz\r\nabc", headers="Content-Type: text/html\r\nTransfer-Encoding: chunked")
    assert [f.page_url for f in read(bad + response("http://b.example/", cat)).found] == [
        "http://a.example/",
        "http://b.example/",
    ]


def test_nested_json_is_no_crash(read):
    result = read(record("metadata", "http://a.example/", "application/json", b"[" * 200_000) + response("http://a.example/", "x"))
    assert not result.found


def test_halves_of_characters_do_not_reach_our_files(read):
    result = read(wat("http://a.example/", [image("\ud800x.png", "a red \udfff cat")]))
    assert [(f.image_url, f.caption) for f in result.found] == [("http://a.example/?x.png", "a red \ufffd cat")]


CAT = '<img src="x.png" alt="a red cat">'


def found_in(result):
    return [(found.image_url, found.caption) for found in result.found]


def test_what_wget_writes(read):
    """The URL in angle brackets, and records of its own about the crawl."""
    wget = response("<http://a.example/>", CAT) + record("resource", "<metadata://gnu.org/software/wget/warc/wget.log>", "text/plain", b"")
    result = read(wget)
    assert found_in(result) == [("http://a.example/x.png", "a red cat")]
    assert [(d.reason, d.detail) for d in result.drops] == [("skipped_records", "1 of type resource")]


def test_headers_as_they_come(read):
    """Without spaces, in any letter case, of another version of HTTP, and with the line ends that servers send."""
    page = response("http://a.example/", CAT)
    head, answer = page.split(b"\r\n\r\n", 1)
    http, body = answer.split(b"\r\n\r\n", 1)
    lines = http.replace(b"\r\n", b"\n") + b"\n\n" + body
    for data in (
        page.replace(b": ", b":", 5),
        head.replace(b"WARC-Type", b"warc-type").replace(b"Content-Type", b"content-type") + b"\r\n\r\n" + answer,
        page.replace(b"HTTP/1.1 200 OK", b"HTTP/2 200     "),
        head.replace(b"Length: %d" % len(answer[:-4]), b"Length: %d" % len(lines[:-4])) + b"\r\n\r\n" + lines,
    ):
        assert found_in(read(data)) == [("http://a.example/x.png", "a red cat")]


def test_pages_that_were_no_answer_of_a_server(read):
    assert found_in(read(record("resource", "http://a.example/", "text/html; charset=utf-8", CAT.encode()))) == [
        ("http://a.example/x.png", "a red cat")
    ]


def test_what_browsertrix_writes(read):
    """A WACZ is a zip file with WARCs in a folder."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("archive/1.warc.gz", gzip.compress(response("http://a.example/", CAT)))
        file.writestr("archive/2.warc", response("http://b.example/", CAT) + record("revisit", "http://b.example/2", "text/html", b""))
        file.writestr("datapackage.json", "{}")
    result = read(packed.getvalue(), "crawl.wacz")
    assert [url for url, _ in found_in(result)] == ["http://a.example/x.png", "http://b.example/x.png"]
    assert [d.detail for d in result.drops] == ["1 of type revisit"]
    with pytest.raises(OSError, match="a broken zip file"):
        read(packed.getvalue()[:-30], "crawl.wacz")


def test_bodies_that_are_packed(read):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(CAT.encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: "
    bodies = {b"zstd": sink.getvalue().to_pybytes(), b"gzip": gzip.compress(CAT.encode()), b"br": b"\x0b\x02\x80", b"GZIP": CAT.encode()}
    data = b"".join(
        record("response", f"http://{i}.example/", "application/http; msgtype=response", head + encoding + b"\r\n\r\n" + body)
        for i, (encoding, body) in enumerate(bodies.items())
    )
    result = read(data)
    assert [url for url, _ in found_in(result)] == ["http://0.example/x.png", "http://1.example/x.png", "http://3.example/x.png"]
    assert [(d.reason, d.page_url) for d in result.drops] == [("broken_body", "http://2.example/")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 76\n",
            r"no WARC record at its start \(Invalid WARC header\); ARC and other archives have to be converted",
        ),
        (b"", "no WARC record in 0 bytes; ARC and other archives have to be converted to WARC"),
        (b"\x5d\x2a\x4d\x18" + bytes(20), "compressed with a zstd dictionary of its own; unpack it first"),
    ],
)
def test_archives_of_another_kind(read, data, message):
    with pytest.raises(OSError, match=message):
        read(data)
