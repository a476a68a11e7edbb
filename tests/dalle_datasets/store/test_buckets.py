"""Joining and sorting with little memory."""

import hashlib

import pyarrow as pa
import pytest

from dalle_datasets.store import buckets
from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.parquet import SchemaError, write_parquet

SCHEMA = pa.schema([("id", pa.string()), ("number", pa.int64()), ("links", pa.list_(pa.string()))])
NAMED = SCHEMA.with_metadata({"schema": "numbers", "version": "1"})


def digest(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def tables(numbers, rows_per_table):
    yield SCHEMA.empty_table()
    for i in range(0, len(numbers), rows_per_table):
        some = numbers[i : i + rows_per_table]
        yield pa.Table.from_pylist([{"id": digest(n), "number": n, "links": ["x"] * (n % 3)} for n in some], SCHEMA)


@pytest.fixture(params=[50_000, 100])
def rows_in_memory(request, monkeypatch):
    monkeypatch.setattr(buckets, "ROWS_IN_MEMORY", request.param)
    return request.param


def test_every_row_is_in_one_bucket_and_the_buckets_are_in_order(tmp_path, rows_in_memory):
    numbers = [(i * 7919) % 1_000 for i in range(1_000)]
    got = [bucket["rows"] for bucket in by_key(tmp_path, "id", rows=tables(numbers, 64))]
    assert len(got) == (1 if rows_in_memory > 1_000 else 256)
    ids = [id for bucket in got for id in bucket.sort_by("id")["id"].to_pylist()]
    assert ids == sorted(map(digest, range(1_000)))
    rows = [row for bucket in got for row in bucket.to_pylist()]
    assert all(row == {"id": digest(row["number"]), "number": row["number"], "links": ["x"] * (row["number"] % 3)} for row in rows)


def test_the_order_within_a_bucket_is_that_of_the_stream(tmp_path, rows_in_memory):
    numbers = list(range(500))
    place = {number: i for i, number in enumerate(numbers)}
    for bucket in by_key(tmp_path, "id", rows=tables(numbers, 50)):
        places = [place[number] for number in bucket["rows"]["number"].to_pylist()]
        assert places == sorted(places)


def test_rows_of_streams_with_the_same_key_meet(tmp_path, rows_in_memory):
    few, many = tables(list(range(0, 900, 100)), 5), tables(list(range(900)), 100)
    met = {}
    for bucket in by_key(tmp_path, "id", few=few, many=many):
        ids = set(bucket["many"]["id"].to_pylist())
        met |= {number: id in ids for number, id in zip(bucket["few"]["number"].to_pylist(), bucket["few"]["id"].to_pylist(), strict=True)}
    assert met == dict.fromkeys(range(0, 900, 100), True)


def test_nothing_at_all(tmp_path, rows_in_memory):
    (bucket,) = by_key(tmp_path, "id", one=tables([], 1), other=tables([], 1))
    assert [table.schema for table in bucket.values()] == [SCHEMA, SCHEMA]
    assert sum(table.num_rows for table in bucket.values()) == 0


def test_large_rows_count_too(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BYTES_IN_MEMORY", 10_000)
    assert len(list(by_key(tmp_path, "id", rows=tables(list(range(1_000)), 10)))) == 256


def test_what_lay_on_disk_is_gone_afterwards(tmp_path, rows_in_memory):
    rows = by_key(tmp_path, "id", rows=tables(list(range(1_000)), 10))
    next(rows)
    assert bool(list(tmp_path.glob("buckets-*/*.arrow"))) == (rows_in_memory < 1_000)
    rows.close()
    assert not list(tmp_path.iterdir())


def test_files_are_read_a_piece_at_a_time_and_checked(tmp_path):
    path = tmp_path / "numbers.parquet"
    write_parquet(path, next(iter(tables([], 1))), NAMED)
    assert [table.schema for table in read_tables([path], NAMED, ["number"])] == [pa.schema([("number", pa.int64())])]
    with pytest.raises(SchemaError, match="missing.parquet is not a readable Parquet file"):
        list(read_tables([tmp_path / "missing.parquet"], NAMED))
