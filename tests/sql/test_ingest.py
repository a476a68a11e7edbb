"""Every statement of sql/ingest: a file in, table rows out; and the ledger's small statements."""

import hashlib
import json

import pyarrow as pa

from dalle_datasets.catalog.sql_files import read_sql
from dalle_datasets.store import schemas
from dalle_datasets.store.parquet import write_parquet


def run(catalog, name, /, **values):
    catalog.con.execute(read_sql("ingest", name).text, values or None)


def test_insert_pairs_leaves_the_bytes_in_the_part(catalog, write):
    path = write(
        "pairs/web/part-00000.parquet", schemas.PAIRS, [{"pair_id": 7, "caption": "a red apple", "image": b"png", "split": "train"}]
    )
    run(catalog, "insert_pairs", file=str(path), part_path="pairs/web/part-00000.parquet")
    assert catalog.rows("pairs", "pair_id", "caption", "split", "part_path") == [
        (7, "a red apple", "train", "pairs/web/part-00000.parquet")
    ]


def test_places_of_pairs_are_what_a_block_list_is_compared_with(catalog):
    catalog.add("pairs", {"image_url": "http://site/7.png", "page_url": "http://site/7", "sha256": "s7", "pixel_sha256": "p7"})
    assert catalog.query("places_of_pairs", "ingest") == [("http://site/7.png", "http://site/7", "s7", "p7")]


def test_insert_dropped_pairs(catalog, write):
    path = write("dropped/web/filter.parquet", schemas.DROPPED_PAIRS, [{"reason": "language", "detail": "de"}])
    run(catalog, "insert_dropped_pairs", file=str(path), part_path="p")
    assert catalog.rows("dropped_pairs", "reason", "detail", "part_path") == [("language", "de", "p")]


def collected_file(tmp_path, *rows):
    """The file of a collection, as `dalle_datasets.history` writes it."""
    facts = json.dumps({"source": "web", "number": 3, "finished_at": "2026-01-02T03:04:05", "num_pages": 7})
    path = tmp_path / "run-00003.parquet"
    write_parquet(path, pa.Table.from_pylist(list(rows), schemas.COLLECTED.with_metadata(None)), schemas.COLLECTED)
    path.with_suffix(".json").write_text(facts)
    return path


def outcome(candidate_id, stage, reason, url="http://a.org/1.png", page_url="http://b.org/"):
    return {"candidate_id": candidate_id, "url": url, "page_url": page_url, "stage": stage, "reason": reason}


def test_insert_collection_reads_the_facts_beside_the_rows(catalog, tmp_path):
    run(catalog, "insert_collection", file=str(collected_file(tmp_path)), part_path="p")
    assert catalog.rows(
        "collections", "collection_id", "source", "number", "finished_at::varchar", "facts ->> 'num_pages'", "part_path"
    ) == [("web-3", "web", 3, "2026-01-02 03:04:05", "7", "p")]


def test_insert_collection_counts_by_host_and_end(catalog, tmp_path):
    rows = [
        outcome("1", "kept", ""), outcome("2", "kept", ""), outcome("3", "filter", "decode_error"),
        outcome("4", "discover", "bad_scheme", url="data:image/png;base64,"),
    ]  # fmt: skip
    run(catalog, "insert_collection_counts", file=str(collected_file(tmp_path, *rows)), part_path="p")
    assert catalog.rows("collection_counts", "*") == [
        ("web-3", "a.org", "decode", "decode_error", 1, "p"),
        ("web-3", "a.org", "kept", "", 2, "p"),
        ("web-3", "b.org", "discover", "bad_scheme", 1, "p"),
    ]


def test_insert_text_tokens_takes_the_tokenizer_from_the_caller_not_from_the_folder(catalog, write):
    row = {"pair_id": 1, "text_tokens": [3, 65_535], "num_text_tokens": 2, "is_truncated": True}
    path = write("text_tokens/tokenizer=0123/part-00000.parquet", schemas.TEXT_TOKENS, [row])
    run(catalog, "insert_text_tokens", file=str(path), part_path="p", tokenizer_id="0123")
    assert catalog.rows("text_tokens", "pair_id", "tokenizer_id", "text_tokens", "is_truncated") == [(1, "0123", [3, 65_535], True)]


