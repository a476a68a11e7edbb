"""What somebody who browses pairs asks: by words, by what CLIP sees, by image tokens, by one token."""

import pytest

from dalle_datasets.store.schemas import CLIP_SCORES, IMAGE_TOKENS


@pytest.fixture
def browsed(catalog, write):
    """Four pairs with tokens and embeddings; the second is in two sources, the third in two crops."""
    tokens = [
        {"pair_id": 1, "crop": 0, "image_tokens": [1, 2, 3, 4]},
        {"pair_id": 2, "crop": 0, "image_tokens": [1, 2, 9, 9]},
        {"pair_id": 3, "crop": 0, "image_tokens": [7, 7, 7, 1]},
        {"pair_id": 3, "crop": 1, "image_tokens": [9, 9, 9, 1]},
    ]
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, tokens)
    write("image_tokens/dvae=other/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": 4, "crop": 0, "image_tokens": [9, 9, 9, 9]}])
    vectors = {1: [1, 0], 2: [0.6, 0.8], 3: [0, 1], 4: [-1, 0]}
    write("clip_scores/clip=clip/part-00000.parquet", CLIP_SCORES, [{"pair_id": i, "image_embedding": v} for i, v in vectors.items()])
    for dvae in ("vae", "other"):
        catalog.add("image_token_shards", part_path=f"image_tokens/dvae={dvae}/part-00000.parquet", dvae_id=dvae)
    catalog.add("ingested_parts", artifact_kind="clip_scores", part_path="clip_scores/clip=clip/part-00000.parquet")
    captions = {1: "A red Apple on green", 2: "an apple", 3: "100% 'green' owl", 4: "a red owl"}
    catalog.add("pairs", *({"pair_id": i, "caption": caption} for i, caption in captions.items()))
    catalog.add("pairs", pair_id=2, caption="an apple", source="web2")
    return catalog


def test_find_pairs_takes_words_in_any_order_and_case(browsed):
    def found(words, **more):
        return browsed.column("find_pairs", 0, words=words, **more)

    assert found("apple") == [2, 1]  # the shortest caption first, and a pair of two sources once
    assert found("GREEN  apple") == [1]
    assert found("") == [2, 4, 3, 1]
    assert found("100% 'gr") == [3]  # no pattern: % and _ are themselves
    assert found("a_p") == []
    assert found("", limit=1) == [2]


def test_pair_tells_where_its_picture_lies(browsed):
    rows = browsed.query("pair", pair_id=2)
    assert [(row[0], row[3], row[9]) for row in rows] == [
        (2, "web", "pairs/web/part-00000.parquet"),
        (2, "web2", "pairs/web/part-00000.parquet"),
    ]


def test_pairs_like_embedding_come_in_the_order_of_the_cosine(browsed, tmp_path):
    rows = browsed.query("pairs_like_embedding", root=str(tmp_path), clip_id="clip", embedding="[0.6, 0.8]", limit=3)
    assert [row[0] for row in rows] == [2, 3, 1]
    assert [row[1] for row in rows] == pytest.approx([1, 0.8, 0.6], abs=1e-3)
    assert browsed.query("pairs_like_embedding", root=str(tmp_path), clip_id="none", embedding="[1, 0]") == []


def test_pairs_like_tokens_count_those_that_agree_in_place(browsed, tmp_path):
    rows = browsed.query("pairs_like_tokens", root=str(tmp_path), dvae_id="vae", image_tokens="[1, 2, 9, 1]")
    assert [row[:3] for row in rows] == [(2, 3, 0.75), (1, 2, 0.5), (3, 2, 0.5)]  # of the third pair, the crop that is closer


def test_pairs_with_token_say_where(browsed, tmp_path):
    rows = browsed.query("pairs_with_token", root=str(tmp_path), dvae_id="vae", image_token=9)
    assert [row[:3] for row in rows] == [(3, 3, [0, 1, 2]), (2, 2, [2, 3])]
    assert browsed.query("pairs_with_token", root=str(tmp_path), dvae_id="vae", image_token=5) == []
