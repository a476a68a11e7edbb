"""Addresses cut into shards, on disk."""

import pyarrow as pa
import pytest

from dalle_datasets.download.shards import Shards, write_shards

SCHEMA = pa.schema([("candidate_id", pa.string()), ("image_url", pa.string())])


def rows(*captions_of_urls):
    """As many candidates as given for each address."""
    return [{"candidate_id": f"{i}-{n}", "image_url": f"http://a/{i}"} for i, count in enumerate(captions_of_urls) for n in range(count)]


def test_candidates_of_one_address_are_in_one_shard(tmp_path):
    path = tmp_path / "shards.parquet"
    write_shards(path, rows(1, 3, 2, 1, 1), SCHEMA, 2)
    shards = Shards(path, 2)
    assert (len(shards), shards.num_urls) == (3, 5)
    assert [shards.urls(number) for number in range(3)] == [["http://a/0", "http://a/1"], ["http://a/2", "http://a/3"], ["http://a/4"]]
    assert [shards.rows(number).num_rows for number in range(3)] == [4, 3, 1]
    assert [shards.size(number) for number in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("urls_per_shard", [1, 7, 10_000])
def test_nothing_is_lost(tmp_path, urls_per_shard):
    path = tmp_path / "shards.parquet"
    given = rows(*[1, 2] * 2_500)
    write_shards(path, given, SCHEMA, urls_per_shard)
    shards = Shards(path, urls_per_shard)
    assert len(shards) == -(-5_000 // urls_per_shard)
    assert [row for number in range(len(shards)) for row in shards.rows(number).to_pylist()] == given
    assert sum(shards.size(number) for number in range(len(shards))) == 5_000


def test_nothing_to_fetch(tmp_path):
    path = tmp_path / "shards.parquet"
    write_shards(path, [], SCHEMA, 10)
    assert (len(Shards(path, 10)), Shards(path, 10).num_urls) == (0, 0)
