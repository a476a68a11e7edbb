"""Every shape is compiled, and one too many is an error: nothing falls back to plain kernels in silence."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import flex_attention

from dalle_model import compiling
from dalle_model.compiling import compiled
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import DALLETransformer, flex
from dalle_model.transformer.cache import ImageDecoder, decode_block, prefill
from dalle_model.transformer.flex import FlexAttention
from dalle_model.transformer.masks import MaskKind

KINDS: list[MaskKind] = ["row", "column", "conv", "full"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


def test_more_than_eight_shapes_are_each_compiled() -> None:
    counter = CompileCounter()
    double = compiled(lambda x: x * 2, backend=counter)
    for size in range(2, 22):
        assert torch.equal(double(torch.ones(size)), torch.full((size,), 2.0))
    assert counter.frame_count == 20


def test_every_mask_and_batch_of_a_training_is_compiled() -> None:
    counter = CompileCounter()
    attend = compiled(flex_attention, backend=counter)
    masks = [FlexAttention(kind, 6, 4, 3)._on(torch.device("cpu"))[0] for kind in KINDS]
    for _ in range(2):
        for batch_size in (1, 2, 3):
            q = torch.zeros(batch_size, 2, 22, 16)
            for mask in masks:
                attend(q, q, q, block_mask=mask)
    assert counter.frame_count == 12


def test_running_out_of_graphs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "MAX_GRAPHS", 3)
    torch._dynamo.config.recompile_limit = 3
    double = compiled(lambda x: x * 2, backend="eager")
    with pytest.raises(FailOnRecompileLimitHit):
        for size in range(2, 7):
            double(torch.ones(size))


def test_a_graph_in_pieces_is_an_error() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * 2

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(broken, backend="eager")(torch.ones(2))


def model_of(stream: StreamShape) -> DALLETransformer:
    torch.manual_seed(0)
    return DALLETransformer(TransformerConfig(num_layers=4, num_heads=2, d_model=32, conv_kernel_size=3), stream)


def test_a_training_with_validations_has_a_graph_for_each_mask_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch refuses gradients on a CPU, although its uncompiled form has them
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    counter, stream = CompileCounter(), StreamShape(text_vocab_size=20, max_text_tokens=6, codebook_size=11, image_grid_size=4)
    monkeypatch.setattr(flex, "flex_attention", compiled(flex_attention, backend=counter))
    model = model_of(stream)
    model.attention = torch.nn.ModuleDict({kind: FlexAttention(kind, 6, 4, 3) for kind in set(model.kinds)})

    def loss(num_pairs: int) -> torch.Tensor:
        zeros = torch.zeros(num_pairs, stream.num_positions, dtype=torch.int64)
        return sum(model.loss(*zeros.tensor_split([6], 1)), torch.zeros(()))

    for is_checkpointing in (False, True):
        model.activation_checkpointing = is_checkpointing
        for _ in range(2):
            with torch.no_grad():
                loss(4), loss(1)  # the last batch of a validation is smaller
            loss(4).backward()
    assert counter.frame_count == 3 * 3, "row, column and conv: two shapes without gradients, one with"


def test_the_sampler_has_a_graph_for_each_mask_and_shape() -> None:
    counter, stream = CompileCounter(), StreamShape(text_vocab_size=20, max_text_tokens=6, codebook_size=11, image_grid_size=4)
    model = model_of(stream).eval()
    step = compiled(decode_block, backend=counter)
    with torch.inference_mode():
        for candidates in (1, 2, 5, 1, 2):
            decoder = ImageDecoder(model, prefill(model, torch.zeros(1, 6, dtype=torch.int64)), candidates)
            decoder.decode_block = step
            for position in range(3):
                decoder.next_logits(torch.zeros(1, candidates, dtype=torch.int64), torch.tensor([position]))
    assert counter.frame_count == 3 * 3
