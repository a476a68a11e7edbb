"""A flow started by itself finds what earlier flows made, by its settings alone, or says which flow to run."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from dalle_datasets.filters import filter_pairs as filtering
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit, invalidate
from dalle_model.config.parsing import with_overrides
from dalle_model.config.presets import preset
from dalle_model.running.networks import register
from dalle_model.running.registry import JOBS
from dalle_model.running.run_dir import prepare, write_json
from flows.runtime.collected import collecting
from flows.runtime.pipeline_result import finished_pipeline, pipeline_id, save_pipeline
from flows.runtime.progress import shown_on
from flows.runtime.stage_times import collected_times, timed, write_stage_times
from flows.runtime.upstream import find, find_named_training_set, inputs_of


class Recorder:
    """A display that remembers what was said."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def config(tmp_path):
    return preset("demo", {"paths.data_root": str(tmp_path)})


def pretend(config, job, **made):
    """A finished run of a job, with its files."""
    inputs = inputs_of(job, config)
    run_dir = prepare(job, config, inputs)
    for value in made.values():
        if "/" in value:
            (Path(config.paths.data_root) / value).mkdir(parents=True)
    register(Layout(Path(config.paths.data_root)), job, config, inputs, run_dir.name, made)
    write_json(run_dir / "result.json", made)


def collect(config, tmp_path):
    with collecting(Layout(tmp_path), config):
        folder = Layout(tmp_path).pairs(config.source.name)
        folder.mkdir(parents=True, exist_ok=True)
        commit(folder, "inputs", {"pairs_id": "pairs0"})


def test_without_pairs_nothing_can_start(config):
    for job in (entry.name for entry in JOBS.values() if entry.reads):
        with pytest.raises(
            ValueError, match="holds no finished collection of pairs; run `dalle run collect_pairs` with the same settings, or `dalle demo`"
        ):
            inputs_of(job, config)


def test_settings_lead_from_stage_to_stage(config, tmp_path):
    collect(config, tmp_path)
    with pytest.raises(ValueError, match="there is no tokenizer for these settings yet .*; run `dalle run train_tokenizers`"):
        inputs_of("train_clip", config)
    pretend(config, "train_bpe", tokenizer_id="bpe0", tokenizer="tokenizers/bpe0")
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    assert inputs_of("train_clip", config) == {
        "pairs": "pairs/emoji_scenes", "pairs_id": "pairs0", "tokenizer": "tokenizers/bpe0", "tokenizer_id": "bpe0",
        "dvae": "runs/dvae/checkpoint", "dvae_id": "vae0",
    }  # fmt: skip
    other = preset("demo", {"paths.data_root": str(tmp_path), "dvae.codebook_size": 128})
    assert find("tokenizer", other)["tokenizer_id"] == "bpe0", "the vocabulary does not depend on the codebook"
    with pytest.raises(ValueError, match="there is no dvae for these settings yet"):
        find("dvae", other)


def test_pairs_collected_with_other_settings_are_refused_and_the_difference_is_named(config, tmp_path):
    collect(config, tmp_path)

    def changed(**settings):
        return preset("demo", {"paths.data_root": str(tmp_path), **{name.replace("__", "."): value for name, value in settings.items()}})

    with pytest.raises(ValueError, match=r"emoji_scenes was collected with filter.min_side=32, not 64; run `dalle run collect_pairs` with"):
        find("pairs", changed(filter__min_side=64))
    with pytest.raises(
        ValueError, match="filter.min_side=32, not 64, filter.near_duplicates=False, not True, .*, and 1 more settings; run"
    ):
        find("pairs", changed(filter__min_side=64, filter__near_duplicates=True, source__num_scenes=64, shards__rows_per_part=7))
    assert find("pairs", changed(filter__min_side=64, flow__check_pairs=False))["pairs_id"] == "pairs0"
    assert find("pairs", changed(download__num_threads=1, source__port=8_000, dvae__codebook_size=128))["pairs_id"] == "pairs0"


