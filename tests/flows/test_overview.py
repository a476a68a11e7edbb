"""What lies under a data root: made, running, stopped, or waiting for something."""

import fcntl
import time
from pathlib import Path

import pytest

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit
from dalle_model.config.parsing import meanings, to_dict
from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.tree import Config
from dalle_model.running.networks import register
from dalle_model.running.run_dir import prepare, write_json
from flows.cli.main import main
from flows.runtime.collected import collecting
from flows.runtime.overview import newest_runs, stages, state_of
from flows.runtime.upstream import inputs_of


@pytest.fixture
def config(tmp_path):
    return preset("demo", {"paths.data_root": str(tmp_path)})


@pytest.fixture
def run_dir(config, tmp_path):
    with collecting(Layout(tmp_path), config):
        folder = Layout(tmp_path).pairs(config.source.name)
        folder.mkdir(parents=True)
        commit(folder, "inputs", {"pairs_id": "pairs0"})
    return prepare("train_bpe", config, inputs_of("train_bpe", config))


def test_nothing_is_there_yet(config):
    first, *others = stages(config)
    assert (first.what, first.state) == ("collect pairs", "missing")
    assert "run `dalle run collect_pairs`" in first.detail
    assert {status.state for status in others} == {"waiting"}
    assert others[0].detail == "for pairs"


def test_finished_stages_have_ids_and_the_next_can_begin(config, run_dir):
    made = {"tokenizer_id": "bpe0", "tokenizer": "tokenizers/bpe0", "started_at": time.time() - 3, "duration_s": 3.0}
    write_json(run_dir / "result.json", made)
    (Path(config.paths.data_root) / "tokenizers" / "bpe0").mkdir(parents=True)
    by_name = {status.what: status for status in stages(config)}
    assert by_name["collect pairs"].detail == "pairs/emoji_scenes, pairs pairs0"
    assert by_name["train bpe"].state == "done"
    assert by_name["train bpe"].detail.startswith(f"tokenizer bpe0, run {run_dir.name}, 20")
    assert by_name["train dvae"].state == "missing"
    assert by_name["train clip"].detail == "for dvae"


def test_a_current_network_stands_for_one_of_the_pairs_of_today(config, run_dir):
    layout = Layout(Path(config.paths.data_root))
    layout.tokenizer("bpe0").mkdir(parents=True)
    made = {"tokenizer_id": "bpe0", "tokenizer": "tokenizers/bpe0"}
    register(layout, "train_bpe", config, {"pairs_id": "pairs0"}, run_dir.name, made)
    commit(layout.pairs(config.source.name), "other inputs", {"pairs_id": "pairs1"})
    with collecting(layout, config):
        pass
    by_name = {status.what: status for status in stages(config)}
    assert by_name["collect pairs"].detail == "pairs/emoji_scenes, pairs pairs1"
    assert (by_name["train bpe"].state, by_name["tokenize captions"].state) == ("done", "missing")
    assert by_name["train bpe"].detail == f"tokenizer bpe0 is current, run {run_dir.name}; `dalle run retrain_networks` trains anew"


@pytest.mark.parametrize("lock", ["lock", "claims/part-00000"])
def test_a_run_is_running_while_a_process_holds_a_lock_and_stopped_afterwards(run_dir, lock):
    (run_dir / "status").write_text("running")
    write_json(run_dir / "progress.json", {"done": 2, "total": 5, "unit": "steps", "numbers": {}})
    (run_dir / "log.txt").write_text("step 2\nno space left\n\n")
    (run_dir / lock).parent.mkdir(exist_ok=True)
    with (run_dir / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert state_of(run_dir) == ("running", "2/5 steps")
    assert state_of(run_dir) == ("stopped", "2/5 steps; goes on there when it is run again (no space left)")


def test_a_result_whose_files_are_gone_does_not_count(run_dir):
    write_json(run_dir / "result.json", {"checkpoint": "runs/x/checkpoint", "started_at": 0.0, "duration_s": 1.0})
    assert state_of(run_dir) == ("missing", "made, but runs/x/checkpoint is gone")


def test_the_newest_runs_come_first(config, run_dir, tmp_path):
    later = prepare("train_dvae", config, inputs_of("train_dvae", config))
    time.sleep(0.01)
    (later / "status").write_text("failed")
    assert [status.what for status in newest_runs(Layout(tmp_path), 5)] == [later.name, run_dir.name]
    assert [status.what for status in newest_runs(Layout(tmp_path), 1)] == [later.name]


def test_status_is_printed_and_changes_nothing(config, run_dir, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["status", "--set", f"paths.data_root={tmp_path}"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "train bpe" in printed
    assert run_dir.name in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_status_of_no_data_root(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--set", f"paths.data_root={tmp_path / 'none'}"])
    assert ended.value.code == 2
    assert "none does not exist yet; `dalle demo` fills it" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_every_setting_is_shown_with_its_meaning(capsys):
    said = meanings(Config)
    for name in PRESETS:
        values = to_dict(preset(name))
        paths = [f"{section}.{field}" for section, fields in values.items() if isinstance(fields, dict) for field in fields]
        assert [path for path in [*paths, "seed"] if not said.get(path)] == []
    with pytest.raises(SystemExit):
        main(["config", "show", "--preset", "demo", "--section", "flow"])
    lines = capsys.readouterr().out.splitlines()
    place = lines.index('pool = ""')
    assert lines[place - 1].startswith("# Prefect work pool whose machines run trainings")
