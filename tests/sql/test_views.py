"""Views, macros and training set queries: rows in, rows expected."""

import pytest

from dalle_datasets.store.schemas import CLIP_SCORES, COLLECTED, GENERATION_EMBEDDINGS, GENERATIONS, IMAGE_TOKENS, MEASURES


def test_training_pairs_is_one_row_per_pair_tokenizer_and_clip(catalog):
    catalog.add("pairs", {"pair_id": 1}, {"pair_id": 2})
    catalog.add("text_tokens", {"pair_id": 1, "tokenizer_id": "bpe1"}, {"pair_id": 1, "tokenizer_id": "bpe2"})
    catalog.add("clip_scores", {"pair_id": 1}, {"pair_id": 2})
    assert catalog.rows("training_pairs", "pair_id", "tokenizer_id", "clip_id") == [(1, "bpe1", "clip"), (1, "bpe2", "clip")]


def test_image_tokens_reads_only_registered_parts(catalog, write, tmp_path):
    # The id is all digits: reading it as a number would lose the zeros.
    for part, pair_id in (("part-00000", 1), ("part-00001", 2)):
        write(f"image_tokens/dvae=000123456789/{part}.parquet", IMAGE_TOKENS, [{"pair_id": pair_id, "image_tokens": [5, 6]}])
    catalog.add("image_token_shards", part_path="image_tokens/dvae=000123456789/part-00000.parquet")
    rows = catalog.con.execute("select * from image_tokens($root)", {"root": str(tmp_path)}).fetchall()
    assert rows == [("000123456789", 1, 0, [5, 6])]


def test_generation_tokens_reads_only_catalogued_runs(catalog, write, tmp_path):
    write("runs/gen/generations.parquet", GENERATIONS, [{"generation_id": "g", "image_tokens": [1, 2]}])
    write("runs/unfinished/generations.parquet", GENERATIONS, [{"generation_id": "h", "image_tokens": [3]}])
    catalog.add("generations")
    assert catalog.con.execute("select * from generation_tokens($root)", {"root": str(tmp_path)}).fetchall() == [("g", [1, 2])]


def test_latest_artifacts_is_the_one_of_the_newest_run(catalog):
    catalog.add("runs", {"run_id": "a", "started_at": "2026-01-02"}, {"run_id": "b", "started_at": "2026-01-03"}, {"run_id": "c"})
    catalog.add(
        "artifacts", {"artifact_id": "1", "made_by": "a"}, {"artifact_id": "2", "made_by": "b"}, {"artifact_id": "3", "made_by": "c"}
    )
    assert catalog.rows("latest_artifacts", "kind", "artifact_id", "run_id") == [("dvae", "2", "b")]


def test_judged_generations_keeps_pictures_without_a_verdict(catalog):
    catalog.add("generations", {"generation_id": "a"}, {"generation_id": "b"})
    catalog.add("rerank_scores", {"generation_id": "a"}, {"generation_id": "b", "rank": 2})
    catalog.add("evaluations", generation_id="a", color_right=False)
    assert catalog.rows("judged_generations", "generation_id", "rank", "color_right") == [("a", 1, False), ("b", 2, None)]


def test_judged_generations_has_the_newest_verdict_only(catalog):
    catalog.add("generations")
    catalog.add("rerank_scores")
    catalog.add("runs", {"run_id": "old", "started_at": "2026-01-01"}, {"run_id": "new", "started_at": "2026-01-02"})
    catalog.add("evaluations", {"run_id": "old", "all_right": True}, {"run_id": "new", "all_right": False})
    assert catalog.rows("judged_generations", "generation_id", "all_right") == [("g", False)]


def test_scored_generations_tells_the_choosing_clip_from_further_ones(catalog):
    catalog.add("generations")
    further = {"part_path": "runs/score/rerank_scores.parquet", "clip_score": 0.25, "rank": 2}
    catalog.add("rerank_scores", {}, {"clip_id": "clip2", **further}, further)  # the last: the same CLIP, asked again
    assert catalog.rows("scored_generations", "clip_id", "is_own", "rank") == [("clip", True, 1), ("clip2", False, 2)]
    assert catalog.rows("judged_generations", "clip_id", "rank") == [("clip", 1)]


