"""Every preset fits the machine that its docstring names, and a training that does not fit is refused with the figures."""

import re
from typing import Any

import pytest
import torch

from dalle_model.clip import build_network, contrastive_loss
from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE
from dalle_model.jobs import train_clip, train_dvae, train_transformer
from dalle_model.precision import autocast
from dalle_model.training import memory
from dalle_model.transformer.cache_layout import cache_layout
from dalle_model.transformer.cost import COMPUTE_BYTES, count_parameters
from dalle_model.transformer.masks import layer_kinds

MACHINES = {"small": (1, 16), "medium": (1, 80), "large": (8, 80), "dalle-12b": (64, 80)}
"""Devices, and GB of each (a card of 80 GB has 79.1 GiB, one of 16 GB 15.9)."""
GIB = 2**30
ROOM = 0.9
"""Share of a card that a plan may take: the rest is for fragments, libraries and what else shows something on a screen."""


def sampling_bytes(config: Config) -> int:
    """Bytes of the transformer, of one caption's keys and values, and of those of `sampling.batch_size` growing pictures."""
    transformer, stream, size = config.transformer, config.stream, COMPUTE_BYTES[config.sampling.precision]
    kinds = layer_kinds(transformer.num_layers, transformer.attention)
    slots = sum(cache_layout(kind, stream.image_grid_size, transformer.conv_kernel_size).num_slots for kind in kinds)
    kept = 2 * transformer.d_model * (config.sampling.batch_size * slots + len(kinds) * stream.max_text_tokens)
    return size * (sum(count_parameters(transformer, stream).values()) + kept)


@pytest.mark.parametrize("name", MACHINES)
def test_the_transformer_of_a_preset_fits_the_machine_it_names(name: str) -> None:
    config, (world_size, gigabytes) = preset(name), MACHINES[name]
    said = PRESETS[name].__doc__ or ""
    assert re.search(rf"\b{world_size if world_size > 1 else 'one'} .*GPUs? .*of {gigabytes} GB", said)
    assert train_transformer.planned_bytes(config, world_size) < ROOM * gigabytes * GIB
    assert sampling_bytes(config) < 0.75 * gigabytes * GIB  # the dVAE and CLIP are there, too


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_the_other_networks_fit_too(name: str) -> None:
    config, (world_size, gigabytes) = preset(name), MACHINES[name]
    assert train_dvae.planned_bytes(config, world_size) < ROOM * gigabytes * GIB
    assert train_clip.planned_bytes(config) < ROOM * gigabytes * GIB


def kept_by_autograd(model: torch.nn.Module, compute_loss: Any, precision: str) -> int:
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(precision, torch.device("cpu")):
        compute_loss(model)
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_counted_without_contents_is_what_autograd_keeps(precision: str, make_config: Any) -> None:
    config: Config = make_config({"train_dvae.batch_size": 4, "train_dvae.precision": precision, "train_dvae.ema_decay": 0.9})
    batch = {"images": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}
    model = DVAE(config.dvae)
    kept = kept_by_autograd(model, lambda model: train_dvae.relaxed_loss(model, batch, 0, config.train_dvae), precision)
    weights = sum(p.numel() for p in model.parameters())
    assert train_dvae.planned_bytes(config, 1) == pytest.approx(20 * weights + kept, rel=0.01)
    assert train_dvae.planned_bytes(config, 2) == pytest.approx(20 * weights + kept / 2, rel=0.02)


def test_checkpointing_saves_activations_of_clip(make_config: Any) -> None:
    layers = {"clip.vision_layers": 6, "clip.text_layers": 6, "train_clip.batch_size": 64}
    config: Config = make_config(layers)
    network = build_network(config.clip, 16, 300)
    texts = torch.zeros(64, 17, dtype=torch.int64)
    kept = kept_by_autograd(network, lambda network: contrastive_loss(network, torch.zeros(64, 3, 32, 32), texts), "fp32")
    assert train_clip.planned_bytes(config) == pytest.approx(16 * sum(p.numel() for p in network.parameters()) + kept, rel=0.01)
    assert train_clip.planned_bytes(make_config({**layers, "train_clip.activation_checkpointing": True})) < 0.5 * kept


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda device: 2**20)


@pytest.mark.usefixtures("small_card")
def test_a_training_that_does_not_fit_is_refused_with_figures_and_settings(make_config: Any, pairs: Any, run_job: Any) -> None:
    config: Config = make_config({"dvae.codebook_init": "random"})
    with pytest.raises(
        ValueError, match=r"train_dvae needs 0\.\d GiB on each device and cpu has 0\.0 GiB; set train_dvae\.microbatch_size to a divisor"
    ):
        run_job("train_dvae", make_config({"dvae.hidden_width": 64}), pairs)
    advice = train_transformer.remedy(config, 2)
    with pytest.raises(ValueError, match=r"microbatch_size, train_transformer\.activation_checkpointing=true, with several devices .*full"):
        memory.check_fits(lambda: 2**30, torch.device("cpu"), "train_transformer", advice)
    memory.check_fits(lambda: 2**19, torch.device("cpu"), "train_transformer", advice)


def test_a_cpu_is_not_asked_how_much_memory_it_has() -> None:
    assert memory.device_bytes(torch.device("cpu")) is None
