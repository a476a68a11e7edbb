"""`dalle train`: which source is meant, what is refused, and that measuring answers."""

import io
import json
import time

import pyarrow as pa
import pytest
import torch

from dalle_datasets.config import FilterConfig
from dalle_datasets.sources.documents import list_documents
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS
from dalle_model import measuring
from dalle_model.config.presets import preset
from dalle_model.planning import SIZES, Look, Machine, Times, size_settings
from flows.cli.main import main
from flows.cli.summary import print_drops
from flows.cli.train import asking, keep_plan, read_plan, read_source


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "My birds!"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    return folder


def test_a_folder_keeps_one_word_captions_and_all_languages_and_a_crawl_the_rules_of_the_paper(pictures):
    own = preset("demo", read_source([str(pictures)]))
    assert (own.source.kind, own.source.name, own.source.inputs) == ("image_folders", "My-birds", (str(pictures),))
    assert (own.filter.min_caption_words, own.filter.languages) == (1, ())
    crawl = preset("demo", read_source(["https://example.org/birds/"]))
    assert (crawl.source.kind, crawl.source.start_urls) == ("web_pages", ("https://example.org/birds/",))
    assert (crawl.filter.min_caption_words, crawl.filter.languages) == (FilterConfig().min_caption_words, ("en",))


def test_tars_and_tables_are_known_by_their_names(tmp_path):
    (tmp_path / "tars").mkdir()
    for name in ("tars/a.tar", "b.tar", "c.parquet"):
        (tmp_path / name).write_bytes(b"")
    of_folder = read_source([str(tmp_path / "tars")])
    assert (of_folder["source.kind"], of_folder["source.inputs"]) == ("webdatasets", [f"{tmp_path}/tars/**/*.tar"])
    assert list_documents(tuple(of_folder["source.inputs"])) == [str(tmp_path / "tars/a.tar")]
    assert read_source([str(tmp_path / "b.tar")])["source.kind"] == "webdatasets"
    assert read_source([str(tmp_path / "c.parquet")])["source.kind"] == "url_tables"
    assert read_source(["https://example.org/urls.parquet"])["source.inputs"] == ["https://example.org/urls.parquet"]


def test_several_kinds_are_one_source_that_keeps_its_name(tmp_path, pictures):
    (tmp_path / "more.tar").write_bytes(b"")
    (tmp_path / "urls.csv").write_bytes(b"")
    several = [str(pictures), str(tmp_path / "more.tar"), str(tmp_path / "urls.csv"), "http://127.0.0.1:8000/"]
    mixed = preset("demo", read_source(several))
    assert (mixed.source.kind, mixed.source.name, mixed.source.start_urls) == ("mixed", "My-birds", ("http://127.0.0.1:8000/",))
    assert mixed.source.inputs == tuple(several[:3])
    assert (mixed.filter.min_caption_words, mixed.filter.near_duplicates) == (1, True)
    own = preset("demo", read_source(several[:2]))
    assert (own.source.kind, own.filter.near_duplicates) == ("mixed", False)
    fewer = preset("demo", read_source([str(tmp_path / "more.tar")], mixed.source))
    assert (fewer.source.kind, fewer.source.name) == ("webdatasets", "My-birds"), "so that the others are withdrawn"
    assert read_source(["https://example.org/"], mixed.source)["source.name"] == "example-org"


def test_what_cannot_be_learned_from_is_refused(tmp_path, pictures, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "root" / "pairs").mkdir(parents=True)
    (tmp_path / "song.mp3").write_bytes(b"")
    for sources, message in {
        (str(tmp_path / "empty"),): "is empty; put captioned pictures into it: NAME.png beside NAME.txt",
        (str(tmp_path / "none"),): "does not exist; give a folder of captioned pictures, a tar, a table, or an http(s) address",
        (str(tmp_path / "song.mp3"),): "is no folder, tar or table",
        (str(tmp_path / "root"),): "is a data root",
        (str(pictures), str(tmp_path / "song.mp3")): "is no folder, tar or table",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["train", *sources, "--set", f"paths.data_root={tmp_path / 'data'}"])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(pictures), "--budget", "soon"])
    assert "--budget soon: give a time such as 90s, 20m, 1.5h or 1d" in capsys.readouterr().err


def test_the_machine_is_measured_and_the_pairs_are_looked_at(tmp_path, monkeypatch, capsys):
    rows = [
        {
            "pair_id": i,
            "caption": caption,
            "split": split,
            "width": 40,
            "height": 30 + i,
            "image": b"",
            "sha256": "",
            "pixel_sha256": "",
            "num_caption_words": 1,
            "aspect_ratio": 1.0,
            "language": "en",
            "source": "mine",
            "page_url": "",
            "image_url": "",
            "candidate_id": "",
        }
        for i, (caption, split) in enumerate([("owl", "train"), ("An owl on a mat", "train"), ("owl", "validation")])
    ]
    table = pa.Table.from_pylist(rows, PAIRS.with_metadata(None))
    write_parts(tmp_path / "pairs", table, PAIRS, 10, 10)
    with asking() as ask:
        seen = ask({"pairs": str(tmp_path / "pairs")})
        look = Look(**seen["look"])
        machine = Machine(**seen["machine"])
        with pytest.raises(ValueError, match="this machine could not be measured: ValueError: transformer.num_layer: no such setting"):
            ask({"overrides": {"transformer.num_layer": 1}})
    assert (look.num_pairs, look.num_validation, look.num_captions, look.num_words, look.median_side) == (3, 1, 2, 5, 31)
    assert machine.fp32_flops > 0
    # The same program in this process, which has loaded torch.
    monkeypatch.setattr(measuring, "SECONDS", 0.01)
    monkeypatch.setattr("sys.argv", ["measuring", str(time.time() - 1)])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"overrides": size_settings(SIZES[0], look, machine)})))
    measuring.main()
    torch.set_flush_denormal(False)
    times = Times(**json.loads(capsys.readouterr().out))
    assert min(times.startup_s, times.dvae_s, times.clip_s, times.transformer_s, times.encode_s, times.draw_s) > 0


def test_an_interrupted_command_goes_on_with_its_plan_and_another_one_does_not(tmp_path):
    path, chosen = tmp_path / "plan.json", {"source.inputs": ["a"], "seed": 1}
    assert read_plan(path, chosen, "p", "20m") is None
    keep_plan(path, chosen, "p", "20m", {"transformer.num_layers": 3})
    assert read_plan(path, chosen, "p", "20m") == {"transformer.num_layers": 3}
    assert read_plan(path, chosen, "p", "30m") is None
    assert read_plan(path, chosen, "other pairs", "20m") is None
    assert read_plan(path, {**chosen, "seed": 2}, "p", "20m") is None
    path.write_text(json.dumps([]))
    assert read_plan(path, chosen, "p", "20m") is None


def test_drops_are_said_with_the_setting_that_changes_them(capsys):
    print_drops(
        {
            "discover": {"num_candidates": 8, "dropped": {"no_caption": 1}},
            "download": {"dropped": {}},
            "filter": {"num_pairs": 5, "dropped": {"caption_short": 2, "too_small": 1}},
        }
    )
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "kept 5 of 8 candidates (62%)"
    assert "  dropped 2: too few words or letters; lower filter.min_caption_words or filter.min_caption_letters" in said
