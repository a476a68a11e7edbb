"""Every check of sql/checks: a good catalog passes, and one fault is reported as the row that has it."""

import pytest

from dalle_datasets.catalog.checks import run_checks


def offenders(catalog, name):
    return catalog.query(name, folder="checks")


def test_a_sound_catalog_passes_every_check(catalog):
    catalog.add("pairs")
    catalog.add("ingested_parts")
    catalog.add("text_tokens")
    catalog.add("ingested_parts", artifact_kind="text_tokens", part_path="text_tokens/tokenizer=bpe/part-00000.parquet")
    catalog.add("image_token_shards")
    catalog.add("generations", {"generation_id": "a"}, {"generation_id": "b", "candidate_index": 1})
    catalog.add("rerank_scores", {"generation_id": "a", "rank": 2, "clip_score": 0.25}, {"generation_id": "b", "rank": 1})
    catalog.add("ingested_parts", artifact_kind="generations", part_path="runs/gen/generations.parquet", num_rows=2)
    catalog.add("prompts")
    catalog.add("ingested_parts", artifact_kind="prompts", part_path="p.parquet")
    catalog.add("runs", run_id="gen")
    assert {result.name: result.rows for result in run_checks(catalog.con) if not result.passed} == {}


def test_run_checks_reports_columns_and_at_most_limit_rows(catalog):
    catalog.add("clip_scores", *({"pair_id": i} for i in range(5)), clip_score=2.0)
    result = next(result for result in run_checks(catalog.con, limit=3) if result.name == "scores_are_cosines")
    assert not result.passed
    assert result.columns == ("table_name", "id", "clip_score")
    assert result.rows == (("clip_scores", "0", 2.0), ("clip_scores", "1", 2.0), ("clip_scores", "2", 2.0))
    assert "[-1, 1]" in result.purpose


def test_pairs_counted_once(catalog):
    catalog.add("pairs", {"pair_id": 1}, {"pair_id": 1}, {"pair_id": 1, "source": "other"}, {"pair_id": 2})
    assert offenders(catalog, "pairs_counted_once") == [(1, "web", 2)]


def test_tokens_counted_once(catalog):
    catalog.add("text_tokens", {}, {}, {"tokenizer_id": "other"}, {"part_path": "of the other source that has the pair"})
    catalog.add("clip_scores", {}, {})
    assert [(row[0], *row[2:]) for row in offenders(catalog, "tokens_counted_once")] == [
        ("clip_scores", 1, "clip", 2),
        ("text_tokens", 1, "bpe", 2),
    ]


def test_ids_are_hashes(catalog):
    catalog.add("pairs", {"pair_id": 0}, {"pair_id": 0}, {})
    catalog.add("safety_scores", pair_id=-5)
    catalog.add("image_token_shards", {"min_pair_id": 0, "num_images": 3}, {"min_pair_id": None})
    assert [(row[0], row[2]) for row in offenders(catalog, "ids_are_hashes")] == [
        ("image_token_shards", 3),
        ("pairs", 2),
        ("safety_scores", 1),
    ]


def test_tokens_are_codebook_entries(catalog):
    catalog.add("codebook_usage", {"image_token": 0}, {"image_token": 7})
    shards = [{"part_path": str(largest), "largest_image_token": largest} for largest in (7, 8, None)]
    catalog.add("image_token_shards", *shards)
    assert offenders(catalog, "tokens_are_codebook_entries") == [("8", "vae", 8, 8)]


def test_leftovers_are_no_faults(catalog):
    catalog.add("text_tokens")
    catalog.add("ingested_parts", artifact_kind="text_tokens", part_path="text_tokens/tokenizer=bpe/part-00000.parquet")
    found = {check.name: check.is_fault for check in run_checks(catalog.con) if not check.passed}
    assert found == {"tokens_have_pairs": False}
    assert {check.finds for check in run_checks(catalog.con)} == {"faults", "leftovers"}


def test_tokens_have_pairs(catalog):
    catalog.add("pairs", pair_id=1)
    catalog.add("text_tokens", {"pair_id": 1}, {"pair_id": 2})
    catalog.add("clip_scores", pair_id=3)
    assert offenders(catalog, "tokens_have_pairs") == [("clip_scores", 3), ("text_tokens", 2)]


