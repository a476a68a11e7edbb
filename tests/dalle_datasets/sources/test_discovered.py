"""What is found goes to disk at once, and comes back in its order."""

import threading

import pyarrow.parquet as pq
import pytest

from dalle_datasets.sources.base import Drop, FoundImage, SeenPage
from dalle_datasets.sources.discovered import FOUND_FILE, PAGES_FILE, DiscoveryWriter, KnownPages
from dalle_datasets.store.schemas import CANDIDATES, PAGES


def test_threads_share_it_and_each_reader_keeps_its_order(tmp_path):
    def read(reader):
        for i in range(500):
            result.add([FoundImage(f"http://a/{i}", f"caption {i} of {reader}", "http://p/", i, "img alt")], reader=reader)

    with DiscoveryWriter(tmp_path, "web") as result:
        threads = [threading.Thread(target=read, args=(reader,)) for reader in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert result.num_found == 4_000
    rows = sorted(pq.read_table(tmp_path / FOUND_FILE).to_pylist(), key=lambda row: (row["reader"], row["place"]))
    assert [row["caption"] for row in rows] == [f"caption {i} of {reader}" for reader in range(8) for i in range(500)]
    assert set(CANDIDATES.names) < set(rows[0])


def test_a_broken_off_discovery_leaves_no_files(tmp_path):
    with pytest.raises(KeyboardInterrupt), DiscoveryWriter(tmp_path, "web") as result:
        result.add(drops=[Drop("no_caption", "", "http://p/")])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_known_pages_are_looked_up_on_disk(tmp_path):
    pages = [SeenPage(f"http://a/{i}", f'"{i}"' if i % 2 else None, None, [f"http://a/{i}/{n}" for n in range(i % 5)]) for i in range(300)]
    with DiscoveryWriter(tmp_path, "web") as result:
        for page in pages:
            result.add_page(page, is_unchanged=False)
    known = KnownPages(tmp_path / PAGES_FILE)
    assert [known.get(page.page_url) for page in pages] == pages
    assert known.get("http://a/300") is None
    assert pq.read_metadata(tmp_path / PAGES_FILE).metadata[b"schema"] == PAGES.metadata[b"schema"]
