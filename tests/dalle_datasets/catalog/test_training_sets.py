"""The export: what the query selects, shuffled once, under an id of everything that decided it."""

import json

import pyarrow as pa
import pytest

from dalle_datasets.catalog import artifacts, ingest
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.training_sets import _cut, export_training_set
from dalle_datasets.store.parquet import list_parts, write_parquet
from dalle_datasets.store.schemas import PAIRS, SAFETY_SCORES, TRAINING_SET
from tests.parts import read_parts

SETTINGS = {
    "query": "captioned_pairs",
    "pairs_id": "pairs0",
    "tokenizer_id": "bpe0",
    "dvae_id": "vae0",
    "clip_id": "clip0",
    "min_clip_score_quantile": 0.0,
    "seed": 0,
    "rows_per_part": 5,
    "row_group_size": 2,
}


@pytest.fixture
def root(make_data_root):
    root = make_data_root()
    root.collect()
    return root


@pytest.fixture
def con(root):
    with connect(root.layout.catalog) as con:
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")
        for run in root.tokenize_and_score():
            ingest.ingest_run(con, root.layout, run)
        yield con


def export(con, root, **changes):
    made = export_training_set(con, root.layout, **{**SETTINGS, **changes})
    ingest.ingest_training_set(con, root.layout, made.id)
    return made


def test_every_pair_is_exported_once_in_parts_of_the_asked_size(con, root):
    made = export(con, root)
    assert (made.num_pairs, made.num_validation, made.path) == (12, 3, f"training_sets/{made.id}")
    folder = root.layout.root / made.path
    assert [read_parts(folder, TRAINING_SET).num_rows, len(list_parts(folder))] == [12, 3]
    rows = read_parts(folder, TRAINING_SET).to_pylist()
    ids = [row["pair_id"] for row in rows]
    assert sorted(ids) == sorted(pair["pair_id"] for pair in root.pairs)
    assert ids != [pair["pair_id"] for pair in root.pairs], "shuffled"
    captions = {pair["pair_id"]: (pair["caption"], pair["split"]) for pair in root.pairs}
    assert all(captions[row["pair_id"]] == (row["caption"], row["split"]) for row in rows)
    assert all(len(row["image_tokens"]) == 16 and row["text_tokens"] == [1, 2, 3] for row in rows)


def test_a_pair_of_two_sources_is_one_row(con, root):
    once = export(con, root)
    before = read_parts(root.layout.root / once.path, TRAINING_SET)
    for table in ("pairs", "text_tokens", "clip_scores"):
        columns = [name for (name, *_) in con.execute(f"describe {table}").fetchall()]
        other = [f"'web' as {name}" if name == "source" else name for name in columns]
        con.execute(f"insert into {table} select {', '.join(other)} from {table}")
    image_tokens = list_parts(root.layout.image_tokens("vae0"))
    for path in image_tokens:
        twin = path.with_name(f"part-1{path.name.removeprefix('part-0')}")
        twin.write_bytes(path.read_bytes())
    con.execute(
        "insert into image_token_shards select * replace (replace(part_path, 'part-0', 'part-1') as part_path) from image_token_shards"
    )
    again = export(con, root, pairs_id="pairs1")
    assert (again.num_pairs, again.num_validation) == (once.num_pairs, once.num_validation)
    assert read_parts(root.layout.root / again.path, TRAINING_SET).equals(before), "the same rows in the same order"


def test_the_folder_says_what_it_is(con, root):
    made = export(con, root)
    folder = root.layout.root / made.path
    assert (folder / "query.sql").read_text().startswith("-- name: captioned_pairs")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["query_sql"] == (folder / "query.sql").read_text()
    assert (manifest["num_pages"], manifest["sources"], manifest["parameters"]["seed"]) == (3, ["emoji_scenes"], 0)
    assert con.execute("select training_set_id, num_pairs from training_sets").fetchall() == [(made.id, 12)]
    parents = con.execute("select role, parent_id from lineage where child_id = ? order by role", [made.id]).fetchall()
    assert parents == [("clip", "clip0"), ("dvae", "vae0"), ("pairs", "pairs0"), ("tokenizer", "bpe0")]


def test_a_second_export_is_skipped(con, root):
    made = export(con, root)
    written = {path: path.stat().st_mtime_ns for path in (root.layout.root / made.path).iterdir()}
    assert export(con, root) == made
    assert {path: path.stat().st_mtime_ns for path in (root.layout.root / made.path).iterdir()} == written
    assert con.execute("select count(*) from training_sets").fetchall() == [(1,)]


def test_an_export_that_was_killed_is_made_again_to_the_same_bytes(con, root):
    made = export(con, root)
    folder = root.layout.root / made.path
    parts = {path.name: path.read_bytes() for path in list_parts(folder)}
    (folder / "manifest.json").unlink()
    (folder / "part-00001.parquet").unlink()
    (folder / "part-00007.parquet").write_bytes(b"of another size of parts")
    assert export(con, root) == made
    assert {path.name: path.read_bytes() for path in list_parts(folder)} == parts


