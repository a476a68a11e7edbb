"""Every query of sql/queries: rows in, rows expected."""

import json

import pytest

from dalle_datasets.store.schemas import COLLECTED, MEASURES, TRAINING_SET


def test_drop_reasons_counts_by_stage_and_reason_most_frequent_first(catalog):
    catalog.add(
        "dropped_pairs", {"detail": "2 words"}, {"detail": "1 word"}, {"stage": "download", "reason": "http_4xx", "detail": "HTTP 404"}
    )
    assert catalog.query("drop_reasons") == [
        ("filter", "caption_short", 2, pytest.approx(2 / 3), "1 word"),
        ("download", "http_4xx", 1, pytest.approx(1 / 3), "HTTP 404"),
    ]


def test_drop_reasons_of_one_source(catalog):
    catalog.add("dropped_pairs", {"source": "web"}, {"source": "crawl", "reason": "language"})
    assert catalog.column("drop_reasons", 1, source="crawl") == ["language"]


def found(catalog):
    """Two hosts: a.org gave one pair of five candidates, b.org none of one; one page of a.org was closed."""
    catalog.add("pairs", {"candidate_id": "a0", "image_url": "http://a.org/0.png"})
    catalog.add(
        "dropped_pairs",
        {"candidate_id": "a1", "stage": "filter", "reason": "decode_error"},
        {"candidate_id": "a2", "stage": "filter", "reason": "blank"},
        {"candidate_id": "a3", "stage": "download", "reason": "http_4xx"},
        {"candidate_id": "a4", "stage": "download", "reason": "http_4xx"},
        {"candidate_id": "late", "stage": "tokenize", "reason": "decode_error"},
        image_url="http://a.org/x.png",
    )
    catalog.add("dropped_pairs", stage="discover", reason="robots_txt", image_url="", page_url="http://a.org/closed/")
    catalog.add("dropped_pairs", candidate_id="b", stage="download", reason="timeout", image_url="http://b.org:81/x", source="other")


def test_funnel_ends_at_the_number_of_pairs(catalog):
    found(catalog)
    assert [row[1:4] for row in catalog.query("funnel")] == [
        ("found", 0, 7), ("discover", 1, 6), ("download", 3, 3), ("decode", 1, 2), ("filter", 1, 1),
    ]  # fmt: skip
    assert catalog.column("funnel", 3, host="b.org:81") == [1, 1, 0, 0, 0]
    assert catalog.column("funnel", 4, source="web") == [1.0, 5 / 6, 0.5, pytest.approx(1 / 3), pytest.approx(1 / 6)]
    assert catalog.column("funnel", 4, source="none") == [None] * 5


def test_funnel_by_host_says_what_most_losses_are(catalog):
    found(catalog)
    assert catalog.query("funnel_by_host") == [
        ("a.org", 6, 5, 3, 2, 1, pytest.approx(1 / 6), "http_4xx", 2),
        ("b.org:81", 1, 1, 0, 0, 0, 0.0, "timeout", 1),
    ]
    assert catalog.column("funnel_by_host", 0, source="other") == ["b.org:81"]


def test_funnel_by_source(catalog):
    found(catalog)
    assert catalog.query("funnel_by_source") == [("web", 1, 6, 5, 3, 2, 1, pytest.approx(1 / 6)), ("other", 1, 1, 1, 0, 0, 0, 0.0)]


def test_download_failures_are_counted_by_host(catalog):
    found(catalog)
    assert catalog.query("download_failures") == [
        ("a.org", "http_4xx", 2, pytest.approx(1 / 3), "http://a.org/x.png"),
        ("b.org:81", "timeout", 1, 1.0, "http://b.org:81/x"),
    ]


def test_collections_newest_first(catalog):
    catalog.add("collections", {}, {"collection_id": "web-2", "number": 2, "finished_at": "2026-01-08"})
    catalog.add("collection_counts", {"num_candidates": 4})
    catalog.add(
        "collection_counts",
        {"num_candidates": 5}, {"stage": "filter", "reason": "blank", "num_candidates": 2}, {"stage": "discover", "host": "b.org"},
        {"stage": "download", "num_candidates": 2},
        collection_id="web-2",
    )  # fmt: skip
    rows = catalog.query("collections")
    assert [(row[0], *row[4:]) for row in rows] == [("web-2", 5, 2, 10, 9, 7, 7, 5, 0.5), ("web-1", 5, 1, 4, 4, 4, 4, 4, 1.0)]


