"""Headers are read strictly, and the files are found in a checkout and in a wheel."""

import pytest

from dalle_datasets.catalog.sql_files import Parameter, list_sql, parse_sql, read_sql, sql_root

HEADER = "-- name: q\n-- purpose: To test.\n"


def test_parameters_may_be_required_optional_or_have_a_default():
    file = parse_sql("queries", "q", HEADER + "-- params: a (text), b_2 (integer, optional), c (number = 0.5)\nselect 1")
    assert file.parameters == (Parameter("a", "text"), Parameter("b_2", "integer", True), Parameter("c", "number", True, "0.5"))
    assert [str(parameter) for parameter in file.parameters] == ["a (text)", "b_2 (integer, optional)", "c (number = 0.5)"]


@pytest.mark.parametrize("params", ["a", "a (word)", "a text", "a (text, maybe)"])
def test_a_malformed_parameter_is_named(params):
    with pytest.raises(ValueError, match=r"sql/queries/q\.sql: parameter .* is not written as 'name \(kind\)'"):
        parse_sql("queries", "q", HEADER + f"-- params: {params}\nselect 1")


def test_the_name_must_be_the_file_s_own():
    with pytest.raises(ValueError, match=r"sql/queries/other\.sql: its header says name: q; it must be the file's own name"):
        parse_sql("queries", "other", HEADER)


def test_a_purpose_is_required():
    with pytest.raises(ValueError, match="the header has no purpose"):
        parse_sql("queries", "q", "-- name: q\nselect 1")


def test_an_unknown_file_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"there is no sql/training_sets/none\.sql; known here: captioned_pairs"):
        read_sql("training_sets", "none")


def test_identifiers_are_our_own_table_names():
    file = read_sql("ingest", "remove_part")
    assert "delete from pairs" in file.with_identifiers(table="pairs")
    with pytest.raises(AssertionError):
        file.with_identifiers(table="pairs; drop table pairs")


def test_a_wheel_s_files_come_before_the_checkout_s(tmp_path):
    packaged, checkout = tmp_path / "_sql", tmp_path / "sql"
    (checkout / "migrations").mkdir(parents=True)
    assert sql_root(packaged, checkout) == checkout
    (packaged / "migrations").mkdir(parents=True)
    assert sql_root(packaged, checkout) == packaged


def test_no_files_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"the SQL files are neither in .* nor in .*; install open-dalle again"):
        sql_root(tmp_path / "a", tmp_path / "b")


def test_the_checkout_has_files():
    assert len(list_sql("queries")) > 15
