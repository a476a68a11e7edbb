"""Step sizes and moving averages."""

import pytest
import torch
from torch import nn

from dalle_model.config.presets import preset
from dalle_model.config.training import TrainConfig
from dalle_model.training.optim import MovingAverage, PlateauHalving, build_optimizer, learning_rate_at


def test_cosine_goes_from_peak_to_final_after_a_linear_warm_up() -> None:
    config = TrainConfig(max_steps=101, batch_size=1, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10)
    rates = [learning_rate_at(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[100] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.55, rel=0.01)
    assert max(rates) < 1.0


def test_cosine_may_end_before_the_training_does() -> None:
    paper = preset("dalle-12b").train_dvae
    assert learning_rate_at(0, paper) == 1e-4
    assert learning_rate_at(600_000, paper) == pytest.approx((1e-4 + 1.25e-6) / 2)
    assert learning_rate_at(1_200_000, paper) == learning_rate_at(2_999_999, paper) == 1.25e-6


def test_a_negative_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="decay_steps=-1 must be at least 0; 0 means all of max_steps=5"):
        TrainConfig(max_steps=5, batch_size=1, learning_rate=1.0, final_learning_rate=0.1, decay_steps=-1)


def test_plateau_halves_after_looks_without_improvement_and_stops_at_the_final_rate() -> None:
    config = TrainConfig(max_steps=10, batch_size=1, learning_rate=1.0, final_learning_rate=0.25, schedule="plateau")
    plateau = PlateauHalving(patience=2)
    for loss in (3.0, 2.0, 2.0, 2.5):
        plateau.look(loss)
    assert plateau.factor == 0.5
    assert learning_rate_at(5, config, plateau.factor) == 0.5
    assert learning_rate_at(5, config, 1 / 32) == 0.25


def test_vectors_are_not_decayed() -> None:
    config = TrainConfig(max_steps=1, batch_size=1, learning_rate=1.0, final_learning_rate=1.0, weight_decay=0.3)
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decay = {id(p): group["weight_decay"] for group in build_optimizer(model, config).param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {"0.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0}


def test_the_moving_average_follows_and_gives_the_weights_back() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, 100)
    before = average.copy_to(model)
    assert model.weight.tolist() == [[0.5]]
    assert before["weight"].tolist() == [[1.0]]
    assert torch.is_grad_enabled()