def test_collection_reasons_now_and_before(catalog):
    catalog.add("collections", {}, {"collection_id": "web-2", "number": 2}, {"collection_id": "new-1", "source": "new"})
    catalog.add("collection_counts", {"num_candidates": 4}, {"stage": "filter", "reason": "blank", "num_candidates": 2})
    catalog.add(
        "collection_counts", {"num_candidates": 5}, {"stage": "download", "reason": "dns", "num_candidates": 7}, collection_id="web-2"
    )
    catalog.add("collection_counts", {"host": "b.org"}, collection_id="new-1")
    assert catalog.query("collection_reasons") == [
        ("web", "download", "dns", 7, 0, 7),
        ("web", "filter", "blank", 0, 2, -2),
        ("new", "kept", "", 1, None, None),
        ("web", "kept", "", 5, 4, 1),
    ]
    assert catalog.column("collection_reasons", 0, host="b.org") == ["new"]


def collected(*outcomes):
    """Rows of a collection's file."""
    return [
        {"candidate_id": name, "url": f"http://a.org/{name}", "page_url": "http://a.org/", "stage": stage, "reason": reason}
        for name, stage, reason in outcomes
    ]


def two_collections(catalog, write):
    """What can happen to a candidate between two collections, each once; and an older one that does not count."""
    last_but_one = [
        ("same", "kept", ""), ("ill", "kept", ""), ("well", "download", "timeout"), ("away", "kept", ""), ("worse", "filter", "blank"),
    ]  # fmt: skip
    last = [
        ("same", "kept", ""), ("ill", "download", "http_4xx"), ("well", "kept", ""), ("worse", "filter", "too_small"),
        ("fresh", "kept", ""), ("bad", "filter", "blank"), ("same", "discover", "duplicate_candidate"),
    ]  # fmt: skip
    for number, rows in enumerate(([("old", "kept", "")], last_but_one, last), start=1):
        path = f"collections/web/run-0000{number}.parquet"
        write(path, COLLECTED, collected(*rows))
        catalog.add("collections", collection_id=f"web-{number}", number=number, part_path=path)


def test_changed_candidates_between_the_last_two_collections(catalog, write, tmp_path):
    two_collections(catalog, write)
    rows = catalog.query("changed_candidates", root=str(tmp_path))
    assert {row[6].rpartition("/")[2]: (row[2], row[4], row[5]) for row in rows} == {
        "fresh": ("new", "kept", None),
        "bad": ("new, left out", "blank", None),
        "away": ("gone", None, "kept"),
        "ill": ("newly left out", "http_4xx", "kept"),
        "well": ("recovered", "kept", "timeout"),
        "worse": ("other reason", "too_small", "blank"),
    }
    assert {row[1] for row in rows} == {"web-3"}
    assert catalog.column("changed_candidates", 6, root=str(tmp_path), change="gone") == ["http://a.org/away"]


def test_collection_changes_counts_them(catalog, write, tmp_path):
    two_collections(catalog, write)
    rows = catalog.query("collection_changes", root=str(tmp_path))
    assert ("web", "web-3", "newly left out", "http_4xx", "kept", 1, ["http://a.org/ill"]) in rows
    assert len(rows) == 6


def measured(catalog, write, *rows):
    """Candidates with what was measured; those without a reason are kept."""
    ordinary = {"width": 64, "height": 64, "language": "en", "num_caption_words": 3, "pixel_sha256": "p"}
    names = set(MEASURES.names)
    filled = [{"candidate_id": f"{i:016x}", **ordinary, **row} for i, row in enumerate(rows)]
    write("measures/web/part-00000.parquet", MEASURES, [{name: value for name, value in row.items() if name in names} for row in filled])
    for row in filled:
        if "reason" in row:
            catalog.add("dropped_pairs", candidate_id=row["candidate_id"], reason=row["reason"], detail=row.get("detail", ""))
        else:
            catalog.add("pairs", candidate_id=row["candidate_id"])


