"""Every fast form against the definition: outputs and gradients, in float64, for every mask."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from dalle_model.transformer import flex
from dalle_model.transformer.attention import build_attention, choose_backend
from dalle_model.transformer.flex import column_order, flex_works, mask_mod
from dalle_model.transformer.masks import MaskKind, stream_mask

SIZES = [(3, 4, 3), (6, 4, 3), (5, 7, 5), (18, 8, 5), (32, 16, 11), (1, 5, 3)]


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize(("num_text", "grid_size", "kernel_size"), SIZES)
@pytest.mark.parametrize(
    ("kind", "backend"),
    [*itertools.product(("row", "column", "conv"), ("masked", "structured")), ("full", "masked")],
)
def test_outputs_and_gradients_equal_the_definition(kind: MaskKind, backend: str, num_text: int, grid_size: int, kernel_size: int) -> None:
    torch.manual_seed(1)
    shape = (2, 3, num_text + grid_size**2, 4)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.randn(shape, dtype=torch.float64)
    attend = build_attention(kind, num_text, grid_size, kernel_size, backend)  # type: ignore[arg-type]
    expected = by_definition(*inputs, stream_mask(kind, num_text, grid_size, kernel_size))
    found = attend(*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    found_gradients = torch.autograd.grad((found * weights).sum(), inputs)
    for found_gradient, expected_gradient in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["row", "column", "conv"])
def test_structured_attention_takes_queries_as_a_block_hands_them_over(kind: MaskKind) -> None:
    # q, k and v are slices of one tensor with the heads not next to the positions; a `view` of them would fail.
    torch.manual_seed(2)
    qkv = torch.randn(2, 18 + 64, 3, 3, 4, dtype=torch.float64)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    expected = by_definition(q, k, v, stream_mask(kind, 18, 8, 5))
    torch.testing.assert_close(build_attention(kind, 18, 8, 5, "structured")(q, k, v), expected, rtol=0, atol=1e-12)


BACKENDS_BY_KIND = [*itertools.product(("row", "column", "conv"), ("masked", "structured", "flex")), ("full", "masked"), ("full", "flex")]


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "backend"), BACKENDS_BY_KIND)
def test_a_later_position_changes_nothing_before_it_in_any_precision(kind: MaskKind, backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 2, 6 + 16, 16).to(dtype) for _ in range(3))
    attend = build_attention(kind, 6, 4, 3, backend)  # type: ignore[arg-type]
    before = attend(q, k, v)
    for position in range(22):
        changed = [x.clone() for x in (q, k, v)]
        for x in changed:
            x[:, :, position:] = 7.0
        assert torch.equal(attend(*changed)[:, :, :position], before[:, :, :position])


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "backend"), BACKENDS_BY_KIND)
def test_16_bit_outputs_are_the_definitions_to_rounding(kind: MaskKind, backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    q, k, v = (torch.randn(2, 2, 32 + 64, 16).to(dtype) for _ in range(3))
    found = build_attention(kind, 32, 8, 5, backend)(q, k, v)  # type: ignore[arg-type]
    expected = by_definition(q.double(), k.double(), v.double(), stream_mask(kind, 32, 8, 5))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(("num_text", "grid_size", "kernel_size"), [(6, 4, 3), (64, 12, 5)])
@pytest.mark.parametrize("kind", ["row", "column", "conv", "full"])
def test_flex_gradients_equal_the_definition(
    kind: MaskKind, num_text: int, grid_size: int, kernel_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch refuses gradients on a CPU although its uncompiled form has them: what is tested are our masks and the columns' order.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    torch.manual_seed(7)
    shape = (2, 2, num_text + grid_size**2, 16)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = torch.randn(shape, dtype=torch.float64)
    expected = by_definition(*inputs, stream_mask(kind, num_text, grid_size, kernel_size))
    found = build_attention(kind, num_text, grid_size, kernel_size, "flex")(*inputs)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    found_gradients = torch.autograd.grad((found * weights).sum(), inputs)
    for found_gradient, expected_gradient in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_text", "grid_size", "kernel_size"), [*SIZES, (256, 32, 11)])
@pytest.mark.parametrize("kind", ["row", "column", "conv", "full"])
def test_flex_masks_are_the_definitions(kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> None:
    position = torch.arange(num_text + grid_size**2)
    allowed = mask_mod(kind, num_text, grid_size, kernel_size)(position, position, position[:, None], position[None, :])
    if kind == "column":
        inverse = column_order(num_text, grid_size).argsort()
        allowed = allowed[inverse][:, inverse]
    assert torch.equal(allowed, stream_mask(kind, num_text, grid_size, kernel_size))


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(("num_text", "grid_size", "kernel_size"), [(6, 4, 3), (64, 12, 5), (100, 16, 11)])
@pytest.mark.parametrize("kind", ["row", "column", "conv", "full"])
def test_flex_outputs_equal_the_definition(kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> None:
    torch.manual_seed(4)
    q, k, v = (torch.randn(2, 2, num_text + grid_size**2, 16, dtype=torch.float64) for _ in range(3))
    found = build_attention(kind, num_text, grid_size, kernel_size, "flex")(q, k, v)
    torch.testing.assert_close(found, by_definition(q, k, v, stream_mask(kind, num_text, grid_size, kernel_size)), rtol=0, atol=1e-12)


def test_the_transposed_column_mask_touches_half_the_blocks() -> None:
    shares = {}
    for kind in ("row", "column", "conv"):
        block_mask = create_block_mask(mask_mod(kind, 256, 32, 11), None, None, 1_280, 1_280, device="cpu")
        shares[kind] = 1 - block_mask.sparsity() / 100
    assert shares == pytest.approx({"row": 0.34, "column": 0.27, "conv": 0.40})


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_flex_is_tried_with_gradients_whoever_asks_first(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex, "_compiled", lambda: flex_attention)
    before = torch.get_rng_state()
    with mode():
        flex._try_out(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
def test_flex_that_began_with_inference_can_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    attend = build_attention("column", 6, 4, 3, "flex")
    q = torch.randn(1, 2, 22, 16)
    with torch.inference_mode():
        attend(q, q, q)
    q.requires_grad_()
    attend(q, q, q).sum().backward()
    assert q.grad is not None


def test_without_a_working_compiler_a_gpu_gets_the_structured_form(caplog: Any) -> None:
    assert not flex_works(torch.device("cpu"))
    with caplog.at_level("WARNING"):
        assert not flex_works.__wrapped__(torch.device("cuda", 99))
    assert "FlexAttention does not work on cuda:99" in caplog.text
    assert "structured attention is used instead" in caplog.text


def test_streams_on_a_cpu_use_the_form_measured_there() -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(1, 1, 32 + 32**2, 16) for _ in range(3))
    chosen, structured = build_attention("row", 32, 32, 11), build_attention("row", 32, 32, 11, "structured")
    assert torch.equal(chosen(q, k, v), structured(q, k, v))


def test_small_streams_use_the_mask_and_the_papers_layout_the_structure() -> None:
    assert choose_backend("row", 18, 8) == "masked"
    assert choose_backend("conv", 32, 16) == "masked"
    assert choose_backend("row", 32, 16) == "masked"
    assert choose_backend("row", 256, 32) == "structured"
    assert choose_backend("conv", 256, 32) == "structured"
    assert choose_backend("full", 256, 32) == "masked"


def test_long_streams_on_cuda_use_flex() -> None:
    assert choose_backend("row", 256, 32, "cuda") == "flex"
    assert choose_backend("full", 256, 32, "cuda") == "flex"
    assert choose_backend("row", 18, 8, "cuda") == "masked"


def test_full_attention_has_no_structured_form() -> None:
    with pytest.raises(ValueError, match="'structured' has no form for full attention; use 'masked'"):
        build_attention("full", 4, 4, 3, "structured")
