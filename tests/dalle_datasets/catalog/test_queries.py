"""Named queries and free SQL on the published copy; every mistake gets a sentence."""

import subprocess
import sys

import pytest

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.queries import list_queries, run_query, run_sql
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.layout import Layout


@pytest.fixture
def layout(catalogued_root):
    return catalogued_root.layout


def test_a_query_returns_an_arrow_table(layout):
    assert run_query(layout, "sources").select(["source", "num_pairs", "num_pages"]).to_pylist() == [
        {"source": "emoji_scenes", "num_pairs": 12, "num_pages": 3}
    ]


def test_every_query_runs_on_a_catalogued_data_root(layout):
    best = run_query(layout, "best_generations").to_pylist()[0]
    given = {
        "generation_id": best["generation_id"],
        "prompt": best["prompt"],
        "id": "tf0",
        "run_id": "generate-images-8",
        "training_set_id": run_query(layout, "training_sets").to_pylist()[0]["training_set_id"],
        "pair_id": run_query(layout, "best_pairs").to_pylist()[0]["pair_id"],
        "first_run_id": "train-dvae-2",
        "second_run_id": "train-clip-5",
        "words": "a",
        "image_token": 5,
    }
    given |= {"dvae_id": "vae0", "clip_id": "clip0", "embedding": str([0.1] * 8), "image_tokens": str(list(range(16)))}
    given |= {"first_training_set_id": given["training_set_id"], "second_training_set_id": given["training_set_id"]}
    for query in list_queries():
        if query.name == "human_votes":  # of files that people bring: tests/flows/cli/test_vote.py
            continue
        wanted = {parameter.name for parameter in query.parameters if not parameter.is_optional}
        params = {name: value for name, value in given.items() if name in wanted}
        rows = run_query(layout, query.name, params)
        assert rows.num_rows or query.name in ("duplicates", "near_duplicates", "replaced_parts"), query.name


def test_text_as_typed_becomes_the_declared_kind(layout):
    assert run_query(layout, "lowest_clip_scores", {"limit": "3"}).num_rows == 3
    assert run_query(layout, "clip_score_histogram", {"bin_width": "10"}).num_rows == 1


def test_an_unknown_query_gets_a_suggestion(layout):
    with pytest.raises(ValueError, match="query 'drop_reason' does not exist; did you mean 'drop_reasons'?"):
        run_query(layout, "drop_reason")
    with pytest.raises(ValueError, match="query 'xyzzy' does not exist; `dalle query --list` shows them"):
        run_query(layout, "xyzzy")


def test_a_copy_that_older_code_published_is_told_from_a_broken_query(catalogued_root):
    with connect(catalogued_root.layout.catalog) as con:
        con.execute("drop view best_generations")
    publish(catalogued_root.layout)
    message = r"query 'gallery' reads best_generations, which .*published\.duckdb does not have: .* run `dalle catalog publish`"
    with pytest.raises(ValueError, match=message):
        run_query(catalogued_root.layout, "gallery", {"run_id": "r"})


def test_an_unknown_parameter_gets_a_suggestion(layout):
    with pytest.raises(ValueError, match="query 'lineage' has no parameter 'generation'; did you mean 'generation_id'?"):
        run_query(layout, "lineage", {"generation": "x"})
    with pytest.raises(ValueError, match="query 'sources' has no parameter 'q'; it takes no parameters"):
        run_query(layout, "sources", {"q": 1})


def test_a_missing_parameter_is_named(layout):
    with pytest.raises(ValueError, match=r"query 'lineage' needs generation_id \(text\); give it with --param generation_id=…"):
        run_query(layout, "lineage")


@pytest.mark.parametrize(("params", "kind"), [({"limit": "many"}, "an integer"), ({"limit": "1.5"}, "an integer")])
def test_a_value_of_the_wrong_kind_is_named(layout, params, kind):
    with pytest.raises(ValueError, match=f"query 'duplicates': limit='.*' is not {kind}"):
        run_query(layout, "duplicates", params)


def test_nothing_published_yet(tmp_path):
    with pytest.raises(ValueError, match="no catalog has been published yet"):
        run_query(Layout(tmp_path), "sources")


def test_free_sql(layout):
    assert run_sql(layout, "select count(*) as n from pairs").to_pylist() == [{"n": 12}]
    tokens = f"select count(*) as n from image_tokens('{layout.root}')"
    assert run_sql(layout, tokens).to_pylist() == [{"n": 12}]


def test_free_sql_cannot_write(layout):
    with pytest.raises(ValueError, match=r"the query cannot be run: .*read-only"):
        run_sql(layout, "delete from pairs")


def test_free_sql_with_a_mistake_shows_duckdb_s_words(layout):
    with pytest.raises(ValueError, match=r"the query cannot be run: .*selct"):
        run_sql(layout, "selct 1")


def test_statements_without_rows_are_refused(layout):
    with pytest.raises(ValueError, match="the query returns no rows: only `select` makes sense"):
        run_sql(layout, "-- only a comment")


def test_parquet_that_has_gone_is_explained(layout):
    for path in layout.root.glob("runs/*/generations.parquet"):
        path.unlink()
    with pytest.raises(
        ValueError, match="query 'nearest_training_pairs' reads Parquet files that do not exist yet; `dalle generate` writes them"
    ):
        run_query(layout, "nearest_training_pairs", {"generation_id": "x"})


def test_lineage_of_a_real_picture_reaches_the_pages(layout):
    best = run_query(layout, "best_generations").to_pylist()[0]
    facts = {row["fact"]: row["value"] for row in run_query(layout, "lineage", {"generation_id": best["generation_id"]}).to_pylist()}
    assert facts["picture"] == best["image_path"]
    assert (facts["transformer"], facts["dVAE"], facts["CLIP"], facts["tokenizer"]) == ("tf0", "vae0", "clip0", "bpe0")
    assert facts["training set query"].startswith("-- name: captioned_pairs")
    assert (facts["pairs in the training set"], facts["sources"], facts["pages"]) == ("12", "emoji_scenes", "3")


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("lineage", {"generation_id": "nothing"}),
        ("training_losses", {"run_id": "train-transformer-8"}),
        ("codebook_usage", {"dvae_id": "vae1"}),
        ("training_set_pages", {"training_set_id": "none"}),
    ],
)
def test_an_unknown_id_is_no_empty_answer(layout, query, params):
    ((name, value),) = params.items()
    if query == "training_set_pages":  # reads the files of the id
        with pytest.raises(ValueError, match="`dalle run train_transformer` writes them"):
            run_query(layout, query, params)
        return
    near = {"lineage": "", "training_losses": "train-transformer-7", "codebook_usage": "vae0"}[query]
    with pytest.raises(ValueError, match=rf"query '{query}': the published catalog has no {name} '{value}'; the most like it: .*{near}"):
        run_query(layout, query, params)


def test_values_reach_a_query_as_they_are(layout):
    for prompt in ("it's; drop table pairs --", "\\' or 1=1 --", "$limit", "é🙂\n"):
        assert run_query(layout, "candidates", {"prompt": prompt}).num_rows == 0
    with pytest.raises(ValueError, match="holds a character 0; leave that out"):
        run_query(layout, "candidates", {"prompt": "a\0b"})


def test_a_parameter_costs_no_import_of_pandas(layout):
    code = """
import sys
from pathlib import Path
from dalle_datasets.catalog.queries import run_query
from dalle_datasets.store.layout import Layout
run_query(Layout(Path(sys.argv[1])), "lowest_clip_scores", {"limit": 3})
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(layout.root)]).returncode == 0
