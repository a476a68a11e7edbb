"""The shared training loop: same numbers after a crash, kept weights, loud failures."""

import errno
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from dalle_model.config.training import TrainConfig
from dalle_model.training import checkpoints
from dalle_model.training.checkpoints import list_training_states
from dalle_model.training.loop import MetricAverage, derive_seed, train
from dalle_model.training.metrics import read_metrics
from dalle_model.training.spikes import SpikeWatch
from dalle_model.weights import load_weights, save_weights


def settings(**changes: Any) -> TrainConfig:
    values = {
        "max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "final_learning_rate": 1e-3, "log_every": 5,
        "validate_every": 4, "checkpoint_every": 4, "ema_decay": 0.9, "clip_norm": 1.0, "weight_decay": 0.1,
        "patience": 0,
    }  # fmt: skip
    return TrainConfig(**(values | changes))


def batches(step: int) -> Any:
    while True:
        generator = torch.Generator().manual_seed(step)
        yield {"x": torch.randn(8, 3, generator=generator)}
        step += 1


def noisy_loss(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
    x = batch["x"]
    target = x.sum(1, keepdim=True) + 0.1 * torch.randn(len(x), 1)
    return {"loss": (model(x) - target).square().mean()}


def distance(model: nn.Module) -> dict[str, float]:
    return {"loss": float(model(torch.ones(1, 3)).abs().sum())}


def run(run_dir: Path, config: TrainConfig, loss: Any = noisy_loss, validate: Any = distance) -> dict[str, torch.Tensor]:
    run_dir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    result = train(
        model=model, config=config, batches=batches, compute_loss=loss, run_dir=run_dir, seed=7,
        report=lambda *_, **__: None, validate=validate,
    )  # fmt: skip
    assert result.step == config.max_steps
    assert result.train.keys() >= {"loss"}
    assert result.validation == distance(model)
    return model.state_dict()


class PulledPlug(Exception):
    pass


@pytest.mark.parametrize("crash_at", [1, 5, 8, 11])
def test_a_killed_training_computes_the_same_numbers(tmp_path: Path, crash_at: int) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())

    def crashing(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        if step == crash_at:
            raise PulledPlug
        return noisy_loss(model, batch, step)

    with pytest.raises(PulledPlug):
        run(tmp_path / "killed", settings(), crashing)
    continued = run(tmp_path / "killed", settings())
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)
    assert read_metrics(tmp_path / "killed" / "metrics.jsonl") == read_metrics(tmp_path / "undisturbed" / "metrics.jsonl")


@pytest.fixture
def terminated() -> Any:
    """SIGTERM is `SystemExit(143)`, as in a job."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def interruptible() -> Any:
    """SIGINT is `KeyboardInterrupt`, as in a terminal. A shell's background jobs begin with ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signalled(number: int, function: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """`function`, in whose call of that number, counted from 1, this process gets a signal."""
    calls = []

    def call(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at_call:
            os.kill(os.getpid(), number)
        return function(*arguments)

    return call


@pytest.mark.parametrize("step", [2, 3, 4, 7, 12])
def test_sigterm_saves_the_state_of_its_update_and_nothing_is_lost(
    tmp_path: Path, terminated: None, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "run", settings(), signalled(signal.SIGTERM, noisy_loss, step))
    assert ended.value.code == 143
    assert list_training_states(tmp_path / "run")[-1].name == f"step-{step:06d}"
    assert f"told to end by SIGTERM: the state of step {step} is saved; run the same command again to continue" in caplog.text
    updates = []
    continued = run(tmp_path / "run", settings(), lambda *given: updates.append(given[2]) or noisy_loss(*given))
    assert updates == list(range(step, 12))
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == read_metrics(tmp_path / "undisturbed" / "metrics.jsonl")


@pytest.mark.parametrize(("look", "step"), [(1, 1), (2, 4), (4, 12)])
def test_sigterm_during_validation_is_not_forgotten(tmp_path: Path, terminated: None, look: int, step: int) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())
    with pytest.raises(SystemExit):
        run(tmp_path / "run", settings(), validate=signalled(signal.SIGTERM, distance, look))
    assert list_training_states(tmp_path / "run")[-1].name == f"step-{step:06d}"
    continued = run(tmp_path / "run", settings())
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == read_metrics(tmp_path / "undisturbed" / "metrics.jsonl")


