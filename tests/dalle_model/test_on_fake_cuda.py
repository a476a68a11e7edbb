"""What a GPU would refuse, found without one: fake CUDA tensors have types and shapes but no values.

Autograd's engine wants a real device, so backward passes written by hand are called by hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dalle_model.clip import build_network, contrastive_loss
from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import DVAEConfig, StreamShape, TransformerConfig
from dalle_model.config.presets import preset
from dalle_model.config.training import TrainConfig
from dalle_model.dvae import DVAE
from dalle_model.dvae.pixels import as_floats
from dalle_model.jobs.train_dvae import relaxed_loss
from dalle_model.jobs.train_transformer import weighted_loss
from dalle_model.precision import SHORT_DTYPES
from dalle_model.sampling.generate import FREE
from dalle_model.sampling.logits import choose_tokens
from dalle_model.training.optim import MovingAverage, build_optimizer
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.attention import StructuredAttention, _ImageAttention
from dalle_model.transformer.loss import head_logits, sum_cross_entropy
from dalle_model.transformer.masks import MaskKind

LONG = StreamShape(text_vocab_size=50, max_text_tokens=32, codebook_size=64, image_grid_size=22)
"""Above 512 positions, where attention is structured or flex."""
PRECISIONS = ["fp32", "bf16", "fp16"]
FILTERED = SamplingConfig(temperature=0.8, top_k=20, top_p=0.9)


@contextmanager
def fake_cuda(precision: str) -> Iterator[None]:
    """Make tensors without values on "cuda", under its autocast: `torch.autocast` switches itself off without a GPU."""
    before = torch.get_autocast_dtype("cuda")
    with FakeTensorMode(), torch.device("cuda"):
        torch.set_autocast_enabled("cuda", precision != "fp32")
        torch.set_autocast_dtype("cuda", SHORT_DTYPES.get(precision, before))
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize("is_checkpointing", [False, True], ids=["keeping", "checkpointing"])
@pytest.mark.parametrize("is_scaled", [False, True], ids=["plain", "branch scales"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_loss_of_a_long_stream_fits_the_types_of_cuda(
    precision: str, is_scaled: bool, is_checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dalle_model.transformer.flex.flex_works", lambda device: False)
    with fake_cuda(precision):
        config = TransformerConfig(num_layers=4, num_heads=2, d_model=32, conv_kernel_size=5, dropout=0.1)
        model = DALLETransformer(config, LONG).train()
        model.activation_checkpointing = is_checkpointing
        if is_scaled:
            model.scale_branches()
        tokens = torch.zeros(2, LONG.num_positions, dtype=torch.int64).tensor_split([LONG.max_text_tokens], 1)
        for is_training in (False, True):
            with torch.set_grad_enabled(is_training):
                losses = model.train(is_training).loss(*tokens)
            assert {loss.dtype for loss in losses} == {torch.float32}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["row", "column", "conv"])
def test_the_gradient_of_structured_attention_fits_the_types_of_cuda(kind: MaskKind, precision: str) -> None:
    saved: list[Tensor] = []
    context: Any = SimpleNamespace(save_for_backward=lambda *tensors: saved.extend(tensors))
    with fake_cuda(precision):
        attend = StructuredAttention(kind, 6, 4, 3)
        dtype = SHORT_DTYPES.get(precision, torch.float32)
        text, image = torch.zeros(2, 2, 6, 16, dtype=dtype), torch.zeros(2, 2, 16, 16, dtype=dtype)
        with torch.autocast("cuda", enabled=False):
            out = _ImageAttention.forward(context, image, text, text, image, image, attend.mask, attend.blocks)
        context.saved_tensors = saved
        gradients = _ImageAttention.backward(context, torch.zeros_like(out))
    shapes = [image.shape, text.shape, text.shape, image.shape, image.shape]
    assert [(g.shape, g.dtype) for g in gradients if g is not None] == [(shape, dtype) for shape in shapes]


class Products(TorchDispatchMode):
    """The types of the matrices that are multiplied, and of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[tuple[torch.dtype, torch.dtype]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        out = function(*arguments, **(named or {}))
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.linear):
            self.types.add((arguments[-1].dtype if isinstance(arguments[-1], Tensor) else arguments[0].dtype, out.dtype))
        return out


