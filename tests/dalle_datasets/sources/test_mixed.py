"""A folder, a tar, tables and a site as one source: collected together, and again when one of them changes or is taken out."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet
from dalle_datasets.store.schemas import DROPPED_PAIRS, PAIRS

DOWNLOAD = DownloadConfig(allow_addresses=("127.0.0.1",), retries=0)


def png(seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_tar(path, captions):
    with tarfile.open(path, "w") as tar:
        for i, caption in enumerate(captions):
            for name, data in ((f"{i:04}.png", png(caption)), (f"{i:04}.txt", caption_of(caption).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def caption_of(number):
    return f"a picture of the number {number}"


def put_site(web, *numbers):
    for number in numbers:
        web.put(f"/{number}.png", png(number), "image/png")
    images = "".join(f'<img src="{number}.png" alt="{caption_of(number)}">' for number in numbers)
    web.put("/", f"<!doctype html>{images}".encode(), "text/html")


@pytest.fixture
def places(tmp_path, web):
    """Pictures 10 and 11 in a folder, 20 in a tar, 30 inside a table, 40 at an address of another, 50 on a page; 10 on it, too."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (10, 11):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(caption_of(number))
    write_tar(tmp_path / "more.tar", [20])
    pq.write_table(pa.table({"image": [png(30)], "caption": [caption_of(30)]}), tmp_path / "bytes.parquet")
    web.put("/40.png", png(40), "image/png")
    (tmp_path / "addresses.csv").write_text(f"url,caption\n{web.url('/40.png')},{caption_of(40)}\n")
    put_site(web, 50, 10)
    return [str(tmp_path / name) for name in ("photos", "more.tar", "bytes.parquet", "addresses.csv")]


def collect(root, inputs, start_urls, refresh=True):
    """The numbers of the pictures that are pairs, and the reasons why others are not."""
    layout, source = Layout(root), SourceConfig(kind="mixed", name="all", inputs=tuple(inputs), start_urls=start_urls)
    discover(source, DOWNLOAD, layout, refresh=refresh)
    download_images(source, DOWNLOAD, layout, refresh=refresh)
    filter_pairs(source, DOWNLOAD, FilterConfig(validation_share=0.0), ShardsConfig(), layout)
    captions = [caption for part in list_parts(layout.pairs("all")) for caption in read_parquet(part, PAIRS)["caption"].to_pylist()]
    drops = read_parquet(layout.dropped("all") / "discover.parquet", DROPPED_PAIRS)
    reasons = {row["caption"].split()[-1]: row["reason"] for row in drops.to_pylist() if row["caption"]}
    return sorted(int(caption.split()[-1]) for caption in captions), reasons


def test_sources_of_all_kinds_are_one_and_change_one_by_one(tmp_path, web, places):
    root, start = tmp_path / "data", (web.url("/"),)
    assert collect(root, places, start)[0] == [10, 11, 20, 30, 40, 50], "10 is there twice"
    num_requests = web.count("/40.png")

    (tmp_path / "photos/11.txt").unlink()
    (tmp_path / "photos/11.png").unlink()
    (tmp_path / "photos/12.png").write_bytes(png(12))
    (tmp_path / "photos/12.txt").write_text(caption_of(12))
    assert collect(root, places, start, refresh=False)[0] == [10, 12, 20, 30, 40, 50], "a changed folder is noticed without a refresh"
    assert web.count("/40.png") == num_requests

    put_site(web, 51)
    write_tar(tmp_path / "more.tar", [20, 21])
    found, reasons = collect(root, places, start)
    assert found == [10, 12, 20, 21, 30, 40, 51]
    assert reasons["50"] == "no_longer_shown"

    found, reasons = collect(root, [place for place in places if "more.tar" not in place], start)
    assert found == [10, 12, 30, 40, 51]
    assert (reasons["20"], reasons["21"]) == ("not_in_source", "not_in_source")

    found, reasons = collect(root, places[:1], ())
    assert found == [10, 12], "without the site and the tables"
    assert reasons["51"] == "not_in_source"


def test_a_disk_that_is_not_there_withdraws_nothing(tmp_path, web, places):
    root, start = tmp_path / "data", (web.url("/"),)
    collect(root, places, start)
    (tmp_path / "photos").rename(tmp_path / "unplugged")
    with pytest.raises(ValueError, match=r"photos', which matches no file; check the path, .*or take it out, which withdraws what came"):
        collect(root, places, start)
    assert collect(root, places, start, refresh=False)[0] == [10, 11, 20, 30, 40, 50]
    (tmp_path / "unplugged").rename(tmp_path / "photos")
    assert collect(root, places, start)[0] == [10, 11, 20, 30, 40, 50]


def test_what_is_of_no_known_kind_costs_itself_alone(tmp_path, web, places):
    (tmp_path / "song.mp3").write_bytes(b"la")
    found, _ = collect(tmp_path / "data", [*places, str(tmp_path / "song.mp3")], (web.url("/"),))
    assert found == [10, 11, 20, 30, 40, 50]
    drops = read_parquet(Layout(tmp_path / "data").dropped("all") / "discover.parquet", DROPPED_PAIRS).to_pylist()
    (detail,) = [row["detail"] for row in drops if row["reason"] == "broken_document"]
    assert "song.mp3 is no folder, tar or table" in detail


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"source.start_urls and source.inputs are empty"):
        collect(tmp_path, [], ())
