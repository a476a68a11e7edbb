"""The plan against the network: parameters, pairs that attention computes, bytes that autograd keeps."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.presets import PRESETS, preset
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.cost import (
    activation_bytes_per_pair,
    count_parameters,
    forward_flops_per_token,
    plan_transformer,
)
from dalle_model.transformer.masks import stream_mask

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=6, codebook_size=11, image_grid_size=8)
CONFIG = TransformerConfig(num_layers=4, num_heads=2, d_model=16, conv_kernel_size=5)


def parameter_formula(config: TransformerConfig, stream: StreamShape) -> int:
    """Per layer 12 d^2 + 13 d; embeddings, pads, positions and start; final norm; heads with biases."""
    d, vocabulary = config.d_model, stream.text_vocab_size + stream.codebook_size
    embeddings = (vocabulary + 2 * stream.max_text_tokens + 2 * stream.image_grid_size + 1) * d
    return config.num_layers * (12 * d**2 + 13 * d) + embeddings + 2 * d + vocabulary * (d + 1)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_counted_on_the_network_equal_the_closed_formula(name: str) -> None:
    config = preset(name)
    assert sum(count_parameters(config.transformer, config.stream).values()) == parameter_formula(config.transformer, config.stream)


def test_the_papers_transformer_has_12_billion_parameters() -> None:
    config = preset("dalle-12b")
    parameters = count_parameters(config.transformer, config.stream)
    assert parameters["blocks"] == 12_095_479_808
    assert sum(parameters.values()) == 12_292_836_992


def test_attention_flops_are_those_of_the_masks() -> None:
    pairs = sum(int(stream_mask(kind, 6, 8, 5).sum()) for kind in ("row", "column", "row", "conv"))
    flops = forward_flops_per_token(CONFIG, STREAM)
    assert flops["sparse_attention"] == pytest.approx(4 * 16 * pairs / 70)
    assert flops["dense_attention"] == 4 * 16 * 70 * 4
    assert flops["heads"] == pytest.approx(2 * 16 * (6 * 20 + 64 * 11) / 70)


def test_the_papers_layout_computes_a_fifth_of_dense_attention_and_73_gflop_per_token() -> None:
    plan = plan_transformer(preset("dalle-12b"), world_size=64)
    flops = plan.forward_flops_per_token
    assert flops["sparse_attention"] / flops["dense_attention"] == pytest.approx(0.198, abs=0.002)
    assert plan.training_flops_per_token == pytest.approx(73.6e9, rel=0.01)


def test_activations_are_what_autograd_keeps() -> None:
    # Large enough that a mask per layer and the norms' statistics do not count.
    model = DALLETransformer(replace(CONFIG, d_model=64), STREAM)
    pairs = 8
    text, image = torch.randint(20, (pairs, 6)), torch.randint(11, (pairs, 64))
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.hidden_states(text, image)
    planned = pairs * activation_bytes_per_pair(model.config, STREAM, compute_bytes=4, is_checkpointing=False)
    assert planned == pytest.approx(sum(kept.values()), rel=0.05)


def test_sharding_divides_what_is_kept_and_not_what_is_computed() -> None:
    config = preset("large", {"train_transformer.batch_size": 64, "train_transformer.microbatch_size": 64})
    alone, sharded = plan_transformer(config, 1), plan_transformer(config, 64, "full")
    assert sharded.memory.optimizer == pytest.approx(alone.memory.optimizer / 64, rel=1e-6)
    assert sharded.memory.activations * 64 == alone.memory.activations
    assert plan_transformer(config, 64, "replicated").memory.optimizer == alone.memory.optimizer
    assert plan_transformer(config, 64, "hybrid").memory.optimizer == pytest.approx(alone.memory.optimizer / 8, rel=1e-6)


@pytest.mark.parametrize("is_checkpointing", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_planned_peak_is_what_an_update_of_the_small_preset_allocates(is_checkpointing: bool) -> None:
    spec = importlib.util.spec_from_file_location("bench_memory", Path(__file__).parents[3] / "benchmarks" / "bench_memory.py")
    assert spec is not None
    assert spec.loader is not None
    bench_memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench_memory)
    settings = {"activation_checkpointing": is_checkpointing, "batch_size": 2, "precision": "fp32"}
    config = preset("small", {f"train_transformer.{name}": value for name, value in settings.items()})
    plan = plan_transformer(config)
    planned = plan.memory_with_checkpointing if is_checkpointing else plan.memory
    assert planned.total == pytest.approx(bench_memory.peak(config, pairs=2), rel=0.1)


def test_checkpointing_trades_activations_for_a_second_forward_pass() -> None:
    plan = plan_transformer(preset("dalle-12b"), world_size=64)
    assert plan.memory_with_checkpointing.activations < plan.memory.activations / 7
    assert plan.memory_with_checkpointing.total < plan.memory.total


def test_a_batch_that_devices_cannot_share_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"train_transformer\.batch_size=1024 does not split evenly over 3 devices; choose a multiple"):
        plan_transformer(preset("dalle-12b"), world_size=3)
