"""What does collecting cost: our download and filter stages against plain img2dataset, on the same addresses in one run.

    python benchmarks/bench_collect.py [NUM_IMAGES] [--rounds N] [--filter-processes N]

A local server answers every address with the same picture, so that the figures are about the reader and not about the network.
Plain img2dataset runs as its users run it for the same purpose: raw bytes to Parquet, same threads, one worker process. Both take turns;
of each stage the round with the least CPU time counts.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout

SERVER = """
import http.server, sys
body = open(sys.argv[1], "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    wbufsize = -1
    def do_GET(self):
        self.send_response(404 if self.path == "/robots.txt" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): ...
http.server.ThreadingHTTPServer.request_queue_size = 512
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

PLAIN = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], input_format="parquet", url_col="image_url", output_folder=sys.argv[2], output_format="parquet",
             processes_count=1, thread_count=16, number_sample_per_shard=1000, disable_all_reencoding=True, extract_exif=False)
"""


def measure(name: str, num_images: int, work: Callable[[], object]) -> tuple[float, float]:
    """Run once; print and return CPU seconds (of this process and its children) and wall seconds."""
    start = time.perf_counter()
    before = _cpu_s()
    work()
    seconds, cpu = time.perf_counter() - start, _cpu_s() - before
    print(f"{name:28s} {seconds:7.1f} s wall {cpu:7.1f} s CPU {num_images / seconds:8.0f} images/s", flush=True)
    return cpu, seconds


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def collect(urls: Path, layout: Layout, num_images: int, filter_processes: int, run: Callable[[str, Callable[[], object]], None]) -> None:
    """Our three stages."""
    source = SourceConfig(kind="url_tables", inputs=(str(urls),))
    download = DownloadConfig(allow_addresses=("127.0.0.1",), requests_per_s_per_host=0)
    run("discover (URL table)", lambda: discover(source, download, layout))
    run("download_images", lambda: download_images(source, download, layout))
    limits = FilterConfig(
        max_captions_per_image=num_images, captions_per_image=num_images, near_duplicates=True, num_processes=filter_processes
    )
    run("filter_pairs", lambda: filter_pairs(source, download, limits, ShardsConfig(), layout))


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_images", type=int, nargs="?", default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--filter-processes", type=int, default=1, help="filter.num_processes; img2dataset has a worker and its parent")
    arguments = parser.parse_args()
    num_images = arguments.num_images
    least: dict[str, tuple[float, float]] = {}

    def run(name: str, work: Callable[[], object]) -> None:
        least[name] = min(least.get(name, (float("inf"), 0.0)), measure(name, num_images, work))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        (root / "picture.jpg").write_bytes(buffer.getvalue())
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(root / "picture.jpg")], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(num_images)]
            captions = [f"a picture of thing number {i} on a table" for i in range(num_images)]
            pq.write_table(pa.table({"image_url": urls, "caption": captions}), root / "urls.parquet")
            (root / "plain.py").write_text(PLAIN)
            print(f"{num_images} images of {len(buffer.getvalue())} bytes, 1 worker process, 16 threads")
            for number in range(arguments.rounds):
                command = [sys.executable, str(root / "plain.py"), str(root / "urls.parquet"), str(root / f"plain-{number}")]
                run("img2dataset alone", lambda command=command: subprocess.run(command, check=True, capture_output=True))  # type: ignore[misc]
                collect(root / "urls.parquet", Layout(root / f"data-{number}"), num_images, arguments.filter_processes, run)
            plain = least.pop("img2dataset alone")
            ours = [sum(figures) for figures in zip(*least.values(), strict=True)]
            print(f"all of our stages / img2dataset alone: {ours[0] / plain[0]:.2f} in CPU time, {ours[1] / plain[1]:.2f} in wall time")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