def test_languages_of_what_was_seen_and_kept(catalog, write, tmp_path):
    measured(catalog, write, {}, {}, {"reason": "blank"}, {"language": "de", "reason": "caption_language"})
    assert catalog.query("languages", root=str(tmp_path)) == [("en", 3, 2), ("de", 1, 0)]
    assert catalog.query("languages", root=str(tmp_path), source="none") == []


def test_caption_words_joins_the_long_ones(catalog, write, tmp_path):
    measured(catalog, write, {}, {"num_caption_words": 41}, {"num_caption_words": 90, "reason": "caption_markup"})
    assert catalog.query("caption_words", root=str(tmp_path)) == [(3, 1, 1), (40, 2, 1)]


def test_image_sizes_by_the_short_side(catalog, write, tmp_path):
    broken = {"width": None, "height": None, "reason": "decode_error"}
    measured(catalog, write, {}, {"width": 300}, {"height": 16, "reason": "too_small"}, broken)
    assert catalog.query("image_sizes", root=str(tmp_path)) == [(16.0, 22.6, 1, 0), (64.0, 90.5, 2, 2)]


def test_aspect_ratios_are_centred_on_squares(catalog, write, tmp_path):
    measured(catalog, write, {}, {"width": 66}, {"width": 128}, {"height": 4096, "reason": "aspect_ratio"})
    assert catalog.query("aspect_ratios", root=str(tmp_path)) == [(0.057, 0.068, 1, 0), (0.917, 1.091, 2, 2), (1.834, 2.181, 1, 1)]


def test_duplicate_clusters_join_equal_and_similar_pictures(catalog, write, tmp_path):
    measured(
        catalog,
        write,
        {"reason": "duplicate_image"},
        {},
        {"pixel_sha256": "like p", "reason": "near_duplicate", "detail": "looks like 0000000000000001"},
        {"pixel_sha256": "q"},
        {"pixel_sha256": "x", "reason": "placeholder"},
        {"pixel_sha256": "x", "reason": "placeholder"},
        {"pixel_sha256": None, "reason": "decode_error"},
    )
    rows = catalog.query("duplicate_clusters", root=str(tmp_path))
    assert [(row[0], row[1], row[2], int(row[3], 16), row[5]) for row in rows] == [
        ("p", 3, 1, 1, "kept"),
        ("p", 3, 1, 0, "duplicate_image"),
        ("p", 3, 1, 2, "near_duplicate"),
        ("x", 2, 0, 4, "placeholder"),
        ("x", 2, 0, 5, "placeholder"),
    ]
    assert len(catalog.query("duplicate_clusters", root=str(tmp_path), limit=1, members=2)) == 2


def test_duplicates_are_equal_pixels(catalog):
    catalog.add("pairs", {"pixel_sha256": "same", "caption": "b"}, {"pixel_sha256": "same", "caption": "a"}, {"pixel_sha256": "other"})
    assert catalog.query("duplicates") == [("same", 2, ["a", "b"], ["http://site/1.png"])]


def test_sources_counts_pairs_and_pages(catalog):
    catalog.add("pairs", {"page_url": "1"}, {"page_url": "1", "split": "validation"}, {"page_url": "2", "num_caption_words": 6})
    assert catalog.query("sources") == [("web", 3, 2, 1, 2, 4.0)]


def test_caption_lengths(catalog):
    catalog.add("pairs", {"num_caption_words": 5}, {"num_caption_words": 3}, {"num_caption_words": 3}, {"num_caption_words": 3})
    assert catalog.query("caption_lengths") == [(3, 3, 0.75), (5, 1, 0.25)]


def test_text_token_lengths_of_the_newest_tokenizer(catalog):
    catalog.add("runs", {"run_id": "old", "started_at": "2026-01-01"}, {"run_id": "new", "started_at": "2026-01-02"})
    catalog.add("artifacts", {"artifact_id": "bpe1", "made_by": "old"}, {"artifact_id": "bpe2", "made_by": "new"}, kind="tokenizer")
    catalog.add("text_tokens", {"tokenizer_id": "bpe1"}, {"tokenizer_id": "bpe2", "num_text_tokens": 18, "is_truncated": True})
    assert catalog.query("text_token_lengths") == [(18, 1, 1)]
    assert catalog.query("text_token_lengths", tokenizer_id="bpe1") == [(2, 1, 0)]