def test_the_first_ctrl_c_saves_and_the_second_ends_at_once(tmp_path: Path, interruptible: None) -> None:
    twice = signalled(signal.SIGINT, signalled(signal.SIGINT, noisy_loss, 6), 6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", settings(), twice)
    assert [path.name for path in list_training_states(tmp_path / "twice")] == ["step-000004"]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "once", settings(), signalled(signal.SIGINT, noisy_loss, 6))
    assert list_training_states(tmp_path / "once")[-1].name == "step-000006"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_sigterm_does_not_disturb_the_saving(tmp_path: Path, terminated: None) -> None:
    twice = signalled(signal.SIGTERM, signalled(signal.SIGTERM, noisy_loss, 6), 6)  # as from a launcher and the kernel
    with pytest.raises(SystemExit):
        run(tmp_path, settings(), twice)
    assert list_training_states(tmp_path)[-1].name == "step-000006"


def test_checkpoints_go_by_time_too(tmp_path: Path) -> None:
    run(tmp_path / "by_time", settings(checkpoint_every=1_000, checkpoint_every_s=1e-9))
    assert [path.name for path in list_training_states(tmp_path / "by_time")] == ["step-000010", "step-000011"]
    run(tmp_path / "by_updates", settings(checkpoint_every=1_000, checkpoint_every_s=0))
    run(tmp_path / "in_an_hour", settings(checkpoint_every=1_000, checkpoint_every_s=3_600))
    assert list_training_states(tmp_path / "by_updates") == list_training_states(tmp_path / "in_an_hour") == []
    with pytest.raises(ValueError, match="checkpoint_every_s=-1 must be at least 0; 0 goes by updates alone"):
        settings(checkpoint_every_s=-1)


def test_gradient_accumulation_changes_nothing(tmp_path: Path) -> None:
    def plain_loss(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        return {"loss": model(batch["x"]).square().mean()}

    whole = run(tmp_path / "whole", settings(), plain_loss)
    parts = run(tmp_path / "parts", settings(microbatch_size=2), plain_loss)
    torch.testing.assert_close(whole, parts)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path / "run", settings(checkpoint_every=2, keep_checkpoints=2))
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000008", "step-000010"]


def test_the_best_weights_are_kept_beside_the_newest(tmp_path: Path) -> None:
    losses = iter([5.0, 3.0, 4.0, 4.0])
    seen = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"loss": next(losses)}

    train(
        model=nn.Linear(3, 1), config=settings(), batches=batches, compute_loss=noisy_loss, run_dir=tmp_path, seed=7,
        report=lambda *_, **__: None, validate=validate,
    )  # fmt: skip
    config, weights, _ = load_weights(tmp_path / "checkpoints" / "best", "best")
    assert config == {"step": 4, "loss": 3.0}
    assert all(torch.equal(weights[name], seen[1][name]) for name in weights)
    assert not any(torch.equal(weights[name], seen[3][name]) for name in weights)


def looks(*losses: float) -> Any:
    """A `validate` that returns these losses, and the weights it saw."""
    following, seen = iter(losses), []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"loss": next(following)}

    return validate, seen


def train_to(run_dir: Path, config: TrainConfig, validate: Any, loss: Any = noisy_loss) -> tuple[Any, dict[str, torch.Tensor]]:
    run_dir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    result = train(
        model=model, config=config, batches=batches, compute_loss=loss, run_dir=run_dir, seed=7,
        report=lambda *_, **__: None, validate=validate,
    )  # fmt: skip
    return result, model.state_dict()


