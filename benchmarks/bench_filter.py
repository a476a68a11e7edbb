"""What does filtering cost as the number of images grows: CPU time of each phase and peak memory, near duplicates included.

    python benchmarks/bench_filter.py [NUM_IMAGES ...]

Half of the images are smooth noise (their spectrum is a photograph's), half are flat drawings (a glyph on a plain ground, the hardest
case for perceptual hashes); one in twenty is an exact copy under another caption, one in twenty a recompressed copy. Each size runs in
a process of its own. The last line judges a million rows without images: the columns are those of the largest size, tiled, with bits
flipped so that tiles are no copies of each other.
"""

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from timing import in_child, peak_mb

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.demo.emoji_scenes import all_scenes, draw_scene
from dalle_datasets.filters import filter_pairs as filtering
from dalle_datasets.filters.candidate_table import CandidateTable
from dalle_datasets.filters.judge import judge_together
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.ids import candidate_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES

ROWS_PER_PART = 1_000
SIDE = 96
LIMITS = FilterConfig(near_duplicates=True)
WORDS = [
    "red", "blue", "green", "old", "new", "small", "large", "wooden", "bright", "quiet",
    "apple", "table", "river", "house", "garden", "window", "bird", "morning", "street", "light",
]  # fmt: skip


def pictures(num_images: int) -> Iterator[bytes]:
    """JPEG files."""
    rng = np.random.default_rng(0)
    scenes = all_scenes()
    recent: list[tuple[Image.Image, bytes]] = []
    for i in range(num_images):
        kind = rng.random()
        if kind < 0.1 and recent:
            picture, data = recent[int(rng.integers(len(recent)))]
            yield data if kind < 0.05 else packed(picture.resize((80, 80), Image.Resampling.LANCZOS), 60)
            continue
        if i % 2:
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        else:
            glyph = Image.fromarray(draw_scene(scenes[int(rng.integers(len(scenes)))], 64))
            side = int(rng.integers(40, SIDE))
            picture = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in rng.integers(0, 256, 3)))
            left, top = (int(c) for c in rng.integers(0, SIDE - side + 1, 2))
            picture.paste(glyph.resize((side, side)), (left, top))
        recent = [*recent[-199:], (picture, packed(picture, 90))]
        yield recent[-1][1]


def packed(picture: Image.Image, quality: int) -> bytes:
    """A JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_images(layout: Layout, num_images: int) -> None:
    """What discovery and download would have left."""
    rng = np.random.default_rng(1)
    candidates, rows = [], []
    for i, data in enumerate(pictures(num_images)):
        url, caption = f"http://x/{i}.jpg", " ".join(["a picture of", *rng.choice(WORDS, 5), str(i)])
        row = {"candidate_id": candidate_id(url, caption), "image_url": url, "caption": caption, "page_url": "http://x/", "source": "web"}
        candidates.append({**row, "position": i, "found_in": "img alt"})
        rows.append({**row, "status": "ok", "sha256": hashlib.sha256(data).hexdigest(), "image": data})
        if len(rows) == ROWS_PER_PART or i + 1 == num_images:
            part = layout.images("web") / f"part-{i // ROWS_PER_PART:05d}.parquet"
            write_parquet(part, pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)
            rows = []
    table = pa.Table.from_pylist([{name: row.get(name) for name in CANDIDATES.names} for row in candidates], schema=CANDIDATES)
    write_parquet(candidates_path(layout, "web"), table, CANDIDATES)
    for stage in ("discover", "download"):
        write_parquet(layout.dropped("web") / f"{stage}.parquet", pa.Table.from_pylist([], schema=DROPPED_PAIRS), DROPPED_PAIRS)


def filter_in_this_process(root: Path) -> dict[str, Any]:
    """Run the stage with a clock at each phase. Columns of the judging are kept in `columns.npz` for `judge_a_million`."""
    seconds: dict[str, float] = {}

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return work(*args, **options)
            finally:
                seconds[name] = time.process_time() - start

        return timed

    def together(columns: CandidateTable, *rest: Any) -> None:
        np.savez(root / "columns.npz", *columns[:4], *columns.fingerprints, columns.drops.codes)
        judge_together(columns, *rest)

    at_start = peak_mb()
    phases = {name: getattr(filtering, name) for name in ("_measure", "_judge", "_write_drops", "_write_pairs")}
    for name, work in {**phases, "judge_together": together}.items():
        setattr(filtering, name, clocked(name.strip("_").replace("_", " "), work))
    clocked_filter = clocked("all", filtering.filter_pairs)
    result = clocked_filter(SourceConfig(), DownloadConfig(), LIMITS, ShardsConfig(), Layout(root))
    return {"seconds": seconds, "mb": peak_mb(), "start_mb": at_start, "pairs": result.num_pairs, "dropped": result.dropped}


def judge_a_million(root: Path) -> dict[str, Any]:
    """The global rules alone, on tiled columns."""
    saved = np.load(root / "columns.npz")
    candidates, seen, captions, num_pixels, phashes, dhashes, thumbnails, codes = (saved[name] for name in saved.files)
    rng = np.random.default_rng(2)
    repeats = -(-1_000_000 // len(candidates))
    columns = CandidateTable.empty(repeats * len(candidates), has_fingerprints=True)
    for i in range(repeats):
        rows = slice(i * len(candidates), (i + 1) * len(candidates))
        flips = rng.integers(0, 2**64, (5,), np.uint64) if i else np.zeros(5, np.uint64)
        columns.candidates[rows], columns.pictures[rows], columns.captions[rows] = (
            candidates ^ flips[0],
            seen ^ flips[1],
            captions ^ flips[2],
        )
        columns.num_pixels[rows], columns.drops.codes[rows] = num_pixels, codes
        columns.fingerprints.phashes[rows], columns.fingerprints.dhashes[rows] = phashes ^ flips[3], dhashes ^ flips[4]
        columns.fingerprints.thumbnails[rows] = thumbnails
    at_start = peak_mb()
    start = time.process_time()
    judge_together(columns, LIMITS, None)
    seconds = {"judge together": time.process_time() - start}
    return {"rows": len(columns.candidates), "seconds": seconds, "mb": peak_mb(), "start_mb": at_start}


def main() -> None:
    """Measure and print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_images", type=int, nargs="*", default=[6_000, 25_000])
    with tempfile.TemporaryDirectory() as folder:
        for num_images in parser.parse_args().num_images:
            root = Path(folder) / str(num_images)
            write_images(Layout(root), num_images)
            found = in_child("bench_filter", "filter_in_this_process", root)
            phases = ", ".join(f"{name} {1e3 * seconds / num_images:.3f}" for name, seconds in found["seconds"].items())
            print(f"{num_images} images, ms of CPU per image: {phases}; peak {found['mb']:.0f} MB, {found['start_mb']:.0f} at the start")
            print(f"  {found['pairs']} pairs, dropped {found['dropped']}", flush=True)
        found = in_child("bench_filter", "judge_a_million", root)
        print(
            f"{found['rows']} rows judged together in {found['seconds']['judge together']:.1f} s of CPU; "
            f"peak {found['mb']:.0f} MB, {found['start_mb']:.0f} with the columns in memory"
        )


if __name__ == "__main__":
    main()