def test_codebook_usage_puts_rare_tokens_first(catalog):
    catalog.add(
        "codebook_usage", {"image_token": 0, "occurrences": 6}, {"image_token": 1, "occurrences": 0}, {"image_token": 2, "occurrences": 2}
    )
    assert catalog.query("codebook_usage", dvae_id="vae") == [(1, 0, 0.0), (2, 2, 0.25), (0, 6, 0.75)]


def test_codebook_health_of_two_equally_used_codes_is_a_perplexity_of_two(catalog):
    catalog.add("runs", config='{"dvae": {"codebook_size": 8}}')
    catalog.add("artifacts")
    catalog.add("codebook_usage", {"image_token": 0}, {"image_token": 5}, {"image_token": 6, "occurrences": 0}, occurrences=4)
    assert catalog.query("codebook_health") == [("vae", 8, 2, 6, pytest.approx(2.0), 0.5)]


def test_dead_codes_are_counted_zero_or_not_at_all(catalog):
    catalog.add("runs", config='{"dvae": {"codebook_size": 4}}')
    catalog.add("artifacts")
    catalog.add("codebook_usage", {"image_token": 0}, {"image_token": 2, "occurrences": 0}, {"image_token": 3})
    assert catalog.query("dead_codes") == [(1,), (2,)]


def test_clip_score_histogram_says_how_many_a_threshold_keeps(catalog):
    catalog.add("clip_scores", {"clip_score": 0.11}, {"clip_score": 0.31}, {"clip_score": 0.35}, {"clip_score": -0.05})
    assert catalog.query("clip_score_histogram", clip_id="clip", bin_width=0.1) == [
        (-0.1, 0.0, 1, 1.0),
        (0.1, 0.2, 1, 0.75),
        (0.3, 0.4, 2, 0.5),
    ]


def test_lowest_clip_scores_names_the_captions(catalog):
    catalog.add("pairs", {"pair_id": 1, "caption": "good"}, {"pair_id": 2, "caption": "bad"})
    catalog.add("clip_scores", {"pair_id": 1, "clip_score": 0.75}, {"pair_id": 2, "clip_score": 0.25})
    assert catalog.query("lowest_clip_scores", clip_id="clip", limit=1) == [(0.25, "bad", "http://site/1.png", 2)]


def test_loss_curves_of_one_name(catalog):
    catalog.add("runs")
    catalog.add("run_metrics", {"step": 10, "value": 0.5}, {"step": 0, "value": 2.0}, {"name": "kl"})
    assert catalog.query("loss_curves", name="loss") == [
        ("train_dvae", "run", "train", "loss", 0, 2.0),
        ("train_dvae", "run", "train", "loss", 10, 0.5),
    ]


def test_runs_oldest_first(catalog):
    catalog.add("runs", {"run_id": "b", "started_at": "2026-01-02"}, {"run_id": "a", "started_at": "2026-01-03"})
    assert catalog.column("runs", 2) == ["b", "a"]
    assert catalog.query("runs", job="evaluate") == []


def test_networks_says_which_serves_for_each_settings(catalog):
    catalog.add(
        "network_history",
        {"position": 0, "network_id": "vae0"},
        {"position": 1, "network_id": "vae1"},
        {"position": 2, "network_id": "vae2", "became_current": False},
        {"position": 3, "network_id": "vae3", "settings_id": "other"},
        {"role": "clip", "network_id": "clip0", "became_current": False},
    )
    rows = [(row[0], row[2], row[3]) for row in catalog.query("networks")]
    assert rows == [
        ("clip", "clip0", False),
        ("dvae", "vae3", True),
        ("dvae", "vae2", False),
        ("dvae", "vae1", True),
        ("dvae", "vae0", False),
    ]
    assert len(catalog.query("networks", role="clip")) == 1


def test_stage_times_of_the_newest_pipeline_run(catalog):
    catalog.add("stage_times", {"pipeline_run_id": "old"})
    catalog.add(
        "stage_times",
        {"position": 1, "stage": "train"},
        {"position": 0, "stage": "collect", "was_skipped": True},
        pipeline_run_id="new",
        started_at="2026-02-01",
    )
    assert [row[:3] for row in catalog.query("stage_times")] == [("new", "collect", True), ("new", "train", False)]


