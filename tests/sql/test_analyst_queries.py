"""What an analyst asks of pairs, training sets, networks and prompts: rows in, rows expected."""

import pytest

from dalle_datasets.store.schemas import CLIP_SCORES, IMAGE_TOKENS, PAIRS, TRAINING_SET


def embedded(catalog, write, vectors):
    """Pairs with embeddings of the CLIP `clip`."""
    path = "clip_scores/clip=clip/part-00000.parquet"
    write(path, CLIP_SCORES, [{"pair_id": i, "image_embedding": vector} for i, vector in vectors.items()])
    catalog.add("ingested_parts", part_path=path, artifact_kind="clip_scores")
    catalog.add("pairs", *({"pair_id": i, "caption": f"picture {i}", "pixel_sha256": f"p{i // 2}"} for i in vectors))


def chosen(catalog, write, sets):
    """Training sets of pairs."""
    for name, pairs in sets.items():
        write(f"training_sets/{name}/part-00000.parquet", TRAINING_SET, [{"pair_id": i, "split": "train"} for i in pairs])
        manifest = f"training_sets/{name}/manifest.json"
        catalog.add("training_sets", training_set_id=name, part_path=manifest, num_pairs=len(set(pairs)), num_validation=0)
        catalog.add("ingested_parts", artifact_kind="training_set", part_path=manifest, ingested_at=f"2026-01-0{len(name)}")


def test_images_are_those_of_catalogued_parts(catalog, write, tmp_path):
    write("pairs/web/part-00000.parquet", PAIRS, [{"pair_id": 1, "image": b"PNG"}])
    write("pairs/web/part-00001.parquet", PAIRS, [{"pair_id": 2, "image": b"not catalogued"}])
    catalog.add("ingested_parts")
    rows = catalog.con.execute("select pair_id, image from images($root)", {"root": f"{tmp_path}/"}).fetchall()
    assert rows == [(1, b"PNG")]


def test_training_set_pairs_counts_crops_once_and_only_what_is_catalogued(catalog, write, tmp_path):
    chosen(catalog, write, {"a": [1, 1, 2]})
    write("training_sets/unfinished/part-00000.parquet", TRAINING_SET, [{"pair_id": 9}])
    rows = catalog.con.execute("select * from training_set_pairs($root) order by all", {"root": str(tmp_path)}).fetchall()
    assert rows == [("a", 1, "train"), ("a", 2, "train")]


def test_newest_training_set(catalog, write):
    assert catalog.rows("newest_training_set", "*") == []
    chosen(catalog, write, {"bb": [1], "a": [1]})
    assert catalog.rows("newest_training_set", "*") == [("bb",)]


def test_checkpoints_say_which_network_they_hold(catalog):
    catalog.add("runs")
    catalog.add("checkpoints", {}, {"kind": "state", "path": "runs/run/checkpoints/step-000004"}, {"run_id": "unknown"})
    catalog.add("artifacts", path="runs/run/checkpoints/best")
    assert [row[1:5] for row in catalog.query("checkpoints")] == [("run", 4, "weights", "vae"), ("run", 4, "state", None)]
    assert catalog.query("checkpoints", run_id="other") == []


def test_vocabulary_coverage(catalog):
    catalog.add("pairs", {"pair_id": 1, "num_caption_words": 2}, {"pair_id": 2, "num_caption_words": 1})
    catalog.add(
        "text_tokens",
        {"pair_id": 1, "text_tokens": [7, 8, 7], "num_text_tokens": 3},
        {"pair_id": 2, "text_tokens": [7], "num_text_tokens": 1},
    )
    catalog.add("runs", run_id="bpe-run", config='{"tokenizer": {"vocab_size": 10}}')
    catalog.add("artifacts", artifact_id="bpe", kind="tokenizer", made_by="bpe-run")
    assert catalog.query("vocabulary_coverage") == [("bpe", 10, 2, 0.2, 1, 4, pytest.approx(4 / 3))]


def test_typical_pictures_are_near_the_mean(catalog, write, tmp_path):
    embedded(catalog, write, {1: [1.0, 0.0], 2: [0.9, 0.1], 3: [0.8, -0.1], 4: [-1.0, 0.0]})
    rows = catalog.query("typical_pictures", root=str(tmp_path), clip_id="clip", limit=1)
    assert [(row[0], row[2], row[3]) for row in rows] == [("typical", 1, "picture 1"), ("untypical", 4, "picture 4")]
    assert rows[0][1] > 0.99 > -0.9 > rows[1][1]


def test_clip_percentiles_say_what_a_threshold_keeps(catalog):
    catalog.add("pairs", *({"pair_id": i, "split": "validation" if i == 9 else "train"} for i in range(10)))
    catalog.add("clip_scores", *({"pair_id": i, "clip_score": i / 10} for i in range(10)))
    rows = catalog.query("clip_percentiles", clip_id="clip", step=50)
    assert [(row[0], row[2], row[3], row[4]) for row in rows] == [(0, 10, 1, 1.0), (50, 5, 1, 0.5)]
    assert rows[1][1] == pytest.approx(0.45)


