"""Scores of safety classifiers: in, checked, asked for, and used to choose what is trained on."""

import pytest

from dalle_datasets.store.schemas import IMAGE_TOKENS, SAFETY_SCORES


def test_insert_safety_scores(catalog, write):
    path = write("s.parquet", SAFETY_SCORES, [{"pair_id": 1, "nsfw_score": 0.25, "watermark_score": 0.5}])
    catalog.query("insert_safety_scores", folder="ingest", file=str(path), part_path="p", safety_id="safe")
    assert catalog.rows("safety_scores", "*") == [(1, "safe", 0.25, 0.5, "p")]


def test_safety_scores_are_shares(catalog):
    catalog.add("pairs", {"pair_id": 1}, {"pair_id": 2})
    catalog.add("safety_scores", {}, {"safety_id": "other"}, {"pair_id": 2, "nsfw_score": 1.5}, {"pair_id": 3}, {"pair_id": 3})
    assert catalog.query("safety_scores_are_shares", folder="checks") == [
        ("counted twice", "safe", 3),
        ("not in [0, 1]", "safe", 2),
    ]


def test_safety_scores_says_how_many_a_threshold_leaves_out(catalog):
    catalog.add("safety_scores", {}, {"pair_id": 2, "nsfw_score": 0.12}, {"pair_id": 3, "nsfw_score": 1.0})
    rows = [row[1:] for row in catalog.query("safety_scores", num_bins=10)]
    assert rows == [("nsfw", 0.1, 2, 3), ("nsfw", 0.9, 1, 1), ("watermark", 0.2, 3, 3)]


def test_least_safe_pairs_shows_the_worst_first(catalog):
    catalog.add("pairs", {"pair_id": 1, "caption": "harmless"}, {"pair_id": 2, "caption": "with a watermark"})
    catalog.add("safety_scores", {}, {"pair_id": 2, "watermark_score": 0.75})
    assert [row[3] for row in catalog.query("least_safe_pairs", limit=1)] == ["with a watermark"]


@pytest.mark.parametrize(("nsfw", "watermark", "expected"), [(0.5, 0.5, [1]), (1.0, 0.5, [1, 2]), (0.5, 1.0, [1, 3]), (0.0, 0.0, [])])
def test_safe_pairs_leaves_out_what_scores_high_and_what_nobody_looked_at(catalog, write, tmp_path, nsfw, watermark, expected):
    ids = (1, 2, 3, 4)
    for table in ("pairs", "text_tokens", "clip_scores"):
        catalog.add(table, *({"pair_id": i} for i in ids))
    catalog.add("safety_scores", {"pair_id": 1}, {"pair_id": 2, "nsfw_score": 0.75}, {"pair_id": 3, "watermark_score": 0.75})
    catalog.add("safety_scores", {"pair_id": 4, "safety_id": "other", "nsfw_score": 0.0})
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": i, "image_tokens": [i]} for i in ids])
    catalog.add("image_token_shards")
    rows = catalog.query(
        "safe_pairs", folder="training_sets", root=str(tmp_path), tokenizer_id="bpe", dvae_id="vae", clip_id="clip", safety_id="safe",
        max_nsfw_score=nsfw, max_watermark_score=watermark, min_clip_score_quantile=0.0,
    )  # fmt: skip
    assert sorted(row[0] for row in rows) == expected