def test_job_times_gives_the_last_run_of_each_job(catalog):
    catalog.add(
        "runs", {"run_id": "a", "started_at": "2026-01-02"}, {"run_id": "b"}, {"run_id": "c", "job": "evaluate", "started_at": "2026-01-03"}
    )
    assert catalog.column("job_times", 1) == ["a", "c"]


def candidates(catalog, all_right, ranks, prompt="p"):
    """Candidates 0, 1, … of one prompt, with the checker's verdicts and CLIP's ranks."""
    for index, (right, rank) in enumerate(zip(all_right, ranks, strict=True)):
        generation_id = f"{prompt}{index}"
        catalog.add("generations", generation_id=generation_id, candidate_index=index, prompt_id=prompt, prompt=prompt)
        catalog.add("rerank_scores", generation_id=generation_id, rank=rank, clip_score=1 - rank / 64)
        catalog.add("evaluations", generation_id=generation_id, all_right=right, color_right=right)


def test_agreement_takes_the_clip_best_of_disjoint_groups(catalog):
    # Candidates 0-3: the best ranked (rank 2) is wrong. Candidates 4-7: the best ranked (rank 1) is right.
    candidates(catalog, [True, False, True, False, False, True, False, False], ranks=[3, 2, 4, 5, 6, 1, 7, 8])
    columns = [(row[1], row[2], row[3], row[4], row[5], row[8]) for row in catalog.query("agreement", run_id="gen")]
    assert columns == [
        (1, 1, 3 / 8, 1.0, 3 / 8, 3 / 8),  # no reranking: the mean over all candidates
        (4, 1, 1 / 2, 1.0, 1 / 2, 1.0),
        (8, 1, 1.0, 1.0, 1.0, 1.0),
    ]


def test_agreement_by_a_further_clip(catalog):
    candidates(catalog, [True, False, False, False], ranks=[4, 3, 2, 1])
    for index, rank in enumerate([1, 2, 3, 4]):
        catalog.add("rerank_scores", generation_id=f"p{index}", clip_id="clip2", rank=rank, part_path="runs/score/rerank_scores.parquet")
    assert [(row[1], row[3]) for row in catalog.query("agreement", run_id="gen")] == [(1, 0.25), (4, 0.0)]
    assert [(row[1], row[3]) for row in catalog.query("agreement", run_id="gen", clip_id="clip2")] == [(1, 0.25), (4, 1.0)]


def test_agreement_is_that_of_the_newest_run_somebody_judged(catalog):
    """`dalle generate` after a demo made a newer run without verdicts, and the query answered with nothing."""
    catalog.add("runs", {"run_id": "gen", "job": "generate_images"})
    catalog.add("runs", {"run_id": "single", "job": "generate_images", "started_at": "2099-01-01"})
    candidates(catalog, [True, False, False, False], ranks=[4, 3, 2, 1])
    catalog.add("generations", generation_id="own", run_id="single", prompt_id="own", prompt="own")
    catalog.add("rerank_scores", generation_id="own")
    assert [(row[1], row[3]) for row in catalog.query("agreement")] == [(1, 0.25), (4, 0.0)]


def test_agreement_leaves_out_pictures_nobody_judged(catalog):
    catalog.add("generations")
    catalog.add("rerank_scores")
    assert catalog.query("agreement", run_id="gen") == []


def test_best_of_n_grows_with_the_candidates(catalog):
    candidates(catalog, [True, True, True], ranks=[32, 16, 64])
    assert catalog.query("best_of_n", run_id="gen") == [("training", 1, 1, 0.5), ("training", 2, 1, 0.75), ("training", 3, 1, 0.75)]


def test_best_generations_shows_one_picture_a_prompt(catalog):
    candidates(catalog, [False, True], ranks=[2, 1], prompt="a")
    candidates(catalog, [False, True], ranks=[1, 2], prompt="b")
    assert [(row[1], row[3], row[5]) for row in catalog.query("best_generations", run_id="gen")] == [("a", True, "a1"), ("b", False, "b0")]
    assert catalog.query("best_generations", run_id="gen", prompt_set="held_out_pair") == []