def test_insert_image_token_shards_measures_the_part(catalog, write):
    rows = [{"pair_id": 5, "image_tokens": [1, 2, 3]}, {"pair_id": 4, "image_tokens": [1]}]
    path = write("image_tokens/dvae=vae/part-00000.parquet", schemas.IMAGE_TOKENS, rows)
    run(catalog, "insert_image_token_shards", file=str(path), part_path="p", dvae_id="vae")
    assert catalog.rows("image_token_shards", "*") == [("p", "vae", 2, 1, 3, 4, 5, 3)]


def test_insert_image_token_shards_of_an_empty_part(catalog, write):
    path = write("image_tokens/dvae=vae/part-00000.parquet", schemas.IMAGE_TOKENS, [])
    run(catalog, "insert_image_token_shards", file=str(path), part_path="p", dvae_id="vae")
    assert catalog.rows("image_token_shards", "*") == [("p", "vae", 0, 0, 0, None, None, None)]


def test_insert_codebook_usage(catalog, write):
    path = write("u.parquet", schemas.CODEBOOK_USAGE, [{"image_token": 8191, "occurrences": 12}])
    run(catalog, "insert_codebook_usage", file=str(path), part_path="p", dvae_id="vae")
    assert catalog.rows("codebook_usage", "*") == [("vae", 8191, 12, "p")]


def test_insert_clip_scores(catalog, write):
    path = write("s.parquet", schemas.CLIP_SCORES, [{"pair_id": 1, "clip_score": 0.25}])
    run(catalog, "insert_clip_scores", file=str(path), part_path="p", clip_id="clip")
    assert catalog.rows("clip_scores", "*") == [(1, "clip", 0.25, "p")]


def test_insert_prompts_keeps_the_expected_scene(catalog, write):
    path = write("p.parquet", schemas.PROMPTS, [{"prompt_id": "p", "prompt": "x", "prompt_set": "mine", "expected": '{"object": "cat"}'}])
    run(catalog, "insert_prompts", file=str(path), part_path="p")
    assert catalog.rows("prompts", "prompt_id", "prompt_set", "expected ->> 'object'") == [("p", "mine", "cat")]


def test_insert_prompts_keeps_the_query_that_gave_them(catalog, tmp_path):
    for name, query in (("a", "select 1"), ("b", "")):
        table = pa.Table.from_pylist([{"prompt_id": name, "prompt": "x", "prompt_set": "own"}], schemas.PROMPTS.with_metadata(None))
        write_parquet(tmp_path / f"{name}.parquet", table, schemas.PROMPTS, metadata={"query": query})
        run(catalog, "insert_prompts", file=str(tmp_path / f"{name}.parquet"), part_path=name)
    assert catalog.rows("prompts", "prompt_id", "query_sql") == [("a", "select 1"), ("b", None)]


def test_insert_dropped_prompts(catalog, write):
    row = {"prompt_id": "p", "prompt": "x", "prompt_set": "own", "reason": "too_long", "detail": "300 tokens"}
    run(catalog, "insert_dropped_prompts", file=str(write("d.parquet", schemas.DROPPED_PROMPTS, [row])), part_path="d", run_id="gen")
    assert catalog.rows("dropped_prompts", "*") == [("gen", "p", "x", "own", "too_long", "300 tokens", "d")]


def test_insert_generations_and_insert_rerank_scores_read_the_same_file(catalog, write):
    row = {"generation_id": "g", "seed": 3, "candidate_index": 2, "clip_score": 0.5, "rank": 1, "image_path": "runs/gen/images/g.png"}
    path = write("runs/gen/generations.parquet", schemas.GENERATIONS, [row])
    run(catalog, "insert_generations", file=str(path), part_path="p", run_id="gen")
    run(catalog, "insert_rerank_scores", file=str(path), part_path="p", clip_id="clip")
    assert catalog.rows("generations", "generation_id", "run_id", "seed", "candidate_index", "image_path") == [
        ("g", "gen", 3, 2, "runs/gen/images/g.png")
    ]
    assert catalog.rows("rerank_scores", "*") == [("g", "clip", 0.5, 1, "p")]


def test_insert_further_rerank_scores(catalog, write):
    row = {"generation_id": "g", "clip_id": "clip2", "clip_score": 0.25, "rank": 3}
    path = write("s.parquet", schemas.RERANK_SCORES, [row])
    run(catalog, "insert_further_rerank_scores", file=str(path), part_path="p")
    assert catalog.rows("rerank_scores", "*") == [("g", "clip2", 0.25, 3, "p")]


def test_insert_evaluations(catalog, write):
    path = write("e.parquet", schemas.EVALUATIONS, [{"generation_id": "g", "prompt_set": "training", "object_right": True}])
    run(catalog, "insert_evaluations", file=str(path), part_path="p", run_id="eval")
    assert catalog.rows("evaluations", "generation_id", "run_id", "object_right", "all_right") == [("g", "eval", True, False)]


