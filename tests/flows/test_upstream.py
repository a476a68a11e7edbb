"""A flow started by itself finds what earlier flows made, by its settings alone, or says which flow to run."""

import shutil
from pathlib import Path

import pytest

from dalle_datasets.layout import Layout
from dalle_datasets.stage import finish
from dalle_model.config.presets import preset
from dalle_model.jobs.contract import prepare, write_json
from flows.runtime.pipeline_result import finished_pipeline, pipeline_id, save_pipeline
from flows.runtime.stage_times import collected_times, timed, write_stage_times
from flows.runtime.upstream import READS, find, inputs_of


@pytest.fixture
def config(tmp_path):
    return preset("demo", {"paths.data_root": str(tmp_path)})


def pretend(config, job, **made):
    """A finished run of a job, with its files."""
    run_dir = prepare(job, config, inputs_of(job, config))
    for value in made.values():
        if "/" in value:
            (Path(config.paths.data_root) / value).mkdir(parents=True)
    write_json(run_dir / "result.json", made)


def collect(config, tmp_path):
    folder = Layout(tmp_path).pairs(config.source.name)
    folder.mkdir(parents=True)
    finish(folder, "inputs", {"pairs_id": "pairs0"})


def test_without_pairs_nothing_can_start(config):
    for job in READS:
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


def test_a_deleted_checkpoint_is_named(config, tmp_path):
    collect(config, tmp_path)
    pretend(config, "train_dvae", dvae_id="vae0", checkpoint="runs/dvae/checkpoint")
    shutil.rmtree(tmp_path / "runs" / "dvae")
    with pytest.raises(ValueError, match=r"is gone: runs/dvae/checkpoint does not exist; run `dalle run train_tokenizers`"):
        find("dvae", config)


def test_a_finished_pipeline_counts_only_with_all_its_files(config, tmp_path):
    layout = Layout(tmp_path)
    assert finished_pipeline(layout, config) is None
    save_pipeline(layout, config, {"report": "report/index.html", "results": {"train_bpe": {"tokenizer": "tokenizers/bpe0"}}})
    assert finished_pipeline(layout, config) is None
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").touch()
    (tmp_path / "tokenizers" / "bpe0").mkdir(parents=True)
    assert finished_pipeline(layout, config)
    assert finished_pipeline(layout, preset("demo", {"paths.data_root": str(tmp_path), "seed": 1})) is None


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