def test_gallery_is_not_ordered_by_score_so_that_the_first_few_are_a_fair_sample(catalog):
    candidates(catalog, [False, True], ranks=[9, 1], prompt="b")
    candidates(catalog, [True], ranks=[1], prompt="c")
    candidates(catalog, [True], ranks=[1], prompt="a")
    catalog.con.execute("update rerank_scores set clip_score = 0.1 where generation_id = 'a0'")
    assert catalog.column("gallery", 0, run_id="gen", limit=2) == ["a0", "b1"]
    assert catalog.column("gallery", 0, run_id="gen", prompt_set="own") == []


def test_drop_examples_takes_a_few_of_each_reason(catalog):
    catalog.add("dropped_pairs", *({"candidate_id": str(i)} for i in range(5)), {"reason": "language", "candidate_id": "x"})
    rows = catalog.query("drop_examples", per_reason=2)
    assert [(row[1], row[6]) for row in rows] == [("caption_short", "0"), ("caption_short", "1"), ("language", "x")]


def test_prompt_sets_are_counted(catalog):
    candidates(catalog, [True, True], ranks=[1, 2], prompt="a")
    candidates(catalog, [True, True], ranks=[1, 2], prompt="b")
    assert catalog.query("prompt_sets", run_id="gen") == [("training", 2, 4)]


def test_candidates_are_ordered_by_rank(catalog):
    candidates(catalog, [False, True, True], ranks=[2, 3, 1])
    assert catalog.column("candidates", 8, run_id="gen", prompt="p") == ["p2", "p0", "p1"]


def test_training_sets(catalog):
    catalog.add("training_sets")
    assert catalog.query("training_sets") == [("set", "captioned_pairs", "{}", 2, 1, ["web"], "training_sets/set")]


def test_training_set_pages_counts_pairs_not_crops(catalog, write, tmp_path):
    write("training_sets/set/part-00000.parquet", TRAINING_SET, [{"pair_id": 1}, {"pair_id": 1}, {"pair_id": 2}, {"pair_id": 3}])
    catalog.add("pairs", {"pair_id": 1, "page_url": "a"}, {"pair_id": 2, "page_url": "a"}, {"pair_id": 3, "page_url": "b"}, {"pair_id": 4})
    rows = catalog.query("training_set_pages", root=str(tmp_path), training_set_id="set")
    assert rows == [("web", "a", 2, "a red apple"), ("web", "b", 1, "a red apple")]


def test_replaced_parts_newest_first(catalog):
    catalog.add("replaced_parts", {"ingested_at": "2026-01-01"}, {"ingested_at": "2026-01-02", "new_sha256": None})
    assert catalog.column("replaced_parts", 4) == [None, "new"]


def test_lineage_walks_from_a_picture_to_the_pages(catalog):
    catalog.add("generations")
    catalog.add("rerank_scores")
    networks = '{"transformer_id": "tf", "dvae_id": "vae", "tokenizer_id": "bpe", "clip_id": "clip"}'
    catalog.add(
        "runs",
        {"run_id": "gen", "inputs": networks, "config": '{"sampling": {"temperature": 0.7}}', "git_commit": "c0ffee"},
        {"run_id": "train-tf", "inputs": '{"training_set_id": "set"}', "config": '{"train_transformer": {"max_steps": 5}}'},
        {"run_id": "train-vae"},
    )
    catalog.add("artifacts", {"artifact_id": "tf", "kind": "transformer", "made_by": "train-tf", "path": "runs/train-tf/checkpoint"})
    catalog.add("artifacts", {"made_by": "train-vae"}, {"artifact_id": "clip", "kind": "clip"}, {"artifact_id": "bpe", "kind": "tokenizer"})
    catalog.add("training_sets", {"query_sql": "select the pairs"}, {"training_set_id": "another"})
    facts = {row[1]: row[2] for row in catalog.query("lineage", generation_id="g")}
    assert list(facts)[:5] == ["picture", "prompt", "prompt set", "prompts query", "candidate"]
    assert facts["prompt"] == "a red apple"
    assert facts["sampler settings"] == '{"temperature":0.7}'
    assert facts["code of the sampler"] == "c0ffee"
    assert (facts["transformer"], facts["transformer checkpoint"]) == ("tf", "runs/train-tf/checkpoint")
    assert (facts["dVAE"], facts["CLIP"], facts["tokenizer"]) == ("vae", "clip", "bpe")
    assert facts["training set query"] == "select the pairs"
    assert (facts["pairs in the training set"], facts["pages"], facts["sources"]) == ("2", "2", "web")