@pytest.mark.parametrize("change", [{"seed": 1}, {"min_clip_score_quantile": 0.5}, {"rows_per_part": 6}, {"row_group_size": 3}])
def test_another_setting_is_another_id(con, root, change):
    assert export(con, root).id != export(con, root, **change).id


def test_other_pairs_are_another_id(con, root):
    first = export(con, root)
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    write_parquet(part, pa.Table.from_pylist([{**pair, "caption": "other words"} for pair in root.pairs[:8]]), PAIRS)
    ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    assert export(con, root).id != first.id


def test_a_quantile_leaves_out_the_worst_pairs(con, root):
    made = export(con, root, min_clip_score_quantile=0.5)
    assert made.num_pairs == 6
    scores = dict(con.execute("select pair_id, clip_score from clip_scores").fetchall())
    kept = {row["pair_id"] for row in read_parts(root.layout.root / made.path, TRAINING_SET).to_pylist()}
    assert min(scores[i] for i in kept) > max(scores[i] for i in set(scores) - kept)


def test_no_pairs_are_an_error_and_leave_no_manifest(con, root):
    with pytest.raises(
        ValueError, match=r"captioned_pairs\.sql selects no pairs \(tokenizer none, .*\); lower catalog\.min_clip_score_quantile"
    ):
        export(con, root, tokenizer_id="none")
    assert list((root.layout.root / "training_sets").glob("*/manifest.json")) == []
    assert export(con, root).num_pairs == 12, "the failure leaves nothing in the way"


def test_an_unknown_query_is_an_error(con, root):
    with pytest.raises(ValueError, match=r"there is no sql/training_sets/best_pairs\.sql; known here: captioned_pairs"):
        export(con, root, query="best_pairs")


@pytest.mark.parametrize("batches", [[7], [1, 1, 1, 1, 1, 1, 1], [2, 5], [3, 3, 1], [6, 0, 1]])
def test_parts_have_the_asked_size_whatever_sizes_duckdb_s_batches_have(batches):
    numbers = iter(range(7))
    schema = pa.schema([("i", pa.int64())])
    reader = pa.RecordBatchReader.from_batches(
        schema, [pa.record_batch([pa.array([next(numbers) for _ in range(n)], pa.int64())], schema) for n in batches]
    )
    assert [table["i"].to_pylist() for table in _cut(reader, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_safe_pairs_need_a_classifier(con, root):
    with pytest.raises(ValueError, match=r"safe_pairs\.sql needs safety scores, but no classifier gives them; set safety\.classifier to"):
        export(con, root, query="safe_pairs")


def test_safe_pairs_leave_out_what_scores_high(con, root):
    """The threshold is a parameter of the query: another one needs no new scores."""
    folder = root.layout.safety_scores("safe0")
    scores = [{"pair_id": pair["pair_id"], "nsfw_score": i / 12, "watermark_score": 0.0} for i, pair in enumerate(root.pairs)]
    write_parquet(folder / "emoji_scenes-part-00000.parquet", pa.Table.from_pylist(scores, schema=SAFETY_SCORES), SAFETY_SCORES)
    plain = export(con, root)
    artifacts.ingest_safety_scores(con, root.layout, "safe0")
    assert export(con, root).id == plain.id, "a query that does not ask for safety does not depend on it"
    made = [export(con, root, query="safe_pairs", safety_id="safe0", max_nsfw_score=limit) for limit in (0.5, 0.25)]
    assert [training_set.num_pairs for training_set in made] == [7, 4]
    manifest = json.loads((root.layout.root / made[0].path / "manifest.json").read_text())
    assert (manifest["inputs"]["safety"], manifest["parameters"]["max_nsfw_score"]) == ("safe0", 0.5)


def test_a_recipe_takes_parameters_of_its_own(con, root):
    everything = export(con, root, query="licensed_pairs")
    again = export(con, root, query="licensed_pairs", params={"languages": "en"})
    assert everything.num_pairs == again.num_pairs == 12
    assert everything.id != again.id
    said = json.loads((root.layout.training_set(again.id) / "manifest.json").read_text())["parameters"]
    assert said["languages"] == "en"
    best = export(con, root, query="licensed_pairs", params={"min_clip_score_quantile": "0.5"})
    assert best.num_pairs < 12
    with pytest.raises(ValueError, match=r"query 'licensed_pairs' has no parameter 'language'; did you mean 'languages'\?"):
        export(con, root, query="licensed_pairs", params={"language": "en"})
    with pytest.raises(ValueError, match="dvae_id of a training set follows from the settings; choose networks with --with"):
        export(con, root, query="licensed_pairs", params={"dvae_id": "other"})
    with pytest.raises(ValueError, match="selects no pairs"):
        export(con, root, query="licensed_pairs", params={"licences": "none of these"})
