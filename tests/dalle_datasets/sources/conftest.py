"""What a reader found, back from disk."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from dalle_datasets.sources.base import Drop, FoundImage
from dalle_datasets.sources.discovered import DROPS_FILE, FOUND_FILE, DiscoveryWriter


@pytest.fixture
def found_by(tmp_path):
    """Called with a reader (a function that takes a `DiscoveryWriter`): its `found` and `drops`."""

    def run(reader):
        folder = tmp_path / "work"
        with DiscoveryWriter(folder, "web") as result:
            reader(result)
        return SimpleNamespace(found=rows(folder / FOUND_FILE, FoundImage), drops=rows(folder / DROPS_FILE, Drop))

    def rows(path, kind):
        return [kind(**{name: row[name] for name in kind._fields}) for row in pq.read_table(path, partitioning=None).to_pylist()]

    return run
