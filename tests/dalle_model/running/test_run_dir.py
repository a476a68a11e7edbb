"""Run directories: named by what decides the result, finished or not, never half."""

import json
from pathlib import Path
from typing import Any

import pytest

from dalle_datasets.store.locks import held
from dalle_model.config.parsing import from_dict
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.jobs import train_bpe
from dalle_model.running.run_dir import JobRun, execute, has_crashed, open_run, prepare, read_result, run_directory


def prepared(tmp_path: Path, **overrides: Any) -> Path:
    return prepare("train_bpe", preset("demo", {"paths.data_root": str(tmp_path), **overrides}), {"pairs": "pairs/web", "pairs_id": "1"})


def test_only_what_decides_the_result_names_the_run(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    assert prepared(tmp_path) == first
    assert prepared(tmp_path, **{"transformer.num_layers": 2}) == first
    assert prepared(tmp_path, **{"tokenizer.vocab_size": 300}) != first
    assert prepared(tmp_path, seed=1) != first


def test_how_often_a_training_saves_its_state_does_not_name_the_run(tmp_path: Path) -> None:
    first, second = (
        run_directory("train_dvae", preset("demo", {"paths.data_root": str(tmp_path), "train_dvae.checkpoint_every_s": seconds}), {})
        for seconds in (5.0, 900.0)
    )
    assert first == second


OLD_ROOT = json.loads((Path(__file__).parent / "old_root.json").read_text())
"""The runs of a demo that an earlier version made: their settings and inputs."""


@pytest.mark.parametrize("run_id", OLD_ROOT["runs"])
def test_runs_of_earlier_versions_are_found_again(run_id: str, tmp_path: Path) -> None:
    run = OLD_ROOT["runs"][run_id]
    config = from_dict(Config, {**OLD_ROOT["config"], "paths": {"data_root": str(tmp_path)}})
    assert run_directory(run["job"], config, run["inputs"]).name == run_id


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(train_bpe, "run", lambda run: calls.append(run) or {"answer": 42})
    run_dir = prepared(tmp_path)
    first = execute("train_bpe", run_dir)
    assert execute("train_bpe", run_dir) == first == read_result(run_dir)
    assert len(calls) == 1
    assert first["answer"] == 42
    assert first["run_id"] == run_dir.name
    assert (run_dir / "status").read_text() == "done"
    assert json.loads((run_dir / "job.json").read_text())["versions"]["open-dalle"]


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(train_bpe, "run", lambda run: {"answer": 42})
    run_dir = prepared(tmp_path)
    execute("train_bpe", run_dir)
    assert [path.name for path in run_dir.iterdir()] == ["config.json"]


def test_a_job_for_one_process_is_refused_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"train_bpe runs in one process, not in 2; only train_dvae, .* run in several"):
        open_run("train_bpe", prepared(tmp_path))


def test_a_fault_in_any_process_is_told_from_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = prepared(tmp_path)
    assert not has_crashed(run_dir), "not begun"

    def ended_by(error: BaseException, rank: str) -> None:
        def fail(run: JobRun) -> dict[str, Any]:
            raise error

        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(train_bpe, "run", fail)
        with pytest.raises(type(error)):
            execute("train_bpe", run_dir)

    for rank, error, crashed in [
        ("0", ConnectionError("another process is gone"), True),
        ("1", SystemExit(143), True),
        ("0", ZeroDivisionError(), False),
        ("0", SystemExit(143), True),
        ("1", ValueError("nan"), False),
    ]:
        ended_by(error, rank)
        assert has_crashed(run_dir) == crashed, error

    def lose_the_other(run: JobRun) -> dict[str, Any]:
        (run_dir / "status").write_text("failed")  # as process 1 does, which this one hears nothing more of
        raise ConnectionError("another process is gone")

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(train_bpe, "run", lose_the_other)
    with pytest.raises(ConnectionError):
        execute("train_bpe", run_dir)
    assert not has_crashed(run_dir)
    (run_dir / "status").write_text("running")  # as a killed process leaves it
    assert has_crashed(run_dir)
    with held(run_dir / "lock"):
        assert not has_crashed(run_dir)


def test_a_failed_run_leaves_no_result_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: JobRun) -> dict[str, Any]:
        raise ValueError("no captions")

    monkeypatch.setattr(train_bpe, "run", fail)
    run_dir = prepared(tmp_path)
    with pytest.raises(ValueError, match="no captions"):
        execute("train_bpe", run_dir)
    assert (run_dir / "status").read_text() == "failed"
    assert read_result(run_dir) is None


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    run = open_run("train_bpe", prepared(tmp_path))
    with pytest.raises(ValueError, match=r"train_bpe: input pairs = .*pairs/web does not exist; run the stage that makes it"):
        run.input_path("pairs")
    with pytest.raises(ValueError, match="input 'dvae' is missing"):
        run.input_path("dvae")


def test_wrong_run_directories_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no config.json"):
        open_run("train_bpe", tmp_path)
    run_dir = prepared(tmp_path)
    with pytest.raises(ValueError, match="is for job 'train_bpe', not 'train_clip'"):
        open_run("train_clip", run_dir)
    (run_dir / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        open_run("train_bpe", run_dir)
    with pytest.raises(ValueError, match="job 'paint' does not exist; choose one of"):
        prepare("paint", preset("demo"), {})


def test_looking_for_a_run_creates_nothing(tmp_path: Path) -> None:
    config = preset("demo", {"paths.data_root": str(tmp_path / "data")})
    looked_for = run_directory("train_bpe", config, {"pairs": "pairs/web", "pairs_id": "1"})
    assert not (tmp_path / "data").exists()
    assert prepare("train_bpe", config, {"pairs": "pairs/web", "pairs_id": "1"}) == looked_for
