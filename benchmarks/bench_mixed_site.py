"""Does a collection hold what it promises on a site of good and faulty images? Collected twice, refreshed, and killed at random points.

    python benchmarks/bench_mixed_site.py [NUM_IMAGES] [--kills N] [--seed S]

Four hosts on this machine publish pages of captioned images in four formats, and three images in ten are faulty in a known way. Every
stage runs for real: pages over HTTP, img2dataset in its child process, filters, catalog. Ends with an error, and without
figures, unless (1) every image ends as the site says, to the row, (2) a second run asks for nothing and changes no table, (3) a
refresh asks for pages only, and changes no table, (4) runs killed at random points end with the same rows.
"""

import argparse
import collections
import hashlib
import http.client
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_dropped_pairs, ingest_pairs
from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout

NUM_HOSTS = 4
FIGURES_PER_PAGE = 50
MAX_BYTES = 200_000
TABLES = {"pairs": "ingested_at, shard, row_index", "dropped_pairs": "ingested_at"}

Fate = tuple[str, str] | None
"""(stage, reason) of an image's drop; None if it becomes a pair."""


def picture(i: int) -> bytes:
    """The i-th picture, in one of four formats."""
    pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    kind = ("PNG", "JPEG", "WEBP", "GIF")[i % 4]
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def fault(i: int) -> tuple[Fate, Callable[[BaseHTTPRequestHandler, int], None]]:
    """What becomes of the i-th image, and how its n-th request is answered. 14 of 20 are good."""

    def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    def bomb() -> bytes:
        buffer = io.BytesIO()
        Image.new("1", (8_000, 8_000)).save(buffer, "PNG")
        return buffer.getvalue()

    match i % 20:
        case 3:  # at the second request
            return None, lambda handler, n: send(handler, picture(i)) if n else send(handler, b"", 503)
        case 7:
            return None, lambda handler, n: send(handler, b"", 302, Location=f"/real/{i}")
        case 9:
            return ("download", "http_4xx"), lambda handler, n: send(handler, b"gone", 410)
        case 11:
            return ("filter", "not_an_image"), lambda handler, n: send(handler, b"<!doctype html><p>Sorry, this picture was removed.")
        case 13:
            return ("filter", "duplicate_pair"), lambda handler, n: send(handler, picture(i - 1))
        case 15:
            torn = picture(4 * i)  # a PNG, which must not be taken for a whole one
            return ("filter", "decode_error"), lambda handler, n: send(handler, torn[: len(torn) * 2 // 3])
        case 19:  # on the page, but without a caption
            return ("discover", "no_caption"), lambda handler, n: send(handler, picture(i))
        case 17:
            body = picture(i)
            rare: list[tuple[Fate, Callable[[BaseHTTPRequestHandler, int], None]]] = [
                (("download", "x_robots_tag"), lambda handler, n: send(handler, body, X_Robots_Tag="noai")),
                (("download", "incomplete_body"), lambda handler, n: send(handler, body[:99], length=len(body))),
                (("download", "too_many_bytes"), lambda handler, n: send(handler, bytes(MAX_BYTES + 1))),
                (("download", "redirect_limit"), lambda handler, n: send(handler, b"", 302, Location=f"/{i}")),
                (("download", "private_address"), lambda handler, n: send(handler, b"", 302, Location="http://127.0.0.2/")),
                (("download", "empty_body"), lambda handler, n: send(handler, b"")),
                (("filter", "too_many_pixels"), lambda handler, n: send(handler, bomb())),
                (("filter", "not_an_image"), lambda handler, n: send(handler, b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
            ]
            return rare[i // 20 % len(rare)]
        case _:
            return None, lambda handler, n: send(handler, picture(i))


def caption(i: int) -> str:
    """Different for every picture but a copy."""
    if i % 20 == 19:
        return ""
    return f"a picture of thing number {i - (i % 20 == 13)} on a table"


def serve(num_images: int) -> None:
    """Publish the site on `NUM_HOSTS` ports and print them; `/requests` says how often what was asked for."""
    requests: collections.Counter[str] = collections.Counter()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_GET(self) -> None:
            kind = "page" if self.path.startswith("/page") else "image" if self.path[1:].isdigit() or "real" in self.path else "other"
            if self.path == "/requests":
                self.answer(json.dumps(requests).encode())
                return
            requests[kind] += 1
            requests[self.path] += 1
            if kind == "page":
                self.page(int(self.path.rpartition("/")[2]))
            elif self.path.startswith("/real/"):
                self.answer(picture(int(self.path.rpartition("/")[2])))
            elif kind == "image":
                fault(int(self.path[1:]))[1](self, requests[self.path] - 1)
            else:
                self.send_error(404)

        def page(self, number: int) -> None:
            etag = f'"{number}-{num_images}"'
            if self.headers.get("If-None-Match") == etag:
                self.send_response(304)
                self.end_headers()
                return
            first = number * FIGURES_PER_PAGE
            figures = "".join(
                f'<img src="/{i}" alt="{caption(i)}">' for i in range(first, min(first + FIGURES_PER_PAGE, num_images))
            )  # fmt: skip
            step = number + NUM_HOSTS  # the next page of this host
            link = f'<a href="/page/{step}">next</a>' if step * FIGURES_PER_PAGE < num_images else ""
            self.answer((figures + link).encode(), "text/html", etag)

        def answer(self, body: bytes, content_type: str = "image/png", etag: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 512

        def handle_error(self, request: object, client_address: object) -> None: ...

    servers = [Server(("127.0.0.1", 0), Handler) for _ in range(NUM_HOSTS)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(*(server.server_port for server in servers), flush=True)
    sys.stdin.read()  # until whoever started us is gone


def collect(root: Path, ports: list[int], refresh: bool) -> None:
    """All stages, once; prints what they say of themselves."""
    source = SourceConfig(start_urls=tuple(f"http://127.0.0.1:{port}/page/{n}" for n, port in enumerate(ports)), max_pages=10**6)
    download = DownloadConfig(
        allow_addresses=("127.0.0.1",),
        requests_per_s_per_host=0,
        max_bytes=MAX_BYTES,
        retry_wait_s=0.1,
        num_processes=2,
        urls_per_shard=500,
    )
    layout = Layout(root)
    found = discover(source, download, layout, refresh=refresh)
    images = download_images(source, download, layout)
    result = filter_pairs(source, download, FilterConfig(), ShardsConfig(), layout)
    with connect(layout.catalog) as con:
        ingest_pairs(con, layout, source.name)
        ingest_dropped_pairs(con, layout, source.name)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    said = {
        "num_new": found.num_new, "num_pages": found.num_pages, "num_unchanged": found.num_unchanged,
        "num_candidates": images.num_candidates, "num_fetched": images.num_fetched, "num_pairs": result.num_pairs,
        "pairs_id": result.pairs_id, "images_id": images.images_id,
        "cpu_s": round(sum(u.ru_utime + u.ru_stime for u in usage), 1), "peak_mb": max(u.ru_maxrss for u in usage) // 1024,
    }  # fmt: skip
    print(json.dumps(said))


def tables_of(root: Path) -> tuple[dict[str, str], collections.Counter[tuple[str, str]]]:
    """Digest of every row of the collection's tables, and how many drops have which stage and reason."""
    digests = {}
    with connect(Layout(root).catalog) as con:
        for table, without in TABLES.items():
            columns = [row[0] for row in con.execute(f"describe {table}").fetchall() if row[0] not in without.split(", ")]
            rows = con.execute(f"select {', '.join(columns)} from {table} order by all").fetchall()
            digests[table] = f"{len(rows)} rows, {hashlib.sha256(repr(rows).encode()).hexdigest()[:12]}"
        drops = con.execute("select stage, reason, count(*) from dropped_pairs group by all").fetchall()
    return digests, collections.Counter({(stage, reason): count for stage, reason, count in drops})


def check(what: str, is_so: bool, *details: object) -> None:
    """Say that it is so, or end with an error."""
    if not is_so:
        raise SystemExit(f"NOT SO: {what} {details}")
    print(f"  {what}")


def main() -> None:
    """Publish, collect, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_images", type=int, nargs="?", default=5_000)
    parser.add_argument("--kills", type=int, default=4, help="how many runs are killed before one is left in peace")
    parser.add_argument("--seed", type=int, default=0, help="of the points in time at which they are killed")
    parser.add_argument("--child", nargs=3, metavar=("ROOT", "PORTS", "REFRESH"), help=argparse.SUPPRESS)
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        return serve(options.num_images)
    if options.child:
        root, ports, refresh = options.child
        return collect(Path(root), json.loads(ports), refresh == "1")
    server = subprocess.Popen(
        [sys.executable, __file__, str(options.num_images), "--server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ports = [int(port) for port in server.stdout.readline().split()]
        with tempfile.TemporaryDirectory() as folder:
            measure(options.num_images, ports, Path(folder), options.kills, random.Random(options.seed))
    finally:
        server.kill()
        server.wait()


def measure(num_images: int, ports: list[int], folder: Path, kills: int, rng: random.Random) -> None:
    """The four promises, one after another."""

    def start(root: str, refresh: bool = False) -> "subprocess.Popen[str]":
        command = [sys.executable, __file__, "--child", str(folder / root), json.dumps(ports), str(int(refresh))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(root: str, refresh: bool = False) -> dict[str, Any]:
        child = start(root, refresh)
        output, _ = child.communicate()
        if child.returncode:
            raise SystemExit(f"the collection failed with status {child.returncode}")
        said: dict[str, Any] = json.loads(output)
        return said

    def asked() -> collections.Counter[str]:
        connection = http.client.HTTPConnection("127.0.0.1", ports[0])
        connection.request("GET", "/requests")
        return collections.Counter(json.loads(connection.getresponse().read()))

    fates = collections.Counter(fault(i)[0] for i in range(num_images))
    num_pairs = fates.pop(None)
    num_pages = -(-num_images // FIGURES_PER_PAGE)
    print(f"{num_images} images on {num_pages} pages of {NUM_HOSTS} hosts: {num_pairs} good, {fates.total()} faulty in {len(fates)} ways")
    begin = time.monotonic()
    first = run("data")
    duration_s = time.monotonic() - begin
    tables, drops = tables_of(folder / "data")
    requests = asked()
    print(f"collected in {duration_s:.1f} s, {first['cpu_s']} s CPU, {first['peak_mb']} MB at most: {tables}")
    check(
        "every image is a pair or a drop with its reason, to the row",
        (first["num_pairs"], drops) == (num_pairs, fates),
        drops - fates,
        fates - drops,
    )
    again = run("data")
    check("a second run asks for nothing", asked() == requests, asked() - requests)
    check("and changes no table", (tables_of(folder / "data")[0], again["pairs_id"]) == (tables, first["pairs_id"]))
    fresh = run("data", refresh=True)
    more = asked() - requests
    is_so = (more["page"], more["image"], fresh["num_unchanged"]) == (num_pages, 0, num_pages)
    check("a refresh asks for the pages, which are unchanged, and for no image", is_so, more)
    check("and changes no table", tables_of(folder / "data")[0] == tables)
    num_whole = 0
    for attempt in range(kills):
        root = f"killed-{num_whole}"
        child = start(root)
        after_s = rng.uniform(0.02, 0.8) * duration_s
        try:
            child.wait(after_s)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            print(f"  killed after {after_s:.1f} s")
            if attempt < kills - 1:
                continue
        last = run(root)
        num_whole += 1
        check(
            "and, run again, it ended with the same pairs, bytes and tables",
            (tables_of(folder / root)[0], last["pairs_id"], last["images_id"]) == (tables, first["pairs_id"], first["images_id"]),
            tables_of(folder / root), tables,
        )  # fmt: skip


if __name__ == "__main__":
    main()