def test_insert_figures(catalog, write):
    path = write("f.parquet", schemas.FIGURES, [{"figure": "psnr", "value": 20.5, "num_samples": 3, "low": None, "prompt_set": None}])
    run(catalog, "insert_figures", file=str(path), part_path="p", run_id="eval", generations_run="gen")
    assert catalog.rows("figures", "run_id", "generations_run", "figure", "value", "low", "num_samples", "part_path") == [
        ("eval", "gen", "psnr", 20.5, None, 3, "p")
    ]


def test_insert_training_set_reads_a_manifest(catalog, tmp_path):
    manifest = {
        "training_set_id": "set", "query": "captioned_pairs", "query_sql": "select 1", "parameters": {"seed": 0}, "tokenizer_id": "bpe",
        "dvae_id": "vae", "clip_id": "clip", "num_rows": 3, "num_pairs": 2, "num_validation": 1, "num_sources": 1, "num_pages": 2,
        "sources": ["web"], "path": "training_sets/set", "inputs": {"pairs": "not a column"},
    }  # fmt: skip
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1))
    run(catalog, "insert_training_set", file=str(path), part_path="p")
    assert catalog.rows("training_sets", "training_set_id", "parameters ->> 'seed'", "num_pairs", "sources") == [("set", "0", 2, ["web"])]


def test_insert_run(catalog):
    values = {"config": "{}", "inputs": "{}", "result": '{"loss": 1.5}', "provenance": "{}", "timings": "{}", "git_commit": None}
    run(catalog, "insert_run", run_id="r", job="train_dvae", files_sha256="f", started_at=None, duration_s=2.0, **values)
    assert catalog.rows("runs", "run_id", "(result ->> 'loss')::double", "duration_s") == [("r", 1.5, 2.0)]


def test_insert_run_metrics_takes_one_row_a_number_and_no_speeds(catalog, tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 0, "split": "train", "loss": 2.5, "steps_per_s": 9.0, "elapsed_s": 3},
        {"step": 1, "split": "validation", "loss": None, "psnr": 20},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2, "spl')  # cut short by a crash
    run(catalog, "insert_run_metrics", file=str(path), run_id="r")
    assert catalog.rows("run_metrics", "step", "split", "name", "value") == [
        (0, "train", "loss", 2.5),
        (1, "validation", "loss", None),
        (1, "validation", "psnr", 20.0),
    ]


def test_insert_run_speed_takes_rates_and_whatever_else_is_a_number(catalog, tmp_path):
    path = tmp_path / "speed.jsonl"
    path.write_text('{"step": 10, "pairs_per_s": 20.5, "device": "cpu"}\n{"step": 20, "mfu": 0.5}\n{"step": 30, "pai')
    run(catalog, "insert_run_speed", file=str(path), run_id="r")
    assert catalog.rows("run_speed", "step", "name", "value") == [(10, "device", None), (10, "pairs_per_s", 20.5), (20, "mfu", 0.5)]


def test_insert_artifact_and_insert_lineage(catalog):
    run(catalog, "insert_artifact", artifact_id="vae", kind="dvae", path="runs/r", made_by="r")
    run(catalog, "insert_lineage", child_id="r", parent_id="pairs", role="pairs")
    assert catalog.rows("artifacts", "*") == [("vae", "dvae", "runs/r", "r")]
    assert catalog.rows("lineage", "*") == [("r", "pairs", "pairs")]


def test_insert_stage_times_keeps_the_order_of_the_lines(catalog, tmp_path):
    path = tmp_path / "pipe.jsonl"
    path.write_text(
        '{"stage": "b", "started_at": 0.5, "duration_s": 1.5}\n{"stage": "a", "was_skipped": true, "started_at": 2, "duration_s": 0}\n'
    )
    run(catalog, "insert_stage_times", file=str(path), pipeline_run_id="pipe")
    rows = catalog.rows("stage_times", "position", "stage", "was_skipped", "epoch(started_at)", "duration_s")
    assert rows == [(0, "b", False, 0.5, 1.5), (1, "a", True, 2.0, 0.0)]