def test_best_pairs_counts_a_pair_of_two_sources_once(catalog):
    catalog.add("pairs", {"pair_id": 1, "caption": "good"}, {"pair_id": 1, "caption": "good", "source": "other"}, {"pair_id": 2})
    catalog.add("clip_scores", {"pair_id": 1, "clip_score": 0.9}, {"pair_id": 1, "clip_score": 0.9}, {"pair_id": 2, "clip_score": 0.1})
    assert [(row[1], row[3]) for row in catalog.query("best_pairs", clip_id="clip", limit=5)] == [("good", 1), ("a red apple", 2)]


def test_near_duplicates_compare_every_two_once(catalog, write, tmp_path):
    embedded(catalog, write, {2: [1.0, 0.0], 3: [1.0, 0.01], 4: [0.0, 1.0]})
    rows = catalog.query("near_duplicates", root=str(tmp_path), clip_id="clip")
    assert [row[1:] for row in rows] == [(2, 3, "picture 2", "picture 3", True)]
    assert len(catalog.query("near_duplicates", root=str(tmp_path), clip_id="clip", min_similarity=-1)) == 3
    assert len(catalog.query("near_duplicates", root=str(tmp_path), clip_id="clip", min_similarity=-1, sample=2)) == 1


def test_training_set_composition_by_facet(catalog, write, tmp_path):
    chosen(catalog, write, {"a": [1, 2, 2]})
    catalog.add("pairs", {"pair_id": 1, "licence": "CC0-1.0"}, {"pair_id": 2}, {"pair_id": 2, "source": "zzz"}, {"pair_id": 3})
    rows = catalog.query("training_set_composition", root=str(tmp_path))
    assert ("licence", "CC0-1.0", 1, 0.5) in rows
    assert ("licence", "(not known)", 1, 0.5) in rows
    assert ("source", "web", 2, 1.0) in rows
    assert ("host", "site", 2, 1.0) in rows
    assert ("split", "train", 2, 1.0) in rows
    assert len(catalog.query("training_set_composition", root=str(tmp_path), limit=1)) == 5


def test_training_set_overlap(catalog, write, tmp_path):
    chosen(catalog, write, {"a": [1, 2, 3], "bb": [2, 3, 4, 5]})
    rows = {
        row[1]: row[2:]
        for row in catalog.query("training_set_overlap", root=str(tmp_path), first_training_set_id="a", second_training_set_id="bb")
    }
    assert rows["pairs"] == ("3", "4")
    assert rows["pairs of both"] == ("2", "2")
    assert rows["pairs of this one only"] == ("1", "2")


def test_compare_runs_lists_what_differs(catalog):
    catalog.add(
        "runs",
        {"run_id": "a", "config": '{"lr": 0.1, "same": 1, "deep": {"x": [1, 2]}}', "result": '{"loss": 2}'},
        {"run_id": "b", "config": '{"lr": 0.2, "same": 1, "deep": {"x": [1, 3]}}', "result": '{"loss": 2, "more": "yes"}'},
    )
    assert catalog.query("compare_runs", first_run_id="a", second_run_id="b") == [
        ("settings", "deep.x[1]", "2", "3"),
        ("settings", "lr", "0.1", "0.2"),
        ("result", "more", None, "yes"),
    ]


def test_checkpoint_provenance_reaches_the_sources(catalog):
    catalog.add("runs", run_id="t", job="train_transformer", inputs='{"training_set_id": "set", "dvae_id": "vae"}', git_commit="c0ffee")
    catalog.add("artifacts", artifact_id="tf", kind="transformer", path="runs/t/checkpoint", made_by="t")
    catalog.add("training_sets")
    catalog.add("run_metrics", {"run_id": "t", "step": 10}, {"run_id": "t", "step": 20})
    facts = {row[1]: row[2] for row in catalog.query("checkpoint_provenance")}
    assert (facts["code"], facts["dVAE"], facts["recipe"], facts["sources"]) == ("c0ffee", "vae", "captioned_pairs", "web")
    assert facts["last logged step"] == "20"
    assert catalog.query("checkpoint_provenance", transformer_id="other") == []


def test_prompt_difficulty_has_the_hardest_first(catalog):
    for prompt, rights in (("easy", [True, True]), ("hard", [False, True])):
        for i, right in enumerate(rights):
            name = f"{prompt}{i}"
            catalog.add("generations", generation_id=name, prompt=prompt, prompt_id=prompt, candidate_index=i)
            catalog.add("rerank_scores", generation_id=name, rank=i + 1, clip_score=0.5 - 0.2 * i)
            catalog.add("evaluations", generation_id=name, all_right=right)
    rows = catalog.query("prompt_difficulty", run_id="gen")
    assert [row[1:5] for row in rows] == [("hard", 2, 0.5, False), ("easy", 2, 1.0, True)]
    assert [pytest.approx(value) for value in rows[0][5:]] == [0.5, 0.4, 0.1]


