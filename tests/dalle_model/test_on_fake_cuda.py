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

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.precision import SHORT_DTYPES
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.attention import StructuredAttention, _ImageAttention
from dalle_model.transformer.loss import sum_cross_entropy
from dalle_model.transformer.masks import MaskKind

LONG = StreamShape(text_vocab_size=50, max_text_tokens=32, codebook_size=64, image_grid_size=22)
"""Above 512 positions, where attention is structured or flex."""
PRECISIONS = ["fp32", "bf16", "fp16"]


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
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.bmm):
            self.types.add((arguments[-1].dtype if isinstance(arguments[-1], Tensor) else arguments[0].dtype, out.dtype))
        return out


def test_logits_are_long_and_all_products_of_a_bf16_loss_are_of_short_numbers() -> None:
    with fake_cuda("bf16"):
        head, hidden = torch.nn.Linear(32, 64), torch.zeros(5, 32, requires_grad=True)
        with Products() as products:
            loss = sum_cross_entropy(hidden, head, torch.zeros(5, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert products.types == {(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)}