@pytest.mark.parametrize(("keep", "step", "loss"), [("best", 4, 3.0), ("last", 12, 4.0)])
def test_the_best_weights_are_published_or_the_last_ones_by_choice(tmp_path: Path, keep: str, step: int, loss: float) -> None:
    validate, seen = looks(5.0, 3.0, 4.0, 4.0)
    result, weights = train_to(tmp_path, settings(keep_weights=keep), validate)
    assert (result.step, result.kept_step, result.validation) == (12, step, {"loss": loss})
    assert all(torch.equal(weights[name], value) for name, value in seen[step // 4].items())


def test_training_stops_when_validation_has_turned_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    validate, seen = looks(5.0, 3.0, 3.02, 4.0)
    result, weights = train_to(tmp_path, settings(patience=2, max_steps=40), validate)
    assert (result.step, result.kept_step, result.validation) == (12, 4, {"loss": 3.0})
    assert all(torch.equal(weights[name], value) for name, value in seen[1].items())
    assert set(result.train) >= {"loss"}
    assert "stopped at update 12 of 40: the validation loss was 3 at update 4 and is 4 now; the weights of update 4 are kept" in caplog.text


def test_a_plateau_is_no_turn_and_a_patience_of_0_never_stops(tmp_path: Path) -> None:
    validate, _ = looks(5.0, 3.0, 3.05, 3.05, 3.05)
    assert train_to(tmp_path / "plateau", settings(patience=1, max_steps=16), validate)[0].step == 16
    validate, _ = looks(5.0, 3.0, 9.0, 9.0, 9.0)
    assert train_to(tmp_path / "never", settings(patience=0, max_steps=16), validate)[0].step == 16


@pytest.mark.parametrize("crash_at", [3, 6, 11])
def test_a_killed_training_stops_where_an_undisturbed_one_stops(tmp_path: Path, crash_at: int) -> None:
    torch.manual_seed(0)
    best_bias = nn.Linear(3, 1).bias.detach() + 0.04  # passed after about four updates of 0.01

    def worse_and_worse(model: nn.Module) -> dict[str, float]:
        return {"loss": float((model.bias.detach() - best_bias).abs().sum())}

    def growing(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        if step == crash_at and not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            raise PulledPlug
        return {"loss": -model(batch["x"]).mean()}  # the bias grows with every update

    config = settings(patience=2, max_steps=40, ema_decay=0.0, weight_decay=0.0)
    (tmp_path / "crashed").touch()
    undisturbed, weights = train_to(tmp_path / "undisturbed", config, worse_and_worse, growing)
    (tmp_path / "crashed").unlink()
    with pytest.raises(PulledPlug):
        train_to(tmp_path / "killed", config, worse_and_worse, growing)
    continued, again = train_to(tmp_path / "killed", config, worse_and_worse, growing)
    assert undisturbed.step < 40
    assert (continued.step, continued.kept_step, continued.validation) == (undisturbed.step, undisturbed.kept_step, undisturbed.validation)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path / "run", settings())
    newest = tmp_path / "run" / "checkpoints" / "step-000008"
    with (newest / "__0_0.distcp").open("r+b") as file:
        file.seek(100)
        file.write(b"!")
    with pytest.raises(ValueError, match=r"step-000008/__0_0.distcp does not match .* delete .*step-000008"):
        run(tmp_path / "run", settings())
    shutil.rmtree(newest)
    undisturbed = run(tmp_path / "undisturbed", settings())
    assert all(torch.equal(value, undisturbed[name]) for name, value in run(tmp_path / "run", settings()).items())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", settings())
    with pytest.raises(
        ValueError, match=r"step-000008: bias is \[1\] in the checkpoint and \[2\] in this configuration .* delete its check"
    ):
        train(
            model=nn.Linear(3, 2), config=settings(), batches=batches, compute_loss=noisy_loss, run_dir=tmp_path / "run", seed=7,
            report=lambda *_, **__: None,
        )  # fmt: skip


def test_a_loss_that_is_not_finite_stops_with_a_remedy_and_the_batch(tmp_path: Path) -> None:
    def exploding(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        return {"loss": model(batch["x"]).mean() * (float("nan") if step == 6 else 1.0)}

    with pytest.raises(ValueError, match=r"the loss became nan at step 7; its batch is in .*run/failed_batch-0.safetensors; lower"):
        run(tmp_path / "run", settings(clip_norm=0.0), exploding)
    assert torch.equal(load_file(tmp_path / "run" / "failed_batch-0.safetensors")["x"], next(batches(6))["x"])
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000004"]


def test_a_gradient_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    def cornered(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        return {"loss": (model(batch["x"]) * 0).sqrt().mean()}

    with pytest.raises(ValueError, match=r"the gradient norm became nan at step 1; its batch is in"):
        run(tmp_path / "run", settings(), cornered)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())
    write = FileSystemWriter.write_data

    def full_at_8(writer: FileSystemWriter, *arguments: Any) -> Any:
        if "step-000008" in str(writer.path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(writer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(FileSystemWriter, "write_data", full_at_8)
        told = r"checkpoint of step 8 could not be written \(.*No space left on device in process 0\); the one before it is kept, so make"
        with pytest.raises(OSError, match=told):
            run(tmp_path / "run", settings())
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000004"]
    continued = run(tmp_path / "run", settings())
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)


def test_a_checkpoint_is_written_while_training_goes_on_and_holds_the_state_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())
    at_step_6, begun = threading.Event(), threading.Event()
    save = checkpoints.save

    def slow_save(*arguments: Any, **options: Any) -> None:
        begun.set()
        assert at_step_6.wait(60), "training waits for its checkpoint"
        save(*arguments, **options)

    def loss(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        if step == 6:
            assert begun.wait(60)
            at_step_6.set()
        if step == 8:
            raise PulledPlug
        return noisy_loss(model, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", slow_save)
        with pytest.raises(PulledPlug):
            run(tmp_path / "run", settings(max_steps=12, checkpoint_every=5), loss)
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000005"]
    continued = run(tmp_path / "run", settings(checkpoint_every=5))
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)


def test_what_was_being_written_when_the_process_was_killed_is_begun_anew(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings())
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "run")
    newest = list_training_states(tmp_path / "run")[-1]
    (newest / "state.json").unlink()
    newest.rename(newest.with_suffix(".partial"))
    continued = run(tmp_path / "run", settings())
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000004", "step-000008"]
    assert not [*(tmp_path / "run" / "checkpoints").glob("*.partial")]


def test_a_state_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    earlier = tmp_path / "run" / "checkpoints" / "step-000004"
    earlier.mkdir(parents=True)
    (earlier / "state.json").write_text(json.dumps({"step": 4, "sha256": {"model.safetensors": "0"}}))
    with pytest.raises(ValueError, match=r"step-000004 is of an earlier version, which cannot be continued; delete .*checkpoints to begin"):
        run(tmp_path / "run", settings())


def test_the_newest_state_is_the_one_of_the_largest_step(tmp_path: Path) -> None:
    for name in ("step-999000", "step-1000000", "step-1001000.partial"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in list_training_states(tmp_path)] == ["step-999000", "step-1000000"]


def spiky_loss(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
    losses = noisy_loss(model, batch, step)
    return {"loss": losses["loss"] * (1_000 if step == 100 else 1)}


def test_a_spike_is_reported_and_its_batch_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "run", settings(max_steps=104, checkpoint_every=80), spiky_loss)
    path = tmp_path / "run" / "spikes" / "step-000101-0.safetensors"
    assert torch.equal(load_file(path)["x"], next(batches(100))["x"])
    (told,) = [message for message in caplog.messages if message.startswith("spike")]
    assert re.search(
        rf"spike at step 101: loss \S+ \(\S+ before\), gradient norm .*; its batch is in {path}; skip_spikes=true would leave", told
    )
    # The metrics that a spike is compared with are part of a checkpoint.
    shutil.rmtree(tmp_path / "run" / "spikes")
    run(tmp_path / "run", settings(max_steps=104, checkpoint_every=80), spiky_loss)
    assert path.exists()


def test_a_spike_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"max_steps": 101, "ema_decay": 0.0, "clip_norm": 1e9, "checkpoint_every": 100, "keep_weights": "last"}
    before = run(tmp_path / "before", settings(**changes | {"max_steps": 100}, schedule="constant"), spiky_loss)
    skipped = run(tmp_path / "skipped", settings(**changes, skip_spikes=True, schedule="constant"), spiky_loss)
    taken = run(tmp_path / "taken", settings(**changes, schedule="constant"), spiky_loss)
    assert all(torch.equal(skipped[name], value) for name, value in before.items())
    assert not any(torch.equal(taken[name], value) for name, value in before.items())
    assert "the update was left out" in caplog.text


def test_an_fp16_training_leaves_spikes_out_too(tmp_path: Path) -> None:
    changes = {"max_steps": 104, "ema_decay": 0.0, "clip_norm": 0.0, "precision": "fp16", "skip_spikes": True}
    assert all(value.isfinite().all() for value in run(tmp_path / "run", settings(**changes), spiky_loss).values())


def test_norms_of_branches_are_logged(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    train(
        model=model, config=settings(max_steps=1, clip_norm=1e9), batches=batches, compute_loss=noisy_loss, run_dir=tmp_path, seed=7,
        report=lambda *_, **__: None, branches=lambda m: {"a": [m], "b": [m, m]},
    )  # fmt: skip
    lines = {line["split"]: line for line in read_metrics(tmp_path / "metrics.jsonl")}
    assert lines["gradients"]["a"] == pytest.approx(lines["train"]["gradient_norm"])
    assert lines["gradients"]["b"] == pytest.approx(2**0.5 * lines["gradients"]["a"])


def test_speed_is_kept_apart_from_the_metrics(tmp_path: Path) -> None:
    run(tmp_path / "run", settings())
    lines = [json.loads(line) for line in (tmp_path / "run" / "speed.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(line["pairs_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 and line["num_processes"] == 1 for line in lines)


def test_seeds_of_neighbouring_steps_differ() -> None:
    assert len({derive_seed(seed, step) for seed in range(20) for step in range(200)}) == 4_000


def test_weights_round_trip_and_damage_is_found(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    identity = save_weights(tmp_path / "w", "toy", model.state_dict(), {"width": 2})
    config, weights, loaded_id = load_weights(tmp_path / "w", "toy")
    assert config == {"width": 2}
    assert loaded_id == identity
    assert torch.equal(weights["weight"], model.weight)
    with pytest.raises(ValueError, match="holds a toy checkpoint, expected a clip checkpoint"):
        load_weights(tmp_path / "w", "clip")
    with pytest.raises(ValueError, match=r"holds no toy checkpoint .* train one first"):
        load_weights(tmp_path / "elsewhere", "toy")
    saved = json.loads((tmp_path / "w" / "config.json").read_text())
    (tmp_path / "w" / "config.json").write_text(json.dumps({**saved, "weights_sha256": "0"}))
    with pytest.raises(ValueError, match="damaged or was replaced"):
        load_weights(tmp_path / "w", "toy")


def test_fp16_skips_updates_that_overflow_and_scales_less(tmp_path: Path) -> None:
    # The loss is scaled by 65,536 at first; gradients of about 100 times that are beyond the largest fp16 number.
    def steep_loss(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        assert torch.is_autocast_enabled("cpu")
        y = model(batch["x"])
        assert y.dtype == torch.float16
        return {"loss": 100 * y.float().sum(1).square().mean()}

    config = settings(precision="fp16", max_steps=1, weight_decay=0.0, ema_decay=0.0, clip_norm=0.0)
    torch.manual_seed(0)
    before = nn.Linear(3, 1).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in run(tmp_path / "one", config, steep_loss).items())
    longer = settings(precision="fp16", max_steps=40, checkpoint_every=30, weight_decay=0.0, ema_decay=0.0, clip_norm=0.0)
    after = run(tmp_path / "forty", longer, steep_loss)
    assert float(after["weight"].norm()) < float(before["weight"].norm())
    state = json.loads((list_training_states(tmp_path / "forty")[-1] / "state.json").read_text())
    assert 1 <= state["scaler"]["scale"] < 65_536


def test_an_overflow_in_fp16_spoils_neither_the_logged_norm_nor_the_watch() -> None:
    window, watch = MetricAverage(), SpikeWatch()
    for step in range(80):
        figures = {"loss": 1.0 + step % 2 / 100, "gradient_norm": math.inf if step == 3 else 2.0 + step % 2}
        window.add(figures)
        assert watch.look(figures) == ""
    assert window.means()["gradient_norm"] == pytest.approx(2.5, abs=0.01)
    assert watch.look({"loss": 9.0, "gradient_norm": 99.0}) == "loss 9 (1.005 before), gradient norm 99 (2.494 before)"
    window = MetricAverage(**json.loads(json.dumps(asdict(window))))
    assert window.num_left_out == {"gradient_norm": 1}
    overflown = MetricAverage()
    overflown.add({"gradient_norm": math.inf})
    assert math.isnan(overflown.means()["gradient_norm"])


def test_a_killed_fp16_training_continues_with_its_scale(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", settings(precision="fp16"))

    def crashing(model: nn.Module, batch: Any, step: int) -> dict[str, torch.Tensor]:
        if step == 9:
            raise PulledPlug
        return noisy_loss(model, batch, step)

    with pytest.raises(PulledPlug):
        run(tmp_path / "killed", settings(precision="fp16"), crashing)
    resumed = run(tmp_path / "killed", settings(precision="fp16"))
    assert all(torch.equal(resumed[name], value) for name, value in undisturbed.items())
