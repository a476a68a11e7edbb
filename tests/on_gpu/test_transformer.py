"""What only a GPU can show of transformer and sampler: compiled kernels and captured graphs give what a CPU gives, to rounding."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.sampling.generate import FREE, candidate_seeds, sample_image_tokens
from dalle_model.transformer import NO_TOKEN, DALLETransformer
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.cache import ImageDecoder, prefill
from dalle_model.transformer.flex import flex_works
from dalle_model.transformer.masks import MaskKind, stream_mask

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

KINDS: list[MaskKind] = ["row", "column", "conv", "full"]
LAYOUTS = [(128, 16, 11), (256, 32, 11), (100, 23, 5)]
STREAM = StreamShape(text_vocab_size=50, max_text_tokens=64, codebook_size=64, image_grid_size=12)
TEXT = torch.randint(50, (3, 64), generator=torch.Generator().manual_seed(0))


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def model_of(num_layers: int = 4) -> DALLETransformer:
    torch.manual_seed(0)
    model = DALLETransformer(TransformerConfig(num_layers=num_layers, num_heads=4, d_model=256, conv_kernel_size=5), STREAM).eval()
    torch.nn.init.normal_(model.image_head.weight, std=0.2)
    return model


def test_flex_attention_works_here() -> None:
    assert flex_works(torch.device("cuda"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("num_text", "grid_size", "kernel_size"), LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_flex_outputs_and_gradients_are_the_definitions(
    kind: MaskKind, num_text: int, grid_size: int, kernel_size: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    shape = (2, 3, num_text + grid_size**2, 64)
    inputs = [torch.randn(shape, device="cuda").to(dtype).requires_grad_() for _ in range(3)]
    weights = torch.randn(shape, device="cuda").to(dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = by_definition(*exact, stream_mask(kind, num_text, grid_size, kernel_size).cuda())
    found = build_attention(kind, num_text, grid_size, kernel_size, "flex")(*inputs)
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights.double()).sum(), exact),
        strict=True,
    )
    for ours, theirs in pairs:
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (2 * torch.finfo(dtype).eps if dtype != torch.float32 else 2e-3)  # float32 products may be TF32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("kind", "backend"), [*itertools.product(KINDS, ("masked", "flex")), ("row", "structured"), ("column", "structured")]
)
def test_a_later_position_changes_nothing_before_it(kind: MaskKind, backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, 2, 128 + 256, 64, device="cuda").to(dtype) for _ in range(3))
    attend = build_attention(kind, 128, 16, 11, backend)  # type: ignore[arg-type]
    attend.to("cuda")
    before = attend(q, k, v)
    for position in (1, 100, 128, 129, 160, 200, 256, 300, 383):
        changed = [x.clone() for x in (q, k, v)]
        for x in changed:
            x[:, :, position:] = 7.0
        assert torch.equal(attend(*changed)[:, :, :position], before[:, :, :position])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_step_gives_the_logits_of_the_full_pass(dtype: torch.dtype) -> None:
    images = torch.randint(64, (3, 2, 144), device="cuda")
    with torch.inference_mode():
        _, expected = model_of().double().cuda()(TEXT.cuda().repeat_interleave(2, 0), images.flatten(0, 1))
        model = model_of().hold_weights_in(dtype).cuda()
        decoder = ImageDecoder(model, prefill(model, TEXT.cuda()), 2)
        decoder.compile()
        logits = [decoder.first_logits()]
        for i in range(143):
            logits.append(decoder.next_logits(images[..., i], torch.tensor([i], device="cuda")))
    found = torch.stack(logits, 2).flatten(0, 1).double()
    assert (found - expected).norm() / expected.norm() < (2e-3 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [SamplingConfig(), SamplingConfig(guidance=2.0), SamplingConfig(temperature=0.8, top_k=20, top_p=0.9)],
    ids=["plain", "guided", "filtered"],
)
def test_the_captured_graph_draws_what_plain_steps_draw(settings: SamplingConfig, dtype: torch.dtype) -> None:
    model = model_of().hold_weights_in(dtype).cuda()
    settings, seeds = replace(settings, num_images=4, batch_size=6), candidate_seeds(0, ["a", "b", "c"], 4)
    known = torch.full((3, 144), FREE)
    known[1, 20:50] = 7
    found = sample_image_tokens(model, TEXT, 4, settings, seeds, known)
    plain = sample_image_tokens(model, TEXT, 4, settings, seeds, known, is_static=False)
    assert ((found >= 0) & (found < 64)).all()
    assert (found[1, :, 20:50] == 7).all()
    # A draw near an edge between two tokens goes the other way now and then, and all that follows it is another picture.
    first_difference = (found != plain).flatten(0, 1).float().argmax(1)
    is_same = (found == plain).flatten(0, 1).all(1)
    assert (is_same | (first_difference > 8)).float().mean() > 0.7
    assert dtype != torch.float32 or is_same.float().mean() > 0.5


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(dtype: torch.dtype, guidance: float) -> None:
    model = model_of().hold_weights_in(dtype).cuda()
    settings = SamplingConfig(num_images=4, batch_size=6, guidance=guidance)
    seeds, others = candidate_seeds(0, ["a", "b", "c"], 4), candidate_seeds(1, ["a", "b", "c"], 4)
    others[1, 2] = seeds[1, 2]
    text = torch.full_like(TEXT, NO_TOKEN)
    text[1] = TEXT[1]
    expected = sample_image_tokens(model, TEXT, 4, settings, seeds)
    assert torch.equal(sample_image_tokens(model, TEXT, 4, settings, seeds), expected)
    found = sample_image_tokens(model, text, 4, settings, others)
    assert torch.equal(found[1, 2], expected[1, 2])
    assert not torch.equal(found[0], expected[0])


def test_without_a_compiler_the_graph_holds_plain_kernels(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(function: object, **options: object) -> object:
        def fail(*arguments: object) -> None:
            raise RuntimeError("no compiler")

        return fail

    model, seeds, settings = model_of().cuda(), candidate_seeds(0, ["a", "b", "c"], 2), SamplingConfig(num_images=2, batch_size=6)
    expected = sample_image_tokens(model, TEXT, 2, settings, seeds, is_static=False)
    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level("WARNING"):
        found = sample_image_tokens(model, TEXT, 2, settings, seeds)
    assert "the sampling step does not compile here (RuntimeError: no compiler); it runs as it is" in caplog.text
    assert (found == expected).float().mean() > 0.5
