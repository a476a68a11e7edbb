"""Which pairs an export takes, and from which of several places."""

import pytest

from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store.schemas import TRAINING_SET


def two_pairs(catalog):
    """Pair 1 in two sources, of which one knows its licence and none its score by the newest CLIP; pair 2 in one."""
    catalog.add("artifacts", kind="clip", artifact_id="clip")
    catalog.add("pairs", {"source": "a", "licence": None}, {"source": "b", "licence": "CC0-1.0"}, pair_id=1, language="en", split="train")
    catalog.add("pairs", pair_id=2, source="b", licence="MIT", language="de", split="validation", part_path="pairs/b/part-00001.parquet")
    catalog.add("clip_scores", {"pair_id": 2, "clip_score": 0.5}, {"pair_id": 1, "clip_id": "old", "clip_score": 0.25})


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"clip_id": "clip"}, [(1, "a", None, None), (1, "b", None, None), (2, "b", "clip", 0.5)]),
        ({"clip_id": "old", "min_clip_score": 0.2}, [(1, "a", "old", 0.25), (1, "b", "old", 0.25)]),
        ({"licences": "CC0-1.0,GPL"}, [(1, "b")]),
        ({"sources": "a"}, [(1, "a")]),
        ({"languages": "de,fr"}, [(2, "b")]),
        ({"split": "train", "sources": "b,c"}, [(1, "b")]),
    ],
)
def test_collected_pairs(catalog, params, expected):
    two_pairs(catalog)
    rows = sorted(catalog.query("collected_pairs", "pair_sets", **params), key=lambda row: row[:2])
    assert [row[: len(expected[0])] for row in rows] == expected


def test_pairs_of_training_set(catalog, write, tmp_path):
    two_pairs(catalog)
    for name in ("set0", "set1"):
        rows = [{"pair_id": 1 + int(name[-1]), "crop": crop} for crop in (0, 1)]
        write(f"training_sets/{name}/part-00000.parquet", TRAINING_SET, rows)
        catalog.add("training_sets", training_set_id=name, clip_id="clip")
    rows = catalog.query("pairs_of_training_set", "pair_sets", root=str(tmp_path), training_set_id="set1")
    assert rows == [(2, "b", "clip", 0.5)]
    rows = catalog.query("pairs_of_training_set", "pair_sets", root=str(tmp_path), training_set_id="set0")
    assert sorted(rows) == [(1, "a", "clip", None), (1, "b", "clip", None)]


def test_placed_pairs_are_read_from_the_source_that_the_recipe_chose(catalog):
    """parts_of_placed_pairs, placed_pairs_of_part and licences_of_placed_pairs tell what an export reads."""
    two_pairs(catalog)
    catalog.add("ingested_parts", {"part_path": "pairs/b/part-00001.parquet", "sha256": "hash"}, artifact_kind="pairs")
    catalog.con.execute("create temp table chosen_pairs (pair_id bigint, source varchar, clip_id varchar, clip_score float)")
    catalog.con.execute("insert into chosen_pairs values (1, 'b', null, null), (2, 'b', 'clip', 0.5), (2, 'b', 'clip', 0.5)")
    catalog.con.execute(f"create temp table placed_pairs as {read_sql('ingest', 'placed_pairs').text}")
    assert catalog.column("licences_of_placed_pairs", 0, "ingest") == ["CC0-1.0", "MIT"]
    assert catalog.query("parts_of_placed_pairs", "ingest") == [("pairs/b/part-00001.parquet", "hash", 1)]
    assert catalog.query("placed_pairs_of_part", "ingest", part_path="pairs/b/part-00001.parquet") == [(2, "clip", 0.5)]