def test_storage_by_folder(catalog):
    catalog.add("ingested_parts", {"num_bytes": 30}, {"part_path": "pairs/web/part-00001.parquet", "num_bytes": 10, "num_rows": 3})
    catalog.add("checkpoints")
    assert catalog.query("storage") == [
        ("weights", "runs/run/checkpoints/best", 1, None, 100, None),
        ("pairs", "pairs/web", 2, 4, 40, 10.0),
    ]


def test_freshness_has_the_oldest_first(catalog):
    catalog.add("ingested_parts", {"ingested_at": "2026-01-05"}, {"ingested_at": "2026-01-04"})
    catalog.add("runs", started_at="2026-01-03")
    catalog.add("collections", finished_at="2026-01-06")
    assert [row[:3] for row in catalog.query("freshness")] == [("runs", "train_dvae", 1), ("files", "pairs", 2), ("collections", "web", 1)]


def test_seen_by_names_the_checkpoints(catalog, write, tmp_path):
    chosen(catalog, write, {"a": [1, 2], "bb": [2]})
    catalog.add("runs", run_id="t", job="train_transformer", inputs='{"training_set_id": "a"}')
    catalog.add("artifacts", artifact_id="tf", kind="transformer", path="runs/t/checkpoint", made_by="t")
    assert catalog.query("seen_by", root=str(tmp_path), pair_id=2) == [
        ("a", "train", "t", "tf", "runs/t/checkpoint"),
        ("bb", "train", None, None, None),
    ]


@pytest.mark.parametrize(
    ("params", "expected"),
    [({}, [1, 2, 3]), ({"licences": "CC0-1.0,MIT"}, [1]), ({"languages": "de"}, [2]), ({"min_clip_score": 0.25}, [3])],
)
def test_licensed_pairs(catalog, write, tmp_path, params, expected):
    catalog.add("pairs", {"pair_id": 1, "licence": "CC0-1.0"}, {"pair_id": 2, "language": "de"}, {"pair_id": 3})
    for i in (1, 2, 3):
        catalog.add("text_tokens", pair_id=i)
        catalog.add("clip_scores", pair_id=i, clip_score=i / 10)
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": i, "image_tokens": [i]} for i in (1, 2, 3)])
    catalog.add("image_token_shards")
    ids = {"tokenizer_id": "bpe", "dvae_id": "vae", "clip_id": "clip"}
    rows = catalog.query("licensed_pairs", "training_sets", root=str(tmp_path), **ids, **params)
    assert sorted(row[0] for row in rows) == expected


def test_emoji_styles(catalog, write, tmp_path):
    cells = [("red-panda", "noto"), ("red-panda", "twemoji"), ("red-panda", "openmoji"), ("man-judge", "noto"), ("man-judge", "twemoji")]
    cells += [("rare", "noto"), ("ok-hand-dark-skin-tone", "noto"), ("ok-hand-dark-skin-tone", "twemoji"), ("", "noto"), ("", "twemoji")]
    for i, (concept, pack) in enumerate(cells):
        page = f"https://www.npmjs.com/package/@iconify-json/{pack}" + (f"?concept={concept}" if concept else "")
        catalog.add("pairs", pair_id=i, page_url=page, licence="CC-BY-SA-4.0" if pack == "openmoji" else "MIT")
        catalog.add("text_tokens", pair_id=i)
        catalog.add("clip_scores", pair_id=i)
    write("image_tokens/dvae=vae/part-00000.parquet", IMAGE_TOKENS, [{"pair_id": i, "image_tokens": [i]} for i in range(len(cells))])
    catalog.add("image_token_shards")
    ids = {"tokenizer_id": "bpe", "dvae_id": "vae", "clip_id": "clip", "root": str(tmp_path)}
    chosen = [sorted(row[0] for row in catalog.query("emoji_styles", "training_sets", **ids, min_styles=n)) for n in (2, 3)]
    assert chosen == [[0, 1], []], "share-alike pictures neither count as a style nor are they chosen"
    assert not catalog.query("emoji_styles", "training_sets", **ids), "six styles unless it is said"


def test_insert_checkpoint(catalog):
    values = {"run_id": "r", "path": "p", "kind": "state", "step": 3, "num_bytes": 2}
    catalog.query("insert_checkpoint", "ingest", **values)
    assert catalog.rows("checkpoints", "*") == [("r", "p", "state", 3, 2)]


def test_inherited_comments_and_macro_kinds(catalog):
    kinds = dict(catalog.query("macro_kinds", "ingest"))
    assert (kinds["image_tokens"], kinds["host_of"]) == ("macro table", "macro")
    assert "pairs" not in kinds
    catalog.con.execute("create view some_pairs as select caption, 1 as one from pairs")
    rows = catalog.query("inherited_comments", "ingest", view_name="some_pairs", reads="runs,pairs")
    assert rows == [("caption", "Caption as found on the page, white space tidied.")]