def test_image_tokens_have_one_length(catalog):
    empty = {"num_images": 0, "min_image_tokens": 0, "max_image_tokens": 0}
    catalog.add("image_token_shards", {}, {"max_image_tokens": 5}, {"dvae_id": "good"}, {"dvae_id": "good", **empty})
    assert offenders(catalog, "image_tokens_have_one_length") == [("vae", 4, 5)]


def test_codebook_usage_adds_up(catalog):
    catalog.add("image_token_shards", num_images=2)
    catalog.add("codebook_usage", {"occurrences": 4}, {"image_token": 1, "occurrences": 3})
    assert offenders(catalog, "codebook_usage_adds_up") == [("vae", 7, 8)]


def test_scores_are_cosines(catalog):
    catalog.add("clip_scores", {"clip_score": 1.0}, {"clip_score": -1.5})
    catalog.add("rerank_scores", clip_score=float("nan"))
    assert [row[:2] for row in offenders(catalog, "scores_are_cosines")] == [("clip_scores", "1"), ("rerank_scores", "g")]


@pytest.mark.parametrize(("num_rows", "in_ledger", "expected"), [(2, 3, (3, 2)), (2, None, (0, 2)), (0, 3, (3, 0)), (3, 3, None)])
def test_ledger_matches_tables(catalog, num_rows, in_ledger, expected):
    part = "pairs/web/part-00000.parquet"
    for pair_id in range(num_rows):
        catalog.add("pairs", pair_id=pair_id)
    if in_ledger is not None:
        catalog.add("ingested_parts", num_rows=in_ledger)
    assert offenders(catalog, "ledger_matches_tables") == ([] if expected is None else [(part, "pairs", *expected)])


def test_splits_share_no_picture(catalog):
    catalog.add("pairs", {"split": "train"}, {"split": "validation"}, {"pixel_sha256": "only here"})
    assert offenders(catalog, "splits_share_no_picture") == [("p", 1, 1)]


def test_ranks_follow_scores_finds_a_gap_and_a_wrong_order(catalog):
    catalog.add("generations", {"generation_id": "a"}, {"generation_id": "b"}, {"generation_id": "c"})
    catalog.add(
        "rerank_scores",
        {"generation_id": "a", "rank": 1, "clip_score": 0.25},
        {"generation_id": "b", "rank": 2, "clip_score": 0.5},  # better than the first
        {"generation_id": "c", "rank": 4, "clip_score": 0.125},  # there is no third
    )
    assert [(row[2], row[3]) for row in offenders(catalog, "ranks_follow_scores")] == [(1, 1), (4, 3)]


def test_generations_have_origins(catalog):
    catalog.add("generations")
    assert offenders(catalog, "generations_have_origins") == [("g", "prompt"), ("g", "run"), ("g", "score")]


def test_generations_counted_once(catalog):
    catalog.add("generations", {}, {}, {"generation_id": "other"})
    assert offenders(catalog, "generations_counted_once") == [("g", 2)]


def test_evaluations_have_generations(catalog):
    catalog.add("generations")
    catalog.add("evaluations", {}, {"generation_id": "nowhere"})
    assert offenders(catalog, "evaluations_have_generations") == [("nowhere",)]


def test_networks_have_makers(catalog):
    catalog.add("artifacts", artifact_id="vae")
    catalog.add("lineage", {"role": "dvae", "parent_id": "vae"}, {"role": "clip", "parent_id": "lost"}, {"role": "pairs"})
    assert offenders(catalog, "networks_have_makers") == [("run", "clip", "lost")]


def test_collections_add_up(catalog):
    catalog.add("collection_counts", {"num_candidates": 2}, {"stage": "filter", "num_candidates": 1})
    catalog.add("ingested_parts", artifact_kind="collected", part_path="collections/web/run-00001.parquet", num_rows=3)
    catalog.add("ingested_parts", artifact_kind="collected", part_path="collections/web/run-00002.parquet", num_rows=4)
    assert offenders(catalog, "collections_add_up") == [("collections/web/run-00002.parquet", 4, 0)]
