"""SQL of a stranger only reads, and only under the data root: every known way around that is tried on a real catalog."""

import hashlib
from pathlib import Path

import pytest

from dalle_datasets.catalog.connection import open_published
from dalle_datasets.catalog.queries import run_query, run_sql
from dalle_datasets.catalog.sql_files import read_sql

WRITES = [
    "copy (select 1) to '{root}/x.csv'",
    "copy (select 1) to '{root}/catalog/catalog.duckdb'",
    "copy (select 1) to '{outside}/x.csv'",
    "explain analyze copy (select 1) to '{root}/x.csv'",
    "explain (analyze) copy (select 1) to '{root}/x.csv'",
    "/* select */ explain analyze copy (select 1) to '{root}/x.csv'",
    "explain analyze create table x as select 1",
    "select 1; copy (select 1) to '{root}/x.csv'",
    "select 1\0; copy (select 1) to '{root}/x.csv'",
    "prepare x as copy (select 1) to '{root}/x.csv'; execute x",
    "prepare x as select 1",
    "attach '{root}/new.duckdb'",
    "attach '{root}/catalog/catalog.duckdb' as live",
    "export database '{root}/export'",
    "import database '{root}/export'",
    "create temp table x as select 1",
    "create macro x() as table select * from enable_logging()",
    "insert into pairs select * from pairs",
    "delete from pairs",
    "pragma enable_profiling",
    "call enable_logging(storage = 'file', storage_path = '{root}/log.csv')",
    "select * from enable_logging('QueryLog', storage = 'file', storage_path = '{root}/log.csv')",
    "select * from SYSTEM.main.\"Enable_Logging\"(storage = 'file', storage_path = '{root}/log.csv')",
    "describe select * from enable_logging(storage = 'file', storage_path = '{root}/log.csv')",
    "select (select count(*) from enable_logging(storage = 'file', storage_path = '{root}/log.csv'))",
    "with x as (select * from enable_logging(storage = 'file', storage_path = '{root}/log.csv')) select * from x",
    "explain analyze select * from enable_logging(storage = 'file', storage_path = '{root}/log.csv')",
    "select * from enable_profiling(save_location = '{root}/profile.json')",
    "select * from query('select * from enable_logging(storage = ''file'', storage_path = ''{root}/log.csv'')')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select * from enable_logging()'))",
    "select * from checkpoint()",
    "select * from arrow_scan(1::pointer, 2::pointer, 3::pointer)",
]
OPENS = [
    "select * from read_text('/etc/passwd')",
    "select * from read_text('{root}/../secret.txt')",
    "select * from read_text('{root}/pairs/../../secret.txt')",
    "select * from read_text('{root}x/secret.txt')",
    "select * from read_blob('{outside}/secret.txt')",
    "select * from read_csv('{outside}/secret.txt')",
    "select * from '{outside}/secret.csv'",
    "from '{outside}/secret.txt'",
    "select * from glob('{outside}/*')",
    "select * from sniff_csv('{outside}/secret.txt')",
    "select * from parquet_metadata('{outside}/secret.txt')",
    "select * from image_tokens('{outside}')",
    "select * from read_blob('/proc/self/environ')",
    "select * from read_csv('http://127.0.0.1:1/x.csv')",
    "select * from 's3://bucket/x.parquet'",
]
UNLOCKS = [
    "set enable_external_access = true",
    "set allowed_directories = ['/']",
    "reset lock_configuration",
    "set threads = 1",
    "install httpfs",
    "load httpfs",
    "use memory",
    "set variable x = 1",
]


@pytest.fixture
def layout(catalogued_root):
    return catalogued_root.layout


@pytest.fixture
def outside(layout) -> Path:
    """The folder around the data root, with a secret in it and in a folder whose name begins like the root's."""
    folder = layout.root.parent
    for secret in (folder / "secret.txt", folder / "secret.csv", Path(f"{layout.root}x") / "secret.txt"):
        secret.parent.mkdir(exist_ok=True)
        secret.write_text("password\n")
    return folder


