"""The data root."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalle_datasets.store.layout import Layout, find_data_root, open_data_root


def test_a_data_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"paths.data_root=.*file/data: cannot be written .* choose another folder"):
        open_data_root(str(tmp_path / "file" / "data"))


def test_paths_are_stored_relative_to_the_root(tmp_path: Path) -> None:
    layout = open_data_root(str(tmp_path / "data"))
    assert layout.relative(layout.image_tokens("ab12") / "part-00000.parquet") == "image_tokens/dvae=ab12/part-00000.parquet"
    assert list(layout.root.iterdir()) == []


def test_many_may_open_one_data_root_at_once(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        layouts = list(threads.map(lambda _: open_data_root(str(tmp_path / "data")), range(500)))
    assert len(layouts) == 500
    assert not list((tmp_path / "data").iterdir())


def test_folders_of_a_data_root_may_be_links_to_other_disks(tmp_path):
    (tmp_path / "disk" / "web").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in ("data", "link"):
        layout = Layout(tmp_path / root)
        assert layout.relative(layout.images("web")) == "images/web"
    assert layout.relative(tmp_path / "data" / "runs") == "runs"  # the root was named by way of a link, the path was not


def test_a_data_root_in_which_the_catalog_could_not_lie(tmp_path):
    with pytest.raises(ValueError, match="the catalog cannot lie in a path with a question mark; choose another folder"):
        open_data_root(str(tmp_path / "what?"))


def test_who_only_reads_needs_no_right_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"data does not exist yet; `dalle demo` fills it"):
        find_data_root(str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == [], "looking for a data root makes none"
    (tmp_path / "data").mkdir(mode=0o555)
    before = (tmp_path / "data").stat().st_mtime_ns
    assert find_data_root(str(tmp_path / "data")).root == tmp_path / "data"
    assert (tmp_path / "data").stat().st_mtime_ns == before


@pytest.mark.parametrize("find", [open_data_root, find_data_root])
def test_an_address_is_no_data_root(tmp_path, monkeypatch, find):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"paths.data_root=s3://bucket/data: is an address, but a data root is a folder; mount the bucket"):
        find("s3://bucket/data")
    assert list(tmp_path.iterdir()) == []