def test_best_generations_is_rank_one(catalog):
    catalog.add("generations", {"generation_id": "a"}, {"generation_id": "b"})
    catalog.add("rerank_scores", {"generation_id": "a", "rank": 2}, {"generation_id": "b", "rank": 1})
    assert catalog.rows("best_generations", "generation_id") == [("b",)]


def test_ancestors_end_where_nothing_is_known_and_survive_a_circle(catalog):
    catalog.add("lineage", {"child_id": "a", "parent_id": "b"}, {"child_id": "b", "parent_id": "a"})
    rows = catalog.con.execute("select ancestor_id, depth from ancestors('a') order by depth").fetchall()
    assert rows == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(("quantile", "expected"), [(0, [1, 2, 3]), (0.5, [2, 3]), (0.9, [3])])
def test_captioned_pairs_keeps_what_scores_above_the_quantile(catalog, write, tmp_path, quantile, expected):
    catalog.add("pairs", {"pair_id": 1}, {"pair_id": 2}, {"pair_id": 3})
    catalog.add("text_tokens", {"pair_id": 1}, {"pair_id": 2}, {"pair_id": 3}, {"pair_id": 1, "tokenizer_id": "other"})
    catalog.add("clip_scores", {"pair_id": 1, "clip_score": 0.1}, {"pair_id": 2, "clip_score": 0.2}, {"pair_id": 3, "clip_score": 0.3})
    catalog.add("clip_scores", pair_id=3, clip_id="other", clip_score=0.9)
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": i, "image_tokens": [i]} for i in (1, 2, 3)])
    write("image_tokens/dvae=other/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": 1, "image_tokens": [9]}])
    catalog.add("image_token_shards", {}, {"part_path": "image_tokens/dvae=other/part-00000.parquet", "dvae_id": "other"})
    rows = select_captioned_pairs(catalog, tmp_path, quantile)
    assert sorted((row[0], row[7]) for row in rows) == [(i, [i]) for i in expected]


def test_captioned_pairs_takes_all_crops_to_train_on_and_one_to_validate(catalog, write, tmp_path):
    catalog.add("pairs", {"pair_id": 1}, {"pair_id": 2, "split": "validation"})
    catalog.add("text_tokens", {"pair_id": 1}, {"pair_id": 2})
    catalog.add("clip_scores", {"pair_id": 1}, {"pair_id": 2})
    tokens = [{"pair_id": i, "crop": crop, "image_tokens": [crop]} for i in (1, 2) for crop in (0, 1)]
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, tokens)
    catalog.add("image_token_shards")
    assert sorted(row[:3] for row in select_captioned_pairs(catalog, tmp_path, 0)) == [
        (1, 0, "train"),
        (1, 1, "train"),
        (2, 0, "validation"),
    ]


def select_captioned_pairs(catalog, root, quantile):
    ids = {"tokenizer_id": "bpe", "dvae_id": "vae", "clip_id": "clip"}
    return catalog.query("captioned_pairs", folder="training_sets", root=str(root), min_clip_score_quantile=quantile, **ids)


def test_training_rates_has_one_row_for_a_stretch_that_a_resumed_run_went_through_twice(catalog):
    catalog.add("runs")
    catalog.add("run_speed", {"value": 2.0}, {"value": 3.0}, {"step": 20, "value": 5.0})
    assert [row[:5] for row in catalog.query("training_speed")] == [("train_dvae", "run", 10, 1, 3.0), ("train_dvae", "run", 20, 1, 5.0)]


@pytest.mark.parametrize(
    ("url", "page_url", "host"),
    [
        ("http://a.org/x.png", "", "a.org"),
        ("https://a.org:81?x=1", "", "a.org:81"),
        ("data:image/gif;base64,R0", "http://page.org/1.html", "page.org"),
        ("", "http://page.org", "page.org"),
        ("pictures/1.png", "pictures", "(local files)"),
    ],
)
def test_host_of(catalog, url, page_url, host):
    assert catalog.con.execute("select host_of($url, $page_url)", {"url": url, "page_url": page_url}).fetchall() == [(host,)]


def test_funnel_stage_takes_damaged_files_out_of_the_filters(catalog):
    asked = "select funnel_stage('filter', 'decode_error'), funnel_stage('filter', 'blank'), funnel_stage('download', 'not_an_image')"
    assert catalog.con.execute(asked).fetchall() == [("decode", "filter", "download")]


