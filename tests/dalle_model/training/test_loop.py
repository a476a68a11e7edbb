"""The shared training loop: same numbers after a crash, kept weights, loud failures."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dalle_model.config.training import TrainConfig
from dalle_model.training.checkpoint import list_training_states, load_weights, save_weights
from dalle_model.training.loop import mix, train
from dalle_model.training.metrics import read_metrics


def settings(**changes: Any) -> TrainConfig:
    values = {
        "max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "final_learning_rate": 1e-3, "log_every": 5,
        "validate_every": 4, "checkpoint_every": 4, "ema_decay": 0.9, "clip_norm": 1.0, "weight_decay": 0.1,
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


def run(run_dir: Path, config: TrainConfig, loss: Any = noisy_loss) -> dict[str, torch.Tensor]:
    run_dir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    train(
        model=model, config=config, batches=batches, compute_loss=loss, run_dir=run_dir, seed=7,
        report=lambda *_, **__: None, validate=lambda m: {"loss": float(m(torch.ones(1, 3)).abs().sum())},
    )  # fmt: skip
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


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path / "run", settings())
    (tmp_path / "run" / "checkpoints" / "step-000008" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"step-000008/model.safetensors does not match .* delete .*step-000008"):
        run(tmp_path / "run", settings())


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
    save = torch.save

    def full_at_8(value: Any, path: Path) -> None:
        if "step-000008" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(value, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full_at_8)
        with pytest.raises(OSError, match="No space left on device"):
            run(tmp_path / "run", settings())
    assert [path.name for path in list_training_states(tmp_path / "run")] == ["step-000004"]
    continued = run(tmp_path / "run", settings())
    assert all(torch.equal(continued[name], undisturbed[name]) for name in undisturbed)


def test_speed_is_kept_apart_from_the_metrics(tmp_path: Path) -> None:
    run(tmp_path / "run", settings())
    lines = [json.loads(line) for line in (tmp_path / "run" / "speed.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(line["pairs_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 and line["num_processes"] == 1 for line in lines)


def test_seeds_of_neighbouring_steps_differ() -> None:
    assert len({mix(seed, step) for seed in range(20) for step in range(200)}) == 4_000


def test_weights_round_trip_and_damage_is_found(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    identity = save_weights(tmp_path / "w", "toy", model, {"width": 2})
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
