"""Ingests count a file once, follow what happens to it, and refuse what they do not know."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.catalog import artifacts, ingest, ledger, runs
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ledger import Ingested
from dalle_datasets.store import schemas
from dalle_datasets.store.parquet import SchemaError, write_parquet


@pytest.fixture
def root(make_data_root):
    root = make_data_root()
    root.collect()
    return root


@pytest.fixture
def con(root, migrated):
    root.layout.catalog.parent.mkdir()
    shutil.copy(migrated, root.layout.catalog)
    with connect(root.layout.catalog) as con:
        yield con


LOGS = [
    runs.log_run,
    artifacts.log_generations,
    artifacts.log_rerank_scores,
    artifacts.log_evaluations,
    artifacts.log_figures,
    ingest.ingest_run,
]


def count(con, table):
    return con.execute(f"select count(*) from {table}").fetchall()[0][0]


def test_a_second_ingest_changes_nothing(con, root):
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(added=2)
    before = con.execute("select * exclude (modified_ns) from ingested_parts order by part_path").fetchall()
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(unchanged=2)
    assert con.execute("select * exclude (modified_ns) from ingested_parts order by part_path").fetchall() == before
    assert count(con, "pairs") == 12


def test_a_part_with_new_content_replaces_its_rows_and_is_remembered(con, root):
    ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    write_parquet(part, pa.Table.from_pylist(root.pairs[:3]), schemas.PAIRS)
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(replaced=1, unchanged=1)
    assert count(con, "pairs") == 3 + 4
    remembered = con.execute("select part_path, num_old_rows, new_sha256 is not null from replaced_parts").fetchall()
    assert remembered == [("pairs/emoji_scenes/part-00000.parquet", 8, True)]


def test_a_part_that_is_gone_takes_its_rows_along(con, root):
    ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    (root.layout.pairs("emoji_scenes") / "part-00001.parquet").unlink()
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(removed=1, unchanged=1)
    assert count(con, "pairs") == 8
    assert con.execute("select num_old_rows, new_sha256 from replaced_parts").fetchall() == [(4, None)]


def test_a_source_whose_name_begins_like_another_s_is_left_alone(con, root):
    other = root.layout.pairs("emoji_scenes_2")
    write_parquet(other / "part-00000.parquet", pa.Table.from_pylist([{**root.pairs[0], "pair_id": 99}]), schemas.PAIRS)
    ingest.ingest_pairs(con, root.layout, "emoji_scenes_2")
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes").removed == 0
    assert count(con, "pairs") == 13


def test_a_failing_insert_leaves_neither_rows_nor_a_ledger_row(con, root):
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    claims_to_be_pairs = pa.table({"pair_id": [1, 2]}).replace_schema_metadata(schemas.PAIRS.metadata)
    pq.write_table(claims_to_be_pairs, part)
    with pytest.raises(SchemaError, match=r"part-00000\.parquet cannot be read \(.*\); delete it and run the stage that writes it again"):
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    assert count(con, "pairs") == count(con, "ingested_parts") == 0


def test_a_corrupted_part_is_named(con, root):
    part = root.layout.pairs("emoji_scenes") / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(SchemaError, match=r"part-00001\.parquet is not a readable Parquet file .* run the stage again"):
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    assert count(con, "pairs") == 8, "the good part before it stays"


def test_damage_inside_a_part_is_named(con, root):
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[4:2_000] = b"\xff" * 1_996
    part.write_bytes(content)
    with pytest.raises(SchemaError, match=r"part-00000\.parquet was damaged after it was written"):
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    assert count(con, "pairs") == 0


def test_one_flipped_bit_is_found_wherever_it_matters(con, root):
    """Without checksums of pages, most of them became rows: other tokens, other captions, a pair_id of 0."""
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    sound = part.read_bytes()
    end_of_pages = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    written, found = pq.read_table(part), 0
    for place in range(4, end_of_pages, 101):
        part.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        try:
            ledger.ingest_file(con, root.layout, "pairs", part)
        except SchemaError:
            found += 1
        else:
            assert pq.read_table(part).equals(written), "it is in the statistics of a page, which nobody reads"
            con.execute("delete from ingested_parts")
    assert found > 50


def test_a_pair_without_a_hash_is_refused(con, root):
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    write_parquet(part, pa.Table.from_pylist([{**root.pairs[0], "pair_id": 0}]), schemas.PAIRS)
    with pytest.raises(SchemaError, match=r"part-00000\.parquet was damaged .*: it has a pair_id that is no hash; delete it"):
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")


def settle(root):
    """Make all files a minute old."""
    for path in root.layout.root.rglob("*.parquet"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 60 * 10**9))


def test_a_file_is_hashed_once(con, root, monkeypatch):
    settle(root)
    ingest.ingest_pairs(con, root.layout, "emoji_scenes")
    hashed = []
    monkeypatch.setattr(ledger, "file_sha256", lambda path: hashed.append(path) or "x")
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(unchanged=2)
    assert hashed == [], "size and time are those of the ledger"
    monkeypatch.undo()
    part = root.layout.pairs("emoji_scenes") / "part-00000.parquet"
    part.touch()
    assert ingest.ingest_pairs(con, root.layout, "emoji_scenes") == Ingested(unchanged=2)
    assert count(con, "replaced_parts") == 0, "touched, with the same content"


def test_files_are_hashed_while_others_write(root):
    """The catalog is let go of while files are read, and after half a second of inserting."""
    settle(root)
    layout, turns = root.layout, []

    def ingest_and_look(con):
        turns.append(ingest.ingest_pairs(con, layout, "emoji_scenes"))
        return turns[-1]

    read = ledger._verified_sha256

    def read_while_others_write(path, schema):
        with connect(layout.catalog, 1) as con:
            con.execute("insert into lineage values (?, 'b', 'c')", [path.name])
        return read(path, schema)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_verified_sha256", read_while_others_write)
        patch.setattr(ledger, "_TURN_S", 0.0)
        assert ledger.ingest_in_turns(layout.catalog, ingest_and_look) == Ingested(added=2)
    assert turns[0] == Ingested(), "nothing was inserted before it was read"
    assert [turn.added for turn in turns[1:]] == [1, 1], "one part a turn"
    with connect(layout.catalog) as con:
        assert (count(con, "pairs"), count(con, "lineage")) == (12, 2)
        assert ledger.PROGRESS.get() is None


def test_rows_that_move_between_parts_are_never_there_twice(root):
    """A source that was filtered anew has its pairs in other parts; in between nobody may publish the pairs of both."""
    layout = root.layout
    ledger.ingest_in_turns(layout.catalog, lambda con: ingest.ingest_pairs(con, layout, "emoji_scenes"))
    folder = layout.pairs("emoji_scenes")
    for number, rows in enumerate((root.pairs[6:], root.pairs[:6])):
        write_parquet(folder / f"part-{number:05d}.parquet", pa.Table.from_pylist(rows), schemas.PAIRS)
    settle(root)
    seen = []

    def ingest_and_count(con):
        done = ingest.ingest_pairs(con, layout, "emoji_scenes")
        seen.append(con.execute("select count(*), count(distinct pair_id) from pairs").fetchall())
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_TURN_S", 0.0)
        assert ledger.ingest_in_turns(layout.catalog, ingest_and_count) == Ingested(replaced=2)
    assert seen == [[(12, 12)], [(12, 12)]]


def test_a_foreign_part_is_refused(con, root):
    table = schemas.CLIP_SCORES.with_metadata(None).empty_table()
    write_parquet(root.layout.pairs("emoji_scenes") / "part-00000.parquet", table, schemas.CLIP_SCORES)
    with pytest.raises(SchemaError, match="schema clip_scores v2, but this code reads pairs v1"):
        ingest.ingest_pairs(con, root.layout, "emoji_scenes")


def test_pictures_that_could_not_be_tokenised_are_dropped_pairs(con, root):
    root.tokenize_and_score()
    row = dict.fromkeys(schemas.DROPPED_PAIRS.names, "x") | {"stage": "tokenize", "reason": "not_an_image"}
    write_parquet(
        root.layout.image_tokens("vae0") / "dropped" / "web-part-00000.parquet", pa.Table.from_pylist([row]), schemas.DROPPED_PAIRS
    )
    assert artifacts.register_image_token_shards(con, root.layout, "vae0") == Ingested(added=3)
    assert con.execute("select stage, reason from dropped_pairs").fetchall() == [("tokenize", "not_an_image")]


def test_log_run_keeps_what_lasts_apart_from_what_depends_on_the_machine(con, root):
    *_, tokenized, _, _ = root.tokenize_and_score()
    assert runs.log_run(con, root.layout, tokenized) == Ingested(added=1)
    assert runs.log_run(con, root.layout, tokenized) == Ingested(unchanged=1)
    rows = con.execute("select job, result, config, timings, duration_s, git_commit, started_at::varchar from runs").fetchall()
    job, result, config, timings, duration_s, git_commit, started_at = rows[0]
    assert (job, duration_s, git_commit, started_at) == ("tokenize_images", 1.5, "c0ffee", "2026-09-21 14:17:20")
    assert set(json.loads(result)) == {"image_tokens", "codebook_usage", "codes_used"}
    assert "paths" not in json.loads(config)
    assert json.loads(timings) == {"duration_s": 1.5, "images_per_s": 900.0}


def test_log_run_of_a_run_that_was_made_again_replaces_it(con, root):
    bpe, dvae, *_ = root.tokenize_and_score()
    runs.log_run(con, root.layout, bpe)
    runs.log_run(con, root.layout, dvae)
    num_metrics = count(con, "run_metrics")
    result = json.loads((dvae / "result.json").read_text())
    (dvae / "result.json").write_text(json.dumps({**result, "psnr": 25.0}))
    assert runs.log_run(con, root.layout, dvae) == Ingested(replaced=1)
    assert con.execute("select result ->> 'psnr' from runs where job = 'train_dvae'").fetchall() == [("25.0",)]
    assert count(con, "run_metrics") == num_metrics
    assert con.execute("select artifact_id, kind, path, made_by from artifacts order by kind").fetchall() == [
        ("vae0", "dvae", "runs/train-dvae-2/checkpoint", "train-dvae-2"),
        ("bpe0", "tokenizer", "tokenizers/bpe0", "train-bpe-1"),
    ]
    assert con.execute("select child_id, parent_id, role from lineage order by child_id").fetchall() == [
        ("train-bpe-1", "pairs0", "pairs"),
        ("train-dvae-2", "pairs0", "pairs"),
    ]


@pytest.mark.parametrize("function", LOGS)
def test_an_unfinished_run_is_refused(con, root, function):
    run = root.tokenize_and_score()[0]
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match=r"train-bpe-1 holds no result\.json: the run has not finished; run the stage again, it resumes"):
        function(con, root.layout, run)


def test_a_run_of_another_job_has_no_generations(con, root):
    with pytest.raises(ValueError, match="names no generations: it is a run of train_bpe"):
        artifacts.log_generations(con, root.layout, root.tokenize_and_score()[0])


def test_broken_json_is_named(con, root):
    run = root.tokenize_and_score()[0]
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON .* delete it and run the stage that writes it again"):
        runs.log_run(con, root.layout, run)


def test_a_training_set_without_its_manifest_is_named(con, root):
    with pytest.raises(ValueError, match=r"training_sets/none/manifest\.json does not exist"):
        ingest.ingest_training_set(con, root.layout, "none")


def test_generations_and_verdicts_of_a_run(con, root):
    generated, judged = root.generate_and_judge()
    assert artifacts.log_generations(con, root.layout, generated) == Ingested(added=3)
    assert artifacts.log_evaluations(con, root.layout, judged) == Ingested(added=1)
    assert artifacts.log_figures(con, root.layout, judged) == Ingested(added=1)
    assert con.execute("select distinct generations_run, count(*) from figures group by all").fetchall() == [("generate-images-8", 8)]
    assert artifacts.log_generations(con, root.layout, generated) == Ingested(unchanged=3)
    assert [count(con, table) for table in ("prompts", "dropped_prompts", "generations", "rerank_scores", "evaluations")] == [
        6,
        1,
        24,
        24,
        24,
    ]
    assert con.execute("select distinct clip_id from rerank_scores").fetchall() == [("clip0",)]


def test_scores_of_a_further_clip_do_not_touch_those_of_the_first(con, root):
    generated, _ = root.generate_and_judge()
    ingest.ingest_run(con, root.layout, generated)
    ids = [row[0] for row in con.execute("select generation_id from generations order by all").fetchall()]
    rows = [{"generation_id": i, "clip_id": "clip1", "clip_score": 0.5, "rank": n + 1} for n, i in enumerate(ids)]
    path = root.layout.run("score-generations-10") / "rerank_scores.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, schemas.RERANK_SCORES), schemas.RERANK_SCORES)
    inputs = {"generations": "runs/generate-images-8/generations.parquet", "clip": "runs/x", "clip_id": "clip1"}
    run = root.run("score-generations-10", inputs, {"rerank_scores": root.layout.relative(path), "clip_id": "clip1"})
    assert ingest.ingest_run(con, root.layout, run) == Ingested(added=2)
    assert con.execute("select clip_id, count(*) from rerank_scores group by all order by all").fetchall() == [("clip0", 24), ("clip1", 24)]


def test_stage_times_may_be_logged_again(con, root):
    path = root.layout.stage_times("pipe")
    path.parent.mkdir()
    path.write_text('{"stage": "a", "started_at": 1, "duration_s": 2}\n')
    assert runs.log_stage_times(con, root.layout, path) == Ingested(added=1)
    assert runs.log_stage_times(con, root.layout, path) == Ingested(replaced=1)
    assert con.execute("select pipeline_run_id, stage, duration_s from stage_times").fetchall() == [("pipe", "a", 2.0)]
