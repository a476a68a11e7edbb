"""A picture that is forgotten leaves no trace, whatever was interrupted; what saw it is named; requests without sense are refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.catalog import forget as forgetting
from dalle_datasets.catalog.checks import run_checks
from dalle_datasets.catalog.connection import open_published
from dalle_datasets.catalog.forget import Request, plan_forgetting, read_requests
from dalle_datasets.catalog.queries import ask
from dalle_datasets.catalog.training_sets import export_training_set
from dalle_datasets.catalog.upkeep import compare_with_files
from dalle_datasets.sources.blocked import block, read_blocks
from dalle_datasets.store import schemas
from dalle_datasets.store.backup import BackupPlace
from dalle_datasets.store.locks import held
from dalle_datasets.store.manifest import result_of
from dalle_datasets.store.parquet import read_parquet, write_parquet

SOURCE = "emoji_scenes"
IDS = {"pairs_id": "pairs0", "tokenizer_id": "bpe0", "dvae_id": "vae0", "clip_id": "clip0"}


@pytest.fixture
def layout(catalogued_root):
    return catalogued_root.layout


def words_of(*pairs):
    names = ("caption", "image_url", "candidate_id", "sha256", "pair_id")
    return {str(pair[name]) for pair in pairs for name in names if name != "candidate_id"}, {pair["image"] for pair in pairs}


def test_no_trace_is_left_and_those_who_saw_it_are_named(catalogued_root, traces, tmp_path):
    layout = catalogued_root.layout
    first, by_url, by_page = catalogued_root.pairs[0], catalogued_root.pairs[3], catalogued_root.pairs[8:12]
    second = {"start_id": "tf0", "dvae_id": "vae0", "tokenizer_id": "bpe0"}
    catalogued_root.run("train-transformer-11", second, {"transformer_id": "tf1", "checkpoint": "runs/train-transformer-11/x"})
    catalogued_root.run("train-transformer-12", {**second, "start_id": "tf1"}, {"transformer_id": "tf2", "checkpoint": "x"})
    looked_at = {"pairs": f"pairs/{SOURCE}", "pairs_id": "pairs0", "dvae_id": "vae"}
    catalogued_root.run("train-dvae-13", looked_at, {"dvae_id": "vae", "checkpoint": "runs/train-dvae-13/dvae"})
    look = layout.run("train-dvae-13") / "reconstructions.png"
    shutil.copyfile(layout.run("train-dvae-2") / "reconstructions.png", look)
    ids = {"tokenizer_id": "bpe", "dvae_id": "vae", "clip_id": "clip", "transformer_id": "tf0"}
    catalogued_root.run("import-model-14", {"model_id": "m"}, {**ids, "checkpoint": "runs/import-model-14"})
    spikes = layout.run("train-transformer-7") / "spikes"
    spikes.mkdir()
    (spikes / "step-000001-0.safetensors").write_bytes(b"a batch")
    copy = {**by_url, "caption": "quite another caption", "candidate_id": "copy", "image_url": "http://127.0.0.1/copy.png", "pair_id": 77}
    write_parquet(
        layout.pairs("other") / "part-00000.parquet", pa.Table.from_pylist([copy], schemas.PAIRS.with_metadata(None)), schemas.PAIRS
    )
    BackupPlace(str(tmp_path / "backups")).save(layout)
    texts, pictures = words_of(first, by_url, *by_page)
    texts |= {by_page[0]["page_url"], "quite another caption", "http://127.0.0.1/copy.png"}
    assert len(traces(layout.root, texts, pictures)) > 10
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    asked = [Request("pair", str(first["pair_id"])), Request("url", by_url["image_url"].replace("http:", "https:"))]
    plan = plan_forgetting(layout, [*asked, Request("page", by_page[0]["page_url"], "letter 4711")])
    assert (len(plan.found.pair_ids), plan.num_pairs, plan.is_most) == (7, 13, True)
    assert {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()} == before, "a plan changes nothing"
    record = json.loads(forgetting.forget(layout, plan).read_text())

    assert traces(layout.root, texts, pictures) == []
    assert record["status"] == "done"
    assert record["requests"][-1] == {"kind": "page", "reason": "letter 4711"}
    assert {network["run_id"].rpartition("-")[2]: (network["certainly"], network["began_from"]) for network in record["networks"]} == {
        "7": (True, ""), "2": (False, ""), "1": (False, ""), "5": (False, ""), "11": (True, "tf0"),
        "12": (True, "tf1"), "14": (True, "tf0"),
    }, "those that began from one, too, and not what only looked at them"  # fmt: skip
    assert np.asarray(Image.open(look)).min() == 255, "it drew them when it looked"
    assert record["backups"][0]["place"] == str(tmp_path / "backups")
    assert compare_with_files(layout, 1_000) == []
    assert not spikes.exists()
    assert np.asarray(Image.open(layout.run("train-dvae-2") / "reconstructions.png")).min() == 255, "a validation picture was drawn there"
    assert not layout.run("reconstruct-3").exists()
    with open_published(layout) as con:
        assert [check.name for check in run_checks(con) if not check.passed] == []
        (training_set,) = ask(con, "training_sets")
    assert (training_set["num_pairs"], training_set["training_set_id"]) == (6, record["training_sets"][0])
    assert result_of(layout.pairs(SOURCE))["num_pairs"] == 6
    again = plan_forgetting(layout, asked[1:])
    assert not again.found.candidate_ids, "asking once more is no mistake"


@pytest.mark.parametrize("where", ["forget_in_source", "publish"])
def test_an_interrupted_request_stops_collections_and_is_finished(catalogued_root, traces, monkeypatch, where):
    layout, pair = catalogued_root.layout, catalogued_root.pairs[0]
    plan = plan_forgetting(layout, [Request("url", pair["image_url"])])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forgetting, where, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        forgetting.forget(layout, plan)
    with pytest.raises(ValueError, match="was interrupted .*; finish it with `dalle forget --yes` first"):
        read_blocks(layout)
    (record,) = forgetting.finish_interrupted(layout)
    assert json.loads(record.read_text())["num_pairs"] == 1
    assert traces(layout.root, *words_of(pair)) == []
    assert read_blocks(layout).has_picture(pair["sha256"])
    assert compare_with_files(layout, 1_000) == []
    assert forgetting.finish_interrupted(layout) == []


def test_a_picture_file_finds_what_looks_like_it(catalogued_root, tmp_path):
    layout, pair = catalogued_root.layout, catalogued_root.pairs[5]
    path = tmp_path / "letter.png"
    path.write_bytes(pair["image"])
    plan = plan_forgetting(layout, [Request("like", str(path))])
    assert plan.found.candidate_ids == {pair["candidate_id"]}, "the fixture's measures have no looks, but the bytes are the same"
    assert [entry.kind for entry in plan.blocks] == ["picture", "picture", "look"]


def test_a_block_list_from_elsewhere_is_applied_and_what_was_drawn_for_a_caption_is_named(layout, catalogued_root, traces):
    pair = catalogued_root.pairs[1]
    layout.blocked.write_text(json.dumps(block("picture", pair["sha256"])._asdict()) + "\n")
    with open_published(layout) as con, pytest.raises(ValueError, match="1 pairs of the catalog are on the block list, so no training set"):
        export_training_set(
            con, layout, query="captioned_pairs", min_clip_score_quantile=0.0, seed=1, rows_per_part=5, row_group_size=4, **IDS
        )
    shown = layout.run("train-transformer-7") / "shown/prompts.json"  # what was drawn while it trained
    shown.parent.mkdir()
    shown.write_text(json.dumps(["of another pair", pair["caption"]]))
    measures = layout.measures(SOURCE) / "part-00000.parquet"
    old = schemas.MEASURES.with_metadata({"schema": "measures", "version": "3"})
    write_parquet(measures, read_parquet(measures, schemas.MEASURES), old)
    record = json.loads(forgetting.forget(layout, plan_forgetting(layout, [])).read_text())
    assert not measures.exists(), "measures of an earlier edition are made again by the next collection"
    assert record["drawn_for_their_captions"] == ["generate-images-8", "train-transformer-7"]
    texts, pictures = words_of(pair)
    assert traces(layout.root, texts - {pair["caption"]}, pictures) == []


def test_requests_that_make_no_sense(layout, tmp_path):
    nothing = "nothing that was collected matches url http://nowhere.org/; correct it, or keep it out .* with --in-advance"
    with pytest.raises(ValueError, match=nothing):
        plan_forgetting(layout, [Request("url", "http://nowhere.org/")])
    good = Request("url", "http://127.0.0.1/0.png")
    with pytest.raises(ValueError, match=nothing):
        plan_forgetting(layout, [good, Request("url", "http://nowhere.org/")])
    assert plan_forgetting(layout, [Request("url", "http://nowhere.org/")], in_advance=True).blocks
    with pytest.raises(ValueError, match="--pair 12: nothing that was collected matches|nothing that was collected matches pair 12"):
        plan_forgetting(layout, [Request("pair", "12")])
    with pytest.raises(ValueError, match="--pair x: a pair's id is a whole number; correct it"):
        plan_forgetting(layout, [Request("pair", "x")])
    with pytest.raises(ValueError, match="--sha256 12: a SHA-256 has 64 hex digits; correct it"):
        plan_forgetting(layout, [Request("sha256", "12")])
    with pytest.raises(ValueError, match="cannot be read .No such file"):
        plan_forgetting(layout, [Request("like", str(tmp_path / "none.png"))])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="is no picture that can be read"):
        plan_forgetting(layout, [Request("like", str(tmp_path / "text.png"))])
    assert not layout.blocked.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"address\nhttp://x/\n", "its first line must name the columns kind and value"),
        (b"kind,value\nurl,http://x/\nuri,http://y/\n", "line 3: kind 'uri' is none of url, page, host, pair, sha256, like"),
        (b"kind,value\nurl,\n", "line 2: it has no value"),
        (b"kind,value\n", "holds no request"),
        (b"kind,value\nurl,\xff\n", "is not UTF-8 at byte 15"),
    ],
)
def test_a_file_of_requests_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "requests.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_requests(path)


def test_a_file_of_requests(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("\ufeffkind,value,reason\nhost,example.com,\nlike,a.png,letter 3\n", encoding="utf-8")
    assert [(request.kind, request.value, request.reason) for request in read_requests(path)] == [
        ("host", "example.com", ""),
        ("like", str(tmp_path / "a.png"), "letter 3"),
    ]


def test_nobody_else_may_be_at_work(layout):
    plan = plan_forgetting(layout, [Request("url", "http://127.0.0.1/0.png")])
    with held(layout.run("train-dvae-2") / "lock"), pytest.raises(ValueError, match="run train-dvae-2 is going on .*; forget when it has"):
        forgetting.forget(layout, plan)
    with held(layout.source(SOURCE) / "lock"), pytest.raises(ValueError, match="is in use by process .*; forget when it has ended"):
        forgetting.forget(layout, plan)
    assert not layout.blocked.exists()
    shutil.rmtree(layout.root / "training_sets")
    assert read_parquet(layout.pairs(SOURCE) / "part-00000.parquet", schemas.PAIRS).num_rows == 8