def test_insert_network_history_keeps_the_order_of_the_lines(catalog, tmp_path):
    path = tmp_path / "dvae.jsonl"
    line = {"settings_id": "s", "run_id": "r", "path": "runs/r/dvae", "why": "policy always", "pairs_id": "p", "metrics": {"psnr": 20.5}}
    lines = [
        {**line, "network_id": "vae0", "at": "2026-01-01T12:00:00+00:00", "is_current": True, "num_pairs": None},
        {**line, "network_id": "vae1", "at": "2026-01-02T12:00:00+00:00", "is_current": False, "num_pairs": 7},
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    run(catalog, "insert_network_history", file=str(path), role="dvae")
    columns = ("role", "position", "registered_at::varchar", "network_id", "became_current", "num_pairs", "metrics")
    assert catalog.rows("network_history", *columns) == [
        ("dvae", 0, "2026-01-01 12:00:00", "vae0", True, None, '{"psnr":20.5}'),
        ("dvae", 1, "2026-01-02 12:00:00", "vae1", False, 7, '{"psnr":20.5}'),
    ]


def test_record_part_and_parts_under(catalog):
    for number in (1, 0):
        run(
            catalog,
            "record_part",
            part_path=f"pairs/web/{number}",
            artifact_kind="pairs",
            sha256="s",
            num_rows=1,
            num_bytes=2,
            modified_ns=3 + number,
            now="2026-01-01",
        )
    other = {"num_rows": 1, "num_bytes": 2, "modified_ns": None, "now": "2026-01-01"}
    run(catalog, "record_part", part_path="pairs/web/2", artifact_kind="other", sha256="s", **other)
    run(catalog, "touch_part", part_path="pairs/web/1", modified_ns=9)
    rows = catalog.con.execute(read_sql("ingest", "parts_under").text, {"artifact_kind": "pairs", "folder": "pairs/web/"}).fetchall()
    assert rows == [("pairs/web/0", "s", 2, 3), ("pairs/web/1", "s", 2, 9)]


def test_record_replacement_copies_the_ledger_row_that_is_about_to_go(catalog):
    catalog.add("ingested_parts", sha256="old", num_rows=9)
    run(catalog, "record_replacement", part_path="pairs/web/part-00000.parquet", new_sha256="new", now="2026-01-01")
    assert catalog.rows("replaced_parts", "artifact_kind", "old_sha256", "new_sha256", "num_old_rows") == [("pairs", "old", "new", 9)]


def test_remove_part_and_remove_run_touch_nothing_else(catalog):
    catalog.add("pairs", {"part_path": "a"}, {"part_path": "b"})
    catalog.con.execute(read_sql("ingest", "remove_part").with_identifiers(table="pairs"), {"part_path": "a"})
    assert catalog.rows("pairs", "part_path") == [("b",)]
    catalog.add("lineage", {"child_id": "a"}, {"child_id": "b"})
    catalog.con.execute(read_sql("ingest", "remove_run").with_identifiers(table="lineage", column="child_id"), {"run_id": "a"})
    assert catalog.rows("lineage", "child_id") == [("b",)]


def test_run_content(catalog):
    catalog.add("runs", files_sha256="abc")
    assert catalog.query("run_content", folder="ingest", run_id="run") == [("abc",)]
    assert catalog.query("run_content", folder="ingest", run_id="none") == []


def test_table_columns_leaves_views_out(catalog):
    rows = catalog.query("table_columns", folder="ingest")
    assert rows[:4] == [("applied_views", "sha256"), ("applied_views", "applied_at"), ("artifacts", "artifact_id"), ("artifacts", "kind")]
    assert "best_generations" not in {row[0] for row in rows}


def test_known_names_are_tables_views_and_macros(catalog):
    names = {row[0] for row in catalog.query("known_names", folder="ingest")}
    assert {"pairs", "best_generations", "ancestors"} <= names
    assert "range" not in names


def test_schema_version_and_applied_views_record_what_was_applied(catalog):
    run(catalog, "schema_version", version=99, name="0099_x", sha256="s", now="2026-01-01")
    assert catalog.rows("schema_version", "version", "name", "sha256")[-1] == (99, "0099_x", "s")
    run(catalog, "applied_views", sha256="t", now="2026-01-01")
    assert len(catalog.rows("applied_views", "sha256")) == 2


def choose(catalog, *rows):
    """The temporary table that the export of a training set makes."""
    catalog.con.execute(
        "create temp table chosen_pairs(pair_id bigint, crop smallint, split varchar, caption varchar, source varchar, page_url varchar, "
        "text_tokens usmallint[], image_tokens usmallint[])"
    )
    for row in rows:
        catalog.con.execute("insert into chosen_pairs values (?, ?, ?, 'c', ?, ?, [1], [2])", row)


def test_shuffled_training_set_depends_on_the_seed_only(catalog):
    choose(catalog, *((i, 0, "train", "web", "1") for i in range(20)))
    orders = [[row[0] for row in catalog.query("shuffled_training_set", folder="ingest", seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(20)) != orders[0]
    # The order is part of a training set's content: it may depend on nothing that another version of DuckDB could change.
    assert orders[0] == sorted(range(20), key=lambda i: hashlib.md5(f"0:{i}:0".encode()).hexdigest())


def test_training_set_counts(catalog):
    choose(catalog, (1, 0, "train", "web", "p1"), (1, 1, "train", "web", "p1"), (2, 0, "validation", "crawl", "p2"))
    assert catalog.query("training_set_counts", folder="ingest") == [(3, 2, 1, 2, 2, ["crawl", "web"])]


def test_training_set_inputs_are_all_pairs_and_the_files_of_the_three_ids(catalog):
    for kind, path in [
        ("pairs", "pairs/web/0"),
        ("text_tokens", "text_tokens/tokenizer=bpe/0"),
        ("text_tokens", "text_tokens/tokenizer=bpe2/0"),
        ("image_tokens", "image_tokens/dvae=vae/0"),
        ("clip_scores", "clip_scores/clip=clip/0"),
        ("clip_scores", "clip_scores/clip=other/0"),
        ("safety_scores", "safety_scores/safety=safe/0"),
        ("prompts", "runs/x/prompts.parquet"),
    ]:
        catalog.add("ingested_parts", artifact_kind=kind, part_path=path)
    ids = {"tokenizer_id": "bpe", "dvae_id": "vae", "clip_id": "clip", "safety_id": ""}
    with_safety = catalog.query("training_set_inputs", folder="ingest", **{**ids, "safety_id": "safe"})
    assert "safety_scores/safety=safe/0" in [row[0] for row in with_safety]
    assert [row[0] for row in catalog.query("training_set_inputs", folder="ingest", **ids)] == [
        "clip_scores/clip=clip/0",
        "image_tokens/dvae=vae/0",
        "pairs/web/0",
        "text_tokens/tokenizer=bpe/0",
    ]


def test_unknown_id_names_the_most_like_it(catalog):
    catalog.add(
        "artifacts", {"artifact_id": "abc0"}, {"artifact_id": "abc1"}, {"artifact_id": "zzz"}, {"artifact_id": "abc", "kind": "clip"}
    )
    assert catalog.query("unknown_id", "ingest", parameter="dvae_id", id="abc1") == [(False, ["abc1", "abc0", "zzz"])]
    assert catalog.query("unknown_id", "ingest", parameter="dvae_id", id="abcd")[0][0] is True
    assert catalog.query("unknown_id", "ingest", parameter="other_id", id="x") == [(True, [])]


def test_ledger_and_run_ids(catalog):
    catalog.add("ingested_parts", {"part_path": "b"}, {"part_path": "a", "artifact_kind": "other"})
    catalog.add("runs", {"run_id": "y"}, {"run_id": "x"})
    assert catalog.query("ledger", "ingest") == [("a", "other", "s", 10), ("b", "pairs", "s", 10)]
    assert catalog.query("run_ids", "ingest") == [("x",), ("y",)]


def test_things_say_what_each_is_of_no_use_without(catalog):
    catalog.add("runs", {"run_id": "t"}, {"run_id": "k", "job": "tokenize_images"}, {"run_id": "free", "job": "tokenize_images"})
    catalog.add(
        "lineage", {"child_id": "t", "role": "tokenizer", "parent_id": "bpe"}, {"child_id": "k", "role": "dvae", "parent_id": "vae"}
    )
    catalog.add("training_sets")
    catalog.add("artifacts", artifact_id="image_tokens/dvae=vae", kind="image_tokens", path="image_tokens/dvae=vae", made_by="k")
    assert catalog.query("things", "ingest") == [
        ("k", "runs/k", ["vae"]),
        ("set", "training_sets/set", []),
        ("t", "runs/t", []),
        ("vae", "image_tokens/dvae=vae", []),
    ]


def test_current_things(catalog):
    catalog.add("runs", {"run_id": "old", "started_at": "2025-01-01"}, {"run_id": "new"}, {"run_id": "g", "job": "generate_images"})
    catalog.add("runs", run_id="g0", job="generate_images", started_at="2025-01-01")
    catalog.add("artifacts", artifact_id="vae", made_by="new")
    assert catalog.query("current_things", "ingest") == [("g",), ("g0",), ("new",), ("vae",)]
