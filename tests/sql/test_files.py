"""What holds for every .sql file: a header that tells the truth, comments, a test, and a place in the README."""

import re
from pathlib import Path

import duckdb
import pytest

from dalle_datasets.catalog.examples import HEADING, header_of
from dalle_datasets.catalog.migrations import migrate
from dalle_datasets.catalog.sql_files import SqlFile, list_sql, sql_root

FOLDERS = ("migrations", "views", "ingest", "training_sets", "pair_sets", "queries", "checks")
FILES = [file for folder in FOLDERS for file in list_sql(folder)]
TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.folder}/{file.name}")


def body(file: SqlFile) -> str:
    """The file without comments and quoted text."""
    return re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", file.text))


def test_there_are_files_in_every_folder():
    assert {file.folder for file in FILES} == set(FOLDERS)


@every_file
def test_declared_parameters_are_the_used_ones(file):
    if "macro" in body(file):
        return  # a macro's parameters are plain names
    assert set(re.findall(r"\$([a-z0-9_]+)", body(file))) == {parameter.name for parameter in file.parameters}
    assert set(re.findall(r"\{([a-z_]+)\}", body(file))) == set(file.identifiers)


@every_file
def test_what_it_reads_exists_and_is_named(file, catalog):
    existing = {
        row[0]
        for row in catalog.con.execute(
            "select table_name from duckdb_tables() union select view_name from duckdb_views() where not internal"
        ).fetchall()
    }
    existing |= {row[0] for row in catalog.con.execute("select function_name from duckdb_functions() where not internal").fetchall()}
    existing |= {"chosen_pairs", "placed_pairs"}  # made by the exports of training sets and pairs
    assert set(file.reads) <= existing
    if file.folder != "migrations":
        named = set(re.findall(r"\b(?:from|join)\s+([a-z_]+)", body(file))) & existing
        own = set(re.findall(r"\b([a-z_]+)(?:\([a-z_, ]+\))? as \(", body(file)))  # common table expressions
        assert named - own == set(file.reads), "the header's `reads` must name the tables and views it takes rows from"


@every_file
def test_a_test_names_it(file):
    pattern = rf'def test_{file.name}\b|def test_{file.name}_|"{file.name}"'
    assert file.folder == "migrations" or re.search(pattern, TESTS), f"write a test called test_{file.name}_… in tests/sql"


@every_file
def test_returned_columns_are_stated(file):
    assert file.folder == "migrations" or file.returns
    assert file.purpose.endswith("."), "the purpose is a sentence"
    if file.folder in ("queries", "checks", "ingest", "training_sets", "pair_sets"):
        assert ";" not in body(file), "one statement a file: DuckDB binds parameters to the last statement only"


@pytest.mark.parametrize("file", [f for f in FILES if f.folder in ("queries", "checks")], ids=lambda f: f.name)
def test_queries_run_on_an_empty_catalog_and_return_what_they_say(file, catalog):
    if any(parameter.name == "root" for parameter in file.parameters):
        return  # reads Parquet; tested with files
    values = {parameter.name: parameter.default for parameter in file.parameters}
    cursor = catalog.con.execute(file.text, values or None)
    columns = [column[0] for column in cursor.description]
    stated = file.returns.partition(";")[0]
    assert stated == ", ".join(columns), "the header's `returns` lists the columns"


def test_every_table_and_column_has_a_comment(catalog):
    bare = "select table_name from duckdb_tables() where comment is null"
    assert catalog.con.execute(bare).fetchall() == []
    bare = """select table_name, column_name from duckdb_columns()
        where not internal and comment is null and table_name in (select table_name from duckdb_tables())"""
    assert catalog.con.execute(bare).fetchall() == []
    assert catalog.con.execute("select view_name from duckdb_views() where not internal and comment is null").fetchall() == []
    bare = "select table_name, column_name from duckdb_columns() where not internal and comment is null"
    assert catalog.con.execute(bare).fetchall() == []
    bare = "select function_name from duckdb_functions() where not internal and comment is null"
    assert catalog.con.execute(bare).fetchall() == []


def test_the_schema_is_portable_to_ducklake():
    con = duckdb.connect(":memory:")
    migrate(con)
    assert con.execute("select * from duckdb_indexes()").fetchall() == []
    kinds = {row[0] for row in con.execute("select distinct constraint_type from duckdb_constraints()").fetchall()}
    assert kinds <= {"NOT NULL"}
    types = {row[0] for row in con.execute("select distinct data_type from duckdb_columns() where not internal").fetchall()}
    assert not [kind for kind in types if re.search(r"ENUM|\[\d+\]", kind)]


def test_the_readme_lists_every_file_with_its_purpose():
    readme = (sql_root() / "README.md").read_text()
    missing = [f"| `{file.folder}/{file.name}.sql` | {file.purpose} |" for file in FILES]
    assert [line for line in missing if line not in readme] == []
    assert len(re.findall(r"^\| `\w+/\w+\.sql` ", readme, re.MULTILINE)) == len(FILES), "the table has a line for a file that is gone"


def test_the_readme_answers_every_question():
    """Written by `python -m dalle_datasets.catalog.examples DATA_ROOT`."""
    _, _, section = (sql_root() / "README.md").read_text().partition(HEADING)
    queries = list_sql("queries")
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [file.name for file in queries]
    for file in queries:
        _, _, answer = section.partition(header_of(file) + "\n```\n$ dalle query ")
        assert answer, f"{file.name}: the README says something else than the file's header; write its section again"
        asked, shown, *_ = answer.split("\n")
        needed = {p.name for p in file.parameters if p.name != "root" and not p.is_optional}
        assert set(re.findall(r"--param (\w+)=", asked)) == needed
        columns = file.returns.partition(";")[0].split(", ")
        assert shown.split() == columns or shown.startswith(("(no rows", "query ")), file.name