def test_logits_are_long_and_all_products_of_a_bf16_loss_are_of_short_numbers() -> None:
    with fake_cuda("bf16"):
        head, hidden = torch.nn.Linear(32, 64), torch.zeros(5, 32, requires_grad=True)
        with Products() as products:
            loss = sum_cross_entropy(hidden, head, torch.zeros(5, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert products.types == {(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)}


SHORT = StreamShape(text_vocab_size=50, max_text_tokens=8, codebook_size=64, image_grid_size=6)


def small_transformer() -> DALLETransformer:
    return DALLETransformer(TransformerConfig(num_layers=4, num_heads=2, d_model=32, conv_kernel_size=3), SHORT)


def networks() -> dict[str, tuple[Any, Any]]:
    """Each network with its loss, as its training computes it."""
    config = preset("demo", {"dvae.image_size": 32, "dvae.codebook_size": 32, "dvae.hidden_width": 16})
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    texts = torch.zeros(3, 19, dtype=torch.int64)
    tokens = {"text_tokens": torch.zeros(3, 8, dtype=torch.int64), "image_tokens": torch.zeros(3, 36, dtype=torch.int64)}
    return {
        "transformer": (small_transformer, lambda model: weighted_loss(model, tokens, 1 / 8)["loss"]),
        "dvae": (lambda: DVAE(config.dvae), lambda model: relaxed_loss(model, {"images": images}, 0, config.train_dvae)["loss"]),
        "clip": (
            lambda: build_network(config.clip, 18, 640),
            lambda model: contrastive_loss(model, images.float().div(255), texts)["loss"],
        ),
    }


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["transformer", "dvae", "clip"])
def test_an_update_of_every_network_fits_the_types_of_cuda_validation_first(name: str, precision: str) -> None:
    """All of an update but autograd's own part, whose place gradients of zeros take."""
    with fake_cuda(precision):
        build, compute_loss = networks()[name]
        model = build()
        config = TrainConfig(max_steps=2, batch_size=3, learning_rate=1e-3, final_learning_rate=1e-4, weight_decay=0.1)
        optimizer, average = build_optimizer(model, config), MovingAverage(model, 0.9)
        for is_training in (False, True, False):
            with torch.set_grad_enabled(is_training):
                loss = compute_loss(model.train(is_training))
            assert (loss.device.type, loss.requires_grad) == ("cuda", is_training)
            assert loss.dtype == torch.float32
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, 1)
        assert {value.device.type for value in average.weights.values()} == {"cuda"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_to_sample_from_are_long_whatever_the_weights(dtype: torch.dtype) -> None:
    with fake_cuda("fp32"), torch.inference_mode():
        head = torch.nn.Linear(32, 64)
        head.weight, head.bias = (torch.nn.Parameter(x.to(dtype)) for x in (head.weight, head.bias))
        with Products() as products:
            logits = head_logits(head, torch.zeros(5, 32))
        tokens = choose_tokens(logits.view(1, 5, 64), torch.zeros(1, 5, dtype=torch.float64), torch.full((1, 1), FREE), FILTERED)
    assert (logits.dtype, tokens.shape, tokens.dtype) == (torch.float32, (1, 5), torch.int64)
    assert products.types == {(dtype, torch.float32)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tokenising_fits_the_types_of_cuda(precision: str) -> None:
    with fake_cuda(precision):
        model = DVAE(DVAEConfig(image_size=32, codebook_size=64, hidden_width=16)).eval().requires_grad_(False)
        tokens = model.tokenize(as_floats(torch.zeros(2, 32, 32, 3, dtype=torch.uint8).permute(0, 3, 1, 2)))
        pictures = model.decode_soft(torch.zeros(2, 64, 4, 4))[0]
    assert (tokens.shape, tokens.dtype) == ((2, 16), torch.int64)
    assert pictures.dtype == torch.float32