def test_lineage_names_a_network_once_though_two_runs_made_the_same(catalog):
    catalog.add("generations")
    catalog.add("rerank_scores")
    catalog.add(
        "runs", {"run_id": "gen", "inputs": '{"tokenizer_id": "bpe"}'}, {"run_id": "first"}, {"run_id": "again", "started_at": "2026-02-02"}
    )
    catalog.add("artifacts", {"made_by": "first"}, {"made_by": "again"}, artifact_id="bpe", kind="tokenizer")
    assert [row[2:] for row in catalog.query("lineage", generation_id="g") if row[1] == "tokenizer"] == [("bpe", "again")]


def test_lineage_of_an_unknown_picture_is_empty(catalog):
    assert catalog.query("lineage", generation_id="none") == []


def test_ancestors_are_everything_a_network_was_made_from(catalog):
    catalog.add(
        "artifacts", {"artifact_id": "tf", "kind": "transformer", "made_by": "train-tf"}, {"artifact_id": "vae", "made_by": "train-vae"}
    )
    catalog.add("lineage", {"child_id": "train-tf", "parent_id": "set"}, {"child_id": "set", "parent_id": "vae"}, {"child_id": "other"})
    assert catalog.column("ancestors", 2, id="tf") == ["tf", "train-tf", "set", "vae", "train-vae"]


def test_ever_seen_walks_through_warm_starts_and_what_model_folders_say(catalog):
    begun = {"start_id": "tf1", "training_set_id": "set2", "dvae_id": "vae", "tokenizer_id": "bpe"}
    seen = [
        {"role": role, "network_id": made, "run_id": "far", "data_id": data, "num_pairs": 7, "sources": ["a", "b"], "of": [role]}
        for role, made, data in [("transformer", "tf0", "set0"), ("clip", "c0", "pairs0")]
    ]  # fmt: skip
    catalog.add(
        "runs",
        {"run_id": "second", "job": "train_transformer", "inputs": json.dumps(begun)},
        {"run_id": "first", "job": "train_transformer", "inputs": '{"start_id": "tf0", "training_set_id": "set1"}'},
        {"run_id": "vae-run", "job": "train_dvae", "inputs": '{"pairs": "pairs/own", "pairs_id": "p"}'},
        {"run_id": "vae-look", "job": "train_dvae", "inputs": '{"pairs": "pairs/looked", "pairs_id": "q", "dvae_id": "vae"}'},
        {"run_id": "import", "job": "import_model", "result": json.dumps({"seen": seen})},
    )
    catalog.add("training_sets", {"training_set_id": "set1"}, {"training_set_id": "set2", "num_pairs": 3, "sources": ["own"]})
    catalog.add("network_history", run_id="vae-run", num_pairs=12)
    for run, made, kind in [
        ("second", "tf2", "transformer"), ("first", "tf1", "transformer"), ("vae-run", "vae", "dvae"), ("import", "tf0", "transformer"),
        ("import", "c0", "clip"),
    ]:  # fmt: skip
        catalog.add("artifacts", artifact_id=made, kind=kind, made_by=run)
    for child, parent in [("second", "tf1"), ("second", "vae"), ("first", "tf0"), ("vae-look", "vae")]:
        catalog.add("lineage", child_id=child, parent_id=parent)
    expected = [
        (1, "transformer", "tf2", "second", "set2", 3, ["own"], None),
        (3, "dvae", "vae", "vae-run", "p", 12, ["own"], None),
        (3, "transformer", "tf1", "first", "set1", 2, ["web"], None),
        (5, "transformer", "tf0", "far", "set0", 7, ["a", "b"], "import"),
    ]
    assert catalog.query("ever_seen", network_id="tf2") == expected, "neither what was only looked at, nor what another network of it saw"
    assert [row[4] for row in catalog.query("ever_seen", network_id="c0")] == ["pairs0"]
    (known,) = catalog.query("unknown_id", folder="ingest", parameter="network_id", id="c0")
    assert known[0] is False, "a network of which nothing is told is no unknown one"


