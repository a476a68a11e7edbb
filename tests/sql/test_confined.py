"""What the guard of readers' SQL asks DuckDB, and the one row per pair and crop of a training set."""

import json

from dalle_datasets.catalog.sql_files import read_sql


def test_parsed_select_is_a_tree_or_an_error(catalog):
    parsed = read_sql("ingest", "parsed_select").text
    for sql, is_wrong in (("select * from range(3)", False), ("delete from pairs", True)):
        text = catalog.con.execute(parsed, {"sql": sql}).fetchall()[0][0]
        assert json.loads(text)["error"] is is_wrong
        assert ("TABLE_FUNCTION" in text) is not is_wrong


def test_table_macros_are_those_of_the_catalog(catalog):
    names = {name for (name,) in catalog.con.execute(read_sql("ingest", "table_macros").text).fetchall()}
    assert "image_tokens" in names
    assert not names & {"read_parquet", "enable_logging"}


def test_remove_repeated_rows_leaves_one_per_pair_and_crop(catalog):
    rows = "values (1, 0, 'a'), (1, 0, 'b'), (1, 1, 'a'), (2, 0, 'a')"
    catalog.con.execute(f"create temp table chosen_pairs as select * from ({rows}) as rows(pair_id, crop, source)")
    catalog.con.execute(read_sql("ingest", "remove_repeated_rows").text)
    assert catalog.con.execute("from chosen_pairs order by all").fetchall() == [(1, 0, "a"), (1, 1, "a"), (2, 0, "a")]