def test_pairs_of_an_earlier_edition_of_the_stages_are_refused(config, tmp_path, monkeypatch):
    collect(config, tmp_path)
    before = pipeline_id(config)
    monkeypatch.setattr(filtering, "VERSION", filtering.VERSION + 1)
    with pytest.raises(ValueError, match=rf"was collected with version of filter={filtering.VERSION - 1}, not {filtering.VERSION}; run"):
        find("pairs", config)
    assert pipeline_id(config) != before, "`dalle demo` must not say that everything is there"


def test_pairs_whose_settings_nobody_knows_are_refused(config, tmp_path):
    collect(config, tmp_path)
    (Layout(tmp_path).pairs(config.source.name) / "settings.json").unlink()
    with pytest.raises(ValueError, match="emoji_scenes does not say with which settings it was collected; run `dalle run collect_pairs`"):
        find("pairs", config)


def test_the_settings_of_an_earlier_collection_do_not_vouch_for_pairs_of_a_killed_one(config, tmp_path):
    collect(config, tmp_path)
    with pytest.raises(KeyboardInterrupt), collecting(Layout(tmp_path), preset("demo", {"seed": 1})):
        raise KeyboardInterrupt
    assert find("pairs", config), "nothing had been touched yet"
    with pytest.raises(KeyboardInterrupt), collecting(Layout(tmp_path), preset("demo", {"filter.min_side": 64})):
        commit(Layout(tmp_path).pairs(config.source.name), "other inputs", {"pairs_id": "pairs1"})
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="does not say with which settings"):
        find("pairs", config)


def test_a_second_collection_of_a_source_waits_for_the_first_and_says_so(config, tmp_path):
    collect(config, tmp_path)
    recorder, order = Recorder(), []

    def second():
        with shown_on(recorder), collecting(Layout(tmp_path), config):
            order.append("second")

    thread = threading.Thread(target=second)
    with collecting(Layout(tmp_path), config):
        thread.start()
        while not recorder.notes:
            time.sleep(0.01)
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert f"source 'emoji_scenes' is being collected by process {os.getpid()} on" in recorder.notes[0]


def test_a_deleted_checkpoint_is_named(config, tmp_path):
    collect(config, tmp_path)
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    shutil.rmtree(tmp_path / "runs" / "dvae")
    with pytest.raises(
        ValueError, match=r"the current dvae vae0 is gone: runs/dvae/checkpoint does not exist .*`dalle networks use dvae ID`"
    ):
        find("dvae", config)
    with pytest.raises(ValueError, match=r"is gone: runs/dvae/checkpoint does not exist; run `dalle run train_tokenizers`"):
        find("dvae", with_overrides(config, {"networks.chosen_by": "settings"}))


def test_networks_serve_on_when_the_pairs_have_grown_unless_settings_are_to_decide(config, tmp_path):
    collect(config, tmp_path)
    pretend(config, "train_bpe", tokenizer_id="bpe0", tokenizer="tokenizers/bpe0")
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    with collecting(Layout(tmp_path), config):
        commit(Layout(tmp_path).pairs(config.source.name), "inputs", {"pairs_id": "pairs1"})
    assert inputs_of("tokenize_images", config) == {
        "pairs": "pairs/emoji_scenes", "pairs_id": "pairs1", "dvae": "runs/dvae/checkpoint", "dvae_id": "vae0",
    }  # fmt: skip
    with pytest.raises(ValueError, match="there is no dvae for these settings yet"):
        find("dvae", with_overrides(config, {"networks.chosen_by": "settings"}))


