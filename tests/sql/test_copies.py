"""Is a picture a copy? Planted ones are found by their tokens, and by what CLIP sees where the tokens have moved."""

import pytest

from dalle_datasets.store.schemas import CLIP_SCORES, GENERATION_EMBEDDINGS, GENERATIONS, IMAGE_TOKENS


@pytest.fixture
def planted(catalog, write):
    """A picture, the pair it copies, one that copies it two places further, and others."""
    write("runs/gen/generations.parquet", GENERATIONS, [{"generation_id": "g", "image_tokens": [1, 2, 3, 4]}])
    write(
        "runs/gen/image_embeddings.parquet",
        GENERATION_EMBEDDINGS,
        [{"generation_id": "g", "clip_id": "clip", "image_embedding": [0.6, 0.8]}],
    )
    tokens = [
        {"pair_id": 1, "crop": 0, "image_tokens": [4, 3, 2, 1]},  # the same tokens in other places
        {"pair_id": 2, "crop": 0, "image_tokens": [9, 9, 9, 9]},
        {"pair_id": 2, "crop": 1, "image_tokens": [1, 2, 3, 4]},  # the copy: one crop of the picture
        {"pair_id": 3, "crop": 0, "image_tokens": [1, 2, 9, 9]},
        {"pair_id": 4, "crop": 0, "image_tokens": [3, 4, 1, 2]},  # the copy that was shifted
    ]
    vectors = {1: [1, 0], 2: [0.5, 0.8], 3: [-0.6, -0.8], 4: [0.6, 0.8]}
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, tokens)
    seen = [{"pair_id": pair_id, "image_embedding": vector} for pair_id, vector in vectors.items()]
    write("clip_scores/clip=clip/part-00000.parquet", CLIP_SCORES, seen)
    write("clip_scores/clip=other/part-00000.parquet", CLIP_SCORES, [{"pair_id": 1, "image_embedding": [0.6, 0.8, 0]}])
    catalog.add("image_token_shards")
    catalog.add("runs", run_id="gen", inputs='{"dvae_id": "vae", "clip_id": "clip"}')
    catalog.add("generations")
    catalog.add("artifacts", kind="image_embeddings", artifact_id="e", path="runs/gen/image_embeddings.parquet")
    for clip in ("clip", "other"):
        catalog.add("ingested_parts", artifact_kind="clip_scores", part_path=f"clip_scores/clip={clip}/part-00000.parquet")
    catalog.add("pairs", *({"pair_id": i} for i in (1, 3, 5)), {"pair_id": 2, "caption": "the copied one"}, {"pair_id": 4})
    return catalog


def test_nearest_training_pairs_finds_planted_copies_by_tokens_and_by_clip(planted, tmp_path):
    rows = planted.query("nearest_training_pairs", root=str(tmp_path), generation_id="g")
    found = {row[0]: row for row in rows}
    assert [row[0] for row in rows[:2]] == [2, 4]
    assert sorted(found) == [1, 2, 3, 4]
    assert [found[i][1] for i in (1, 2, 3, 4)] == [0, 4, 2, 0]  # tokens_equal
    assert [found[i][3] for i in (1, 2, 3, 4)] == [4, 0, 2, 4]  # hamming_distance
    assert found[2][2] == 1.0
    assert found[2][9] == "the copied one"
    assert [found[i][4] for i in (1, 2, 3, 4)] == pytest.approx([0.6, 0.9964, -1.0, 1.0], abs=1e-3)  # clip_similarity
    assert (found[2][5], found[4][6]) == (1, 1)  # the first by tokens, the first by CLIP
    assert [found[i][7] for i in (1, 2, 3, 4)] == [False, True, False, True]  # looks_copied


def test_nearest_training_pairs_takes_bounds_and_a_limit(planted, tmp_path):
    asked = {"root": str(tmp_path), "generation_id": "g"}
    assert planted.column("nearest_training_pairs", 0, **asked, limit=1) == [2]
    assert planted.column("nearest_training_pairs", 7, **asked, copy_share=0.5, copy_similarity=2) == [True, False, True, False]


def test_nearest_training_pairs_of_a_picture_without_embeddings_still_compares_tokens(planted, tmp_path):
    planted.con.execute("delete from artifacts")
    rows = planted.query("nearest_training_pairs", root=str(tmp_path), generation_id="g")
    assert [(row[0], row[1], row[4], row[7]) for row in rows] == [(2, 4, None, True), (3, 2, None, False)]


def test_pair_embeddings_are_those_of_catalogued_parts(planted, write, tmp_path):
    write("clip_scores/clip=stray/part-00000.parquet", CLIP_SCORES, [{"pair_id": 1, "image_embedding": [1.0]}])
    counted = "select clip_id, count(*) from pair_embeddings($root) group by 1 order by 1"
    assert planted.con.execute(counted, {"root": str(tmp_path)}).fetchall() == [("clip", 4), ("other", 1)]


def test_generation_embeddings_are_those_of_catalogued_runs(planted, write, tmp_path):
    write("runs/stray/image_embeddings.parquet", GENERATION_EMBEDDINGS, [{"generation_id": "s"}])
    rows = planted.con.execute(
        "select generation_id, clip_id, len(image_embedding) from generation_embeddings($root)", {"root": str(tmp_path)}
    )
    assert rows.fetchall() == [("g", "clip", 2)]