def files(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("attack", WRITES + OPENS + UNLOCKS)
def test_sql_that_does_more_than_read_is_refused(layout, outside, attack):
    before = files(outside)
    rule = r"the query cannot be run: .*(read-only|only files under the data root|does not exist|disabled|Cannot open file)"
    with pytest.raises(ValueError, match=rule):
        run_sql(layout, attack.replace("{root}", str(layout.root)).replace("{outside}", str(outside)))
    assert files(outside) == before


@pytest.mark.parametrize("attack", [*OPENS, *UNLOCKS, "attach '{outside}/x.db'", "copy (select 1) to '{outside}/x'", "load '{root}/x.so'"])
def test_the_connection_itself_refuses_too(layout, outside, attack):
    """Whatever gets past the parser finds a database that opens nothing outside the data root."""
    if attack in ("use memory", "set variable x = 1"):
        pytest.skip("harmless, only not a question")
    before = files(outside)
    with open_published(layout) as con, pytest.raises(Exception, match=r"(?i)disabled|locked|cannot|does not exist"):
        con.execute(attack.replace("{root}", str(layout.root)).replace("{outside}", str(outside))).fetchall()
    assert files(outside) == before


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from pairs;",
        "-- how many\nselect count(*) from pairs -- pairs",
        "(select 1) union all (select 2)",
        "with recursive n as (select 1 as i union all select i + 1 from n where i < 3) select * from n",
        "from pairs",
        "values (1)",
        "describe pairs",
        "summarize pairs",
        "show tables",
        "select * from duckdb_columns()",
        "pivot pairs on split in ('train', 'validation') using count(*)",
        "select unnest([x + 1 for x in [1, 2]]), * from range(3)",
        "explain select 1",
        "explain analyze select 1",
        "explain (analyze, format json) select 1",
        "explain (select 1)",
        "select * from image_tokens('{root}')",
        "select * from read_parquet('{root}/pairs/*/*.parquet')",
        "select count(*) from '{root}/pairs/*/*.parquet'",
    ],
)
def test_what_reads_is_answered(layout, sql):
    assert run_sql(layout, sql.replace("{root}", str(layout.root))).num_rows


def test_readers_at_the_same_time_are_all_confined(layout):
    with open_published(layout) as first, open_published(layout) as second:
        for con in (first, second):
            assert con.execute("select count(*) from image_tokens($root)", {"root": str(layout.root)}).fetchall() == [(12,)]
            with pytest.raises(Exception, match="disabled by configuration"):
                con.execute("select * from read_text('/etc/passwd')")


def test_a_quote_in_the_data_root_and_a_link_to_it_are_no_obstacle(layout):
    moved = layout.root.rename(layout.root.with_name("it's data"))
    link = moved.with_name("link")
    link.symlink_to(moved)
    for root in (moved, link):
        quoted = str(root).replace("'", "''")
        assert run_sql(type(layout)(root), f"select count(*) as n from image_tokens('{quoted}')").to_pylist() == [{"n": 12}]
    drawn = run_sql(type(layout)(link), "select generation_id from generations order by 1 limit 1").to_pylist()[0]
    assert run_query(type(layout)(link), "nearest_training_pairs", drawn).num_rows > 0


def test_sql_sees_no_variables_of_this_program(layout):
    with pytest.raises(ValueError, match="Table with name statement does not exist"):
        run_sql(layout, "select * from statement")


def test_sql_nested_without_end_is_a_sentence(layout):
    with pytest.raises(ValueError, match="the query cannot be run"):
        run_sql(layout, "select " + "(select " * 400 + "1" + ")" * 400)


@pytest.mark.parametrize("name", ["../migrations/0002_pairs", "/etc/passwd", "..\\x", "captioned_pairs.sql", ""])
def test_a_setting_names_no_sql_file_of_elsewhere(tmp_path, name):
    with pytest.raises(ValueError, match=r"there is no sql/training_sets/.*; known here: captioned_pairs"):
        read_sql("training_sets", name)
    (tmp_path / "evil.sql").write_text(f"-- name: {tmp_path}/evil\n-- purpose: None.\nselect 1")
    with pytest.raises(ValueError, match="there is no sql/training_sets/"):
        read_sql("training_sets", f"{tmp_path}/evil")
