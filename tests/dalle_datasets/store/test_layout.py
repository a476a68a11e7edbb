"""The data root."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalle_datasets.store.layout import open_data_root


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