def logged(catalog, table, run_id, step, **numbers):
    """Numbers of one line of metrics.jsonl or speed.jsonl."""
    split = {"split": numbers.pop("split")} if "split" in numbers else {}
    catalog.add(table, *({"name": name, "value": value} for name, value in numbers.items()), run_id=run_id, step=step, **split)


STREAM = '{"dvae": {"image_size": 32, "downsample": 4}, "tokenizer": {"max_text_tokens": 18}}'


def test_training_speed_counts_the_tokens_of_all_processes(catalog):
    catalog.add("runs", {"run_id": "tf", "job": "train_transformer"}, {"run_id": "clip", "job": "train_clip"}, config=STREAM)
    logged(catalog, "run_speed", "tf", 10, pairs_per_s=100.0, num_processes=4, memory_bytes=5, data_wait_share=0.25, mfu=0.5)
    logged(catalog, "run_speed", "clip", 10, pairs_per_s=100.0)
    assert catalog.query("training_speed", job="train_transformer") == [
        ("train_transformer", "tf", 10, 4, 400.0, 400.0 * (64 + 18), 0.5, 5, 0.25)
    ]
    assert catalog.query("training_speed", run_id="clip") == [("train_clip", "clip", 10, 1, 100.0, None, None, None, None)]


def test_training_summary_takes_medians_and_the_last_numbers(catalog):
    catalog.add("runs", {"run_id": "tf", "job": "train_transformer", "config": STREAM}, {"run_id": "eval", "job": "evaluate"})
    for step, rate in ((10, 100.0), (20, 1.0), (30, 120.0)):  # the slow one wrote a checkpoint
        logged(catalog, "run_speed", "tf", step, pairs_per_s=rate, memory_bytes=step)
        logged(catalog, "run_metrics", "tf", step, split="train", loss=1 / step, gradient_norm=step / 10)
    logged(catalog, "run_metrics", "tf", 20, split="validation", loss=0.5)
    [row] = catalog.query("training_summary")
    assert row[1:] == ("train_transformer", "tf", 30, 1.0, 1, 100.0, 8200.0, None, 30, None, 3.0, pytest.approx(1 / 30), 0.5)


def test_training_losses_in_nats_and_bits(catalog):
    catalog.add("runs", run_id="tf", job="train_transformer")
    catalog.add("artifacts", artifact_id="t", kind="transformer", made_by="tf")
    logged(catalog, "run_metrics", "tf", 10, split="validation", text_loss=0.0, image_loss=0.6931471805599453)
    assert catalog.query("training_losses") == [("tf", "validation", 10, 0.0, 0.0, pytest.approx(0.693147), pytest.approx(1.0))]


def test_dvae_health_is_what_validation_saw(catalog):
    catalog.add("runs", run_id="v")
    catalog.add("artifacts", made_by="v")
    logged(
        catalog,
        "run_metrics",
        "v",
        0,
        split="validation",
        psnr=20.5,
        perplexity=7.0,
        codes_used=5,
        codes_dead=3,
        kl_nats=1.3862943611198906,
    )
    logged(catalog, "run_metrics", "v", 0, split="train", psnr=1.0)
    assert catalog.query("dvae_health") == [("v", 0, 20.5, pytest.approx(1.386294), pytest.approx(2.0), 7.0, 5, 3, None)]


def test_gradient_norms_of_the_last_step(catalog):
    catalog.add("runs", run_id="tf", job="train_transformer")
    catalog.add("artifacts", artifact_id="t", kind="transformer", made_by="tf")
    logged(catalog, "run_metrics", "tf", 10, split="gradients", mlp_00=2.0)
    logged(catalog, "run_metrics", "tf", 20, split="gradients", mlp_00=0.5, attention_00=0.25)
    logged(catalog, "run_metrics", "tf", 30, split="train", loss=1.0)
    assert catalog.query("gradient_norms") == [("tf", 20, "attention_00", 0.25), ("tf", 20, "mlp_00", 0.5)]
    assert catalog.query("gradient_norms", run_id="tf", step=10) == [("tf", 10, "mlp_00", 2.0)]


def test_training_losses_have_no_rows_of_gradients(catalog):
    catalog.add("run_metrics", {"name": "text_loss"}, {"split": "gradients", "name": "attention_00"}, run_id="t")
    assert [row[:3] for row in catalog.query("training_losses", run_id="t")] == [("t", "train", 0)]