def test_outcomes_is_everything_that_was_found(catalog):
    catalog.add("pairs", {"candidate_id": "kept"})
    catalog.add("dropped_pairs", {"candidate_id": "torn", "reason": "decode_error"}, {"candidate_id": "late", "stage": "tokenize"})
    assert catalog.rows("outcomes", "candidate_id", "host", "stage", "reason") == [
        ("kept", "site", "kept", ""), ("torn", "site", "decode", "decode_error"),
    ]  # fmt: skip


def test_collected_reads_the_files_that_are_catalogued(catalog, write, tmp_path):
    for number in (1, 2):
        rows = [{"candidate_id": f"c{number}", "url": "http://a.org/x", "stage": "kept", "reason": ""}]
        write(f"collections/web/run-0000{number}.parquet", COLLECTED, rows)
    catalog.add("collections")
    assert catalog.con.execute("select * from collected($root)", {"root": str(tmp_path)}).fetchall() == [
        ("web-1", "c1", "http://a.org/x", "a.org", "kept", "")
    ]


def measure(candidate_id, **values):
    return {
        "candidate_id": candidate_id,
        "width": 64,
        "height": 64,
        "language": "en",
        "num_caption_words": 3,
        "pixel_sha256": "p",
        **values,
    }


def test_measured_leaves_out_what_is_no_candidate_any_more(catalog, write, tmp_path):
    write("measures/web/part-00000.parquet", MEASURES, [measure("c"), measure("of an earlier crawl")])
    catalog.add("pairs")
    assert catalog.con.execute("select candidate_id, stage, width from measured($root)", {"root": str(tmp_path)}).fetchall() == [
        ("c", "kept", 64)
    ]


def test_changed_candidates_needs_two_collections(catalog, write, tmp_path):
    write("collections/web/run-00001.parquet", COLLECTED, [{"candidate_id": "c", "stage": "kept", "reason": ""}])
    catalog.add("collections")
    assert catalog.query("changed_candidates", root=str(tmp_path)) == []


@pytest.mark.parametrize("name", ["birds [2021]", "[a-z]", "it's *", "a, b = {c} #%"])
def test_files_under_a_data_root_with_signs_of_a_pattern_in_its_name(catalog, write, tmp_path, name):
    root = tmp_path / name
    write(f"{name}/image_tokens/dvae=d/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": 1, "image_tokens": [5, 6]}])
    write(f"{name}/runs/gen/generations.parquet", GENERATIONS, [{"generation_id": "g", "image_tokens": [1, 2]}])
    catalog.add("image_token_shards", part_path="image_tokens/dvae=d/part-00000.parquet", dvae_id="d")
    catalog.add("generations")
    assert len(catalog.con.execute("select * from image_tokens($root)", {"root": str(root)}).fetchall()) == 1
    assert len(catalog.con.execute("select * from generation_tokens($root)", {"root": str(root)}).fetchall()) == 1


@pytest.mark.parametrize("spelling", ["{root}/", "{root}//", "{parent}//{name}", "{root}/../{name}", "{parent}/./{name}/"])
def test_part_of_makes_every_spelling_of_a_root_the_same(catalog, write, tmp_path, spelling):
    root = tmp_path.parent / tmp_path.name
    spelt = spelling.format(root=root, parent=root.parent, name=root.name)
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": 1, "image_tokens": [5]}])
    write("clip_scores/clip=clip/part-00000.parquet", CLIP_SCORES, [{"pair_id": 1, "image_embedding": [1.0]}])
    write("runs/gen/generations.parquet", GENERATIONS, [{"generation_id": "g", "image_tokens": [1]}])
    write("runs/gen/image_embeddings.parquet", GENERATION_EMBEDDINGS, [{"generation_id": "g", "clip_id": "clip", "image_embedding": [1.0]}])
    write("collections/web/run-00001.parquet", COLLECTED, [{"candidate_id": "c", "stage": "kept", "reason": ""}])
    for table in ("image_token_shards", "generations", "collections"):
        catalog.add(table)
    catalog.add("ingested_parts", part_path="clip_scores/clip=clip/part-00000.parquet", artifact_kind="clip_scores")
    catalog.add("artifacts", artifact_id="e", kind="image_embeddings", path="runs/gen/image_embeddings.parquet", made_by="gen")
    for macro in ("image_tokens", "pair_embeddings", "generation_tokens", "generation_embeddings", "collected"):
        assert catalog.con.execute(f"select count(*) from {macro}($root)", {"root": spelt}).fetchall() == [(1,)], macro