def test_pictures_are_drawn_with_the_networks_that_the_transformer_was_trained_with(config, tmp_path):
    collect(config, tmp_path)
    pretend(config, "train_bpe", tokenizer_id="bpe0", tokenizer="tokenizers/bpe0")
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    pretend(config, "train_clip", clip_id="clip0", checkpoint="runs/clip/checkpoint")
    inputs = {**find("dvae", config), **find("tokenizer", config), "training_set": "training_sets/set0", "training_set_id": "set0"}
    run_dir = prepare("train_transformer", config, inputs)
    made = {"transformer_id": "t0", "checkpoint": f"runs/{run_dir.name}/transformer"}
    (run_dir / "transformer").mkdir()
    register(Layout(tmp_path), "train_transformer", config, inputs, run_dir.name, made)
    with collecting(Layout(tmp_path), config):
        commit(Layout(tmp_path).pairs(config.source.name), "inputs", {"pairs_id": "pairs1"})
    pretend(config, "train_dvae", dvae_id="vae1", checkpoint="runs/dvae1/checkpoint")
    assert find("dvae", config)["dvae_id"] == "vae1"
    drawn = inputs_of("generate_images", config)
    assert {name: drawn[f"{name}_id"] for name in ("transformer", "dvae", "tokenizer", "clip")} == {
        "transformer": "t0", "dvae": "vae0", "tokenizer": "bpe0", "clip": "clip0",
    }  # fmt: skip
    with pytest.raises(ValueError, match="transformer t0 was trained with dvae vae0, not vae1; leave dvae=vae1 out, or name a transformer"):
        inputs_of("generate_images", with_overrides(config, {"networks.use": "dvae=vae1"}))
    assert inputs_of("generate_images", with_overrides(config, {"networks.use": "dvae=vae0"})) == drawn


def test_a_finished_pipeline_counts_only_with_all_its_files(config, tmp_path):
    layout = Layout(tmp_path)
    assert finished_pipeline(layout, config) is None
    results = {"filter": {"pairs_id": "pairs0"}, "train_bpe": {"tokenizer": "tokenizers/bpe0"}}
    save_pipeline(layout, config, {"report": "report/index.html", "results": results})
    invalidate(layout.pairs(config.source.name))
    commit(layout.pairs(config.source.name), "inputs", {"pairs_id": "pairs0"})
    assert finished_pipeline(layout, config) is None
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").touch()
    (tmp_path / "tokenizers" / "bpe0").mkdir(parents=True)
    assert finished_pipeline(layout, config)
    assert finished_pipeline(layout, preset("demo", {"paths.data_root": str(tmp_path), "seed": 1})) is None
    commit(layout.pairs(config.source.name), "other inputs", {"pairs_id": "collected again"})
    assert finished_pipeline(layout, config) is None


def test_the_place_of_the_data_does_not_name_the_pipeline(config):
    assert pipeline_id(config) == pipeline_id(preset("demo", {"paths.data_root": "elsewhere"}))


def test_stage_times_are_collected_in_order_and_written_once(tmp_path):
    with timed("before"):
        pass
    with collected_times() as times:
        with timed("train dvae"):
            pass
        with timed("train clip") as time:
            time.was_skipped = True
    assert [(record.stage, record.was_skipped) for record in times] == [("train dvae", False), ("train clip", True)]
    write_stage_times(tmp_path / "times.jsonl", times)
    assert len((tmp_path / "times.jsonl").read_text().splitlines()) == 2


def test_a_stage_that_fails_has_no_time():
    with collected_times() as times, pytest.raises(ZeroDivisionError), timed("train dvae"):
        raise ZeroDivisionError
    assert times == []


def test_a_training_set_is_named_by_its_id_and_trained_on_with_its_own_networks(config, tmp_path):
    collect(config, tmp_path)
    pretend(config, "train_bpe", tokenizer_id="bpe0", tokenizer="tokenizers/bpe0")
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    for name, dvae_id in (("a0", "vae0"), ("b0", "vae9")):
        path = Layout(tmp_path).training_set(name) / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"path": f"training_sets/{name}", "tokenizer_id": "bpe0", "dvae_id": dvae_id}))
    assert find_named_training_set("a0", config) == {"training_set": "training_sets/a0", "training_set_id": "a0"}
    with pytest.raises(ValueError, match="training set b0 has tokens of dvae vae9, but vae0 is in use; add --with dvae=vae9"):
        find_named_training_set("b0", config)
    for unknown in ("c0", "../a0"):
        with pytest.raises(ValueError, match="does not exist under .*; `dalle query training_sets` lists them"):
            find_named_training_set(unknown, config)
