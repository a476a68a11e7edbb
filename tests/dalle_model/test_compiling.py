"""Every shape is compiled, and one too many is an error: nothing falls back to plain kernels in silence."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import flex_attention

from dalle_model import compiling
from dalle_model.compiling import compiled
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
