"""Artefacts are whole or absent, and never read as something else."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.store.parquet import (
    PartsWriter,
    SchemaError,
    atomic_path,
    iter_batches,
    list_column,
    list_parts,
    read_parquet,
    write_parquet,
    write_parts,
)
from dalle_datasets.store.schemas import CLIP_SCORES, IMAGE_TOKENS
from tests.parts import read_parts


def tokens(num_rows: int) -> pa.Table:
    return pa.table(
        {"pair_id": range(num_rows), "crop": [0] * num_rows, "image_tokens": [[row % 7, 8_191] for row in range(num_rows)]},
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "part-00000.parquet"
    write_parquet(path, tokens(5), IMAGE_TOKENS, metadata={"dvae_id": "abc"})
    table = read_parquet(path, IMAGE_TOKENS)
    assert table["image_tokens"].to_pylist() == [[row % 7, 8_191] for row in range(5)]
    assert table.schema.field("image_tokens").type == IMAGE_TOKENS.field("image_tokens").type
    assert [p.name for p in path.parent.iterdir()] == ["part-00000.parquet"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_parquet(tmp_path / name, tokens(50), IMAGE_TOKENS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow larger: to the writer the same as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_file_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    paths = tmp_path / "a.parquet", tmp_path / "b.txt"
    write_parquet(paths[0], tokens(1), IMAGE_TOKENS)
    before = paths[0].read_bytes()
    with room_for(1_000):
        with pytest.raises(OSError, match=r"could not write .*a\.parquet: File too large; free some space or choose another data root"):
            write_parquet(paths[0], tokens(5_000), IMAGE_TOKENS)
        with (
            pytest.raises(OSError, match=r"could not write .*b\.txt: File too large; free some space or choose another") as failed,
            atomic_path(paths[1]) as partial,
        ):
            partial.write_text("x" * 2_000)
    assert failed.value.errno == errno.EFBIG
    assert paths[0].read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_matrix_becomes_a_column_of_lists(tmp_path: Path) -> None:
    kind = IMAGE_TOKENS.field("image_tokens").type
    column = list_column(np.array([[1, 2], [3, 8_191]]), kind)
    assert column.type == kind
    assert column.to_pylist() == [[1, 2], [3, 8_191]]
    assert list_column(np.empty((0, 2), np.int64), kind).to_pylist() == []


def test_another_schema_is_refused_with_both_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", tokens(1), IMAGE_TOKENS)
    with pytest.raises(SchemaError, match=r"x.parquet: schema image_tokens v1, but this code reads clip_scores v2; run the stage"):
        read_parquet(tmp_path / "x.parquet", CLIP_SCORES)


@pytest.mark.parametrize("damage", [b"", b"PAR1 not really", "cut"])
def test_a_broken_file_is_named_with_its_remedy(tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, tokens(10), IMAGE_TOKENS)
    path.write_bytes(path.read_bytes()[:-20] if isinstance(damage, str) else damage)
    with pytest.raises(SchemaError, match=r"x.parquet is not a readable Parquet file .* delete it and run the stage again"):
        read_parquet(path, IMAGE_TOKENS)


def test_parts_are_cut_in_order_and_longer_runs_leave_nothing_behind(tmp_path: Path) -> None:
    write_parts(tmp_path, tokens(10), IMAGE_TOKENS, rows_per_part=3, row_group_size=2)
    assert len(list_parts(tmp_path)) == 4
    write_parts(tmp_path, tokens(5), IMAGE_TOKENS, rows_per_part=3, row_group_size=2)
    assert [p.name for p in list_parts(tmp_path)] == ["part-00000.parquet", "part-00001.parquet"]
    assert read_parts(tmp_path, IMAGE_TOKENS)["pair_id"].to_pylist() == list(range(5))
    assert [b.num_rows for b in iter_batches(tmp_path, IMAGE_TOKENS, ["pair_id"], batch_size=2)] == [2, 1, 2]


def test_an_empty_folder_is_an_empty_table(tmp_path: Path) -> None:
    assert read_parts(tmp_path, CLIP_SCORES).num_rows == 0
    assert read_parts(tmp_path, CLIP_SCORES, ["clip_score"]).column_names == ["clip_score"]


def test_parts_of_large_pictures_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand photographs in one part would be a file that nobody can copy, and a row group of 4,096 fills the memory."""
    monkeypatch.setattr("dalle_datasets.store.parquet.MAX_GROUP_BYTES", 2_500)
    monkeypatch.setattr("dalle_datasets.store.parquet.MAX_PART_BYTES", 5_000)
    schema = pa.schema([pa.field("image", pa.binary())], metadata={"schema": "pictures", "version": "1"})
    rows = [{"image": bytes([i]) * 1_000} for i in range(12)]
    with PartsWriter(tmp_path, schema, rows_per_part=100, row_group_size=100) as writer:
        for row in rows:
            writer.append(row)
    footers = [pq.read_metadata(part) for part in list_parts(tmp_path)]
    assert [footer.num_rows for footer in footers] == [5, 5, 2]
    assert [footers[0].row_group(i).num_rows for i in range(footers[0].num_row_groups)] == [3, 2]
    assert read_parts(tmp_path, schema).to_pylist() == rows


def test_row_groups_of_large_pictures_are_small_whoever_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalle_datasets.store.parquet.MAX_GROUP_BYTES", 40_000)
    schema = pa.schema([pa.field("image", pa.binary())], metadata={"schema": "pictures", "version": "1"})
    table = pa.table({"image": [bytes([i]) * 2_000 for i in range(100)]})
    write_parquet(tmp_path / "x.parquet", table, schema, row_group_size=50)
    footer = pq.read_metadata(tmp_path / "x.parquet")
    assert {footer.row_group(i).num_rows for i in range(footer.num_row_groups - 1)} == {19}
    assert read_parquet(tmp_path / "x.parquet", schema).to_pylist() == table.to_pylist()


def test_columns_that_may_be_null_may_be_missing(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("pair_id", pa.int64(), nullable=False), pa.field("licence", pa.string())], metadata=CLIP_SCORES.metadata)
    write_parquet(tmp_path / "x.parquet", pa.table({"pair_id": [1]}), schema)
    assert read_parquet(tmp_path / "x.parquet", schema).to_pylist() == [{"pair_id": 1, "licence": None}]
    with pytest.raises(KeyError, match="pair_id"):
        write_parquet(tmp_path / "y.parquet", pa.table({"licence": ["x"]}), schema)
