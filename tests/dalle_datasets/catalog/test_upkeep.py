"""A data root in order: differences are found both ways, garbage goes and nothing else, a compacted catalog has the same rows."""

import json
import os
import shutil
import time

import pytest

from dalle_datasets.catalog import ingest, upkeep
from dalle_datasets.catalog.checks import run_checks
from dalle_datasets.catalog.connection import connect, open_published
from dalle_datasets.catalog.snapshot import contents, publish
from dalle_datasets.store.parquet import list_parts


@pytest.fixture
def layout(catalogued_root):
    return catalogued_root.layout


def age(layout, days=2):
    for path in (layout.root, *layout.root.rglob("*")):
        os.utime(path, (time.time() - days * 86_400,) * 2)


def problems(layout, **more):
    return {found.path: found.problem for found in upkeep.compare_with_files(layout, **more)}


def test_tables_and_files_are_compared_both_ways(layout):
    assert problems(layout, num_hashed=1_000) == {}
    first, second = list_parts(layout.pairs("emoji_scenes"))
    shutil.copy(first, first.with_name("part-00009.parquet"))
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # edited by hand: the same size
    second.unlink()
    scores = list_parts(layout.clip_scores("clip0"))[0]
    scores.write_bytes(scores.read_bytes() + b"x")
    shutil.rmtree(layout.run("train-bpe-1"), ignore_errors=True)
    shutil.copytree(layout.run("evaluate-9"), layout.run("evaluate-10"))
    found = problems(layout, num_hashed=1_000)
    assert found["pairs/emoji_scenes/part-00000.parquet"] == "has another content than when it was catalogued"
    assert found["pairs/emoji_scenes/part-00001.parquet"] == "in the tables, but the file is gone"
    assert found["pairs/emoji_scenes/part-00009.parquet"] == "not in the tables"
    assert found["runs/evaluate-10"] == "a finished run that is not in the tables"
    assert found["runs/train-bpe-1"] == "in the tables, but the run is gone"
    assert "bytes, but had" in found[layout.relative(scores)]


def test_what_is_gone_leaves_the_tables(layout):
    for path in (layout.run("train-clip-5"), layout.clip_scores("clip0"), next((layout.root / "training_sets").glob("*/"))):
        shutil.rmtree(path)
    with connect(layout.catalog) as con:
        assert ingest.ingest_everything(con, layout).removed >= 4
        for table in ("clip_scores", "training_sets"):
            assert con.execute(f"select count(*) from {table}").fetchall() == [(0,)]
        assert con.execute("select count(*) from runs where run_id = 'train-clip-5'").fetchall() == [(0,)]
        assert con.execute("select count(*) from run_metrics where run_id = 'train-clip-5'").fetchall() == [(0,)]
    publish(layout)
    assert problems(layout) == {}


def test_nothing_that_is_in_use_or_new_is_garbage(layout):
    assert upkeep.find_garbage(layout) == []
    age(layout)
    assert upkeep.find_garbage(layout) == [], "everything led to the pictures"


def make_old_network(root):
    """A dVAE that nothing uses, with its tokens, made before the one in use."""
    layout = root.layout
    old = layout.run("train-dvae-0")
    shutil.copytree(layout.run("train-dvae-2"), old)
    for name in ("result.json", "config.json"):
        (old / name).write_text((old / name).read_text().replace("vae0", "vae9").replace("train-dvae-2", "train-dvae-0"))
    result = json.loads((old / "result.json").read_text())
    (old / "result.json").write_text(json.dumps({**result, "started_at": 1_700_000_000.0}))
    run = layout.run("tokenize-images-0")
    shutil.copytree(layout.run("tokenize-images-4"), run)
    for name in ("result.json", "config.json"):
        (run / name).write_text((run / name).read_text().replace("vae0", "vae9").replace("tokenize-images-4", "tokenize-images-0"))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "started_at": 1_700_000_001.0}))
    shutil.copytree(layout.image_tokens("vae0"), layout.image_tokens("vae9"))
    with connect(layout.catalog) as con:
        ingest.ingest_everything(con, layout)
    publish(layout)


def test_a_network_that_nothing_uses_goes_with_its_tokens_unless_it_is_kept(catalogued_root):
    layout = catalogued_root.layout
    make_old_network(catalogued_root)
    assert upkeep.find_garbage(layout) == [], "it was made a moment ago"
    age(layout)
    garbage = upkeep.find_garbage(layout)
    assert sorted(item.path for item in garbage) == ["image_tokens/dvae=vae9", "runs/tokenize-images-0", "runs/train-dvae-0"]
    assert all(item.num_bytes > 0 for item in garbage)
    with pytest.raises(ValueError, match=r"vae7 is no run, training set or network of .*published\.duckdb"):
        upkeep.keep(layout, "vae7")
    upkeep.keep(layout, "vae9")
    assert upkeep.find_garbage(layout) == []
    layout.kept.write_text("not json\n")
    with pytest.raises(ValueError, match=r"kept\.jsonl is damaged .*; mend the line, nothing is deleted"):
        upkeep.find_garbage(layout)
    layout.kept.unlink()
    with open_published(layout) as con:
        before = con.execute("select count(*) from pairs").fetchall()
    upkeep.collect_garbage(layout, garbage)
    with connect(layout.catalog) as con:
        ingest.ingest_everything(con, layout)
    publish(layout)
    assert not layout.image_tokens("vae9").exists()
    assert layout.image_tokens("vae0").exists()
    assert problems(layout) == {}
    with open_published(layout) as con:
        assert con.execute("select count(*) from pairs").fetchall() == before
        assert [check.name for check in run_checks(con) if not check.passed] == []


def test_files_of_killed_writers_go_and_those_of_living_ones_stay(layout):
    folder = layout.pairs("emoji_scenes")
    node = upkeep.platform.node()
    living, dead, elsewhere = (folder / f"x.{owner}.partial" for owner in (f"{node}-{os.getpid()}", f"{node}-4194999", "node9-1"))
    for path in (living, dead, elsewhere):
        path.write_bytes(b"half")
    assert [item.path for item in upkeep.find_garbage(layout)] == [layout.relative(dead)]
    os.utime(elsewhere, (time.time() - 2 * 86_400,) * 2)
    found = upkeep.find_garbage(layout)
    assert {item.path for item in found} == {layout.relative(dead), layout.relative(elsewhere)}
    upkeep.collect_garbage(layout, found)
    assert [path.name for path in folder.glob("*.partial")] == [living.name]


def test_garbage_outside_the_root_is_not_deleted(layout, tmp_path):
    (tmp_path / "precious").write_text("x")
    for path in ("../precious", ".", ""):
        with pytest.raises(ValueError, match="is outside of"):
            upkeep.collect_garbage(layout, [upkeep.Garbage(path, "", 0)])
    assert (tmp_path / "precious").exists()


def test_a_compacted_catalog_has_the_same_rows(layout):
    with connect(layout.catalog) as con:
        con.execute("insert into lineage select range::varchar, md5(range::varchar), 'waste' from range(200_000)")
    publish(layout)
    with connect(layout.catalog) as con:
        con.execute("delete from lineage where role = 'waste'")
        expected = contents(con)
    before, after = upkeep.compact(layout)
    assert after < before
    with connect(layout.catalog) as con:
        assert contents(con) == expected
        assert con.execute("select count(*) from best_generations").fetchall()[0][0] > 0
