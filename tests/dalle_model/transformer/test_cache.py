"""Decoding token by token gives the logits of the full forward pass: every mask, every position, in float64."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import NO_TOKEN, DALLETransformer
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.cache import ImageDecoder, prefill
from dalle_model.transformer.cache_layout import cache_layout
from dalle_model.transformer.masks import MaskKind, layer_kinds

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=6)
TEXT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN], [9, 2, 6, 5, 3]])


def model_of(kinds: tuple[MaskKind, ...], kernel_size: int = 3) -> DALLETransformer:
    torch.manual_seed(0)
    model = DALLETransformer(TransformerConfig(num_layers=len(kinds), num_heads=2, d_model=16, conv_kernel_size=kernel_size), STREAM)
    model.kinds = kinds
    model.attention = torch.nn.ModuleDict({kind: build_attention(kind, 5, 6, kernel_size) for kind in set(kinds)})
    return model.eval()


def decode(decoder: ImageDecoder, images: torch.Tensor, is_static: bool = False) -> torch.Tensor:
    """Logits [P, C, I, V] of all tokens, given the pictures' tokens [P, C, I]."""
    logits = [decoder.first_logits()]
    for i in range(images.shape[-1] - 1):
        logits.append(decoder.next_logits(images[..., i], torch.tensor([i]) if is_static else i))
    return torch.stack(logits, 2)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(
    "kinds", [("row", "row"), ("column", "column"), ("conv", "conv"), ("full", "full"), ("row", "column", "row", "conv")]
)
def test_decoding_equals_the_full_forward_pass(kinds: tuple[MaskKind, ...], kernel_size: int) -> None:
    model = model_of(kinds, kernel_size).double()
    images = torch.randint(11, (2, 3, 36))  # 3 candidates of each of 2 captions
    with torch.inference_mode():
        logits = decode(ImageDecoder(model, prefill(model, TEXT), num_candidates=3), images)
        _, expected = model(TEXT.repeat_interleave(3, 0), images.flatten(0, 1))
    torch.testing.assert_close(logits.flatten(0, 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "kinds", [("row", "row"), ("column", "column"), ("conv", "conv"), ("full", "full"), ("row", "column", "row", "conv")]
)
def test_a_position_given_as_a_tensor_gives_the_same_logits(kinds: tuple[MaskKind, ...]) -> None:
    model, images = model_of(kinds).double(), torch.randint(11, (2, 3, 36))
    with torch.inference_mode():
        expected = decode(ImageDecoder(model, prefill(model, TEXT), 3), images)
        found = decode(ImageDecoder(model, prefill(model, TEXT), 3), images, is_static=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_decoder_starts_again_in_the_same_memory() -> None:
    model, images = model_of(("row", "column", "row", "conv")).double(), torch.randint(11, (2, 3, 36))
    with torch.inference_mode():
        expected = decode(ImageDecoder(model, prefill(model, TEXT), 3), images)
        decoder = ImageDecoder(model, prefill(model, TEXT.flip(0)), 3)
        decode(decoder, images.flip(-1), is_static=True)
        memory = [cache.kept_2RSK.data_ptr() for cache in decoder.caches] + [keys.data_ptr() for keys in decoder.prefix.keys]
        decoder.reset(prefill(model, TEXT))
        torch.testing.assert_close(decode(decoder, images, is_static=True), expected, rtol=0, atol=1e-12)
    assert memory == [cache.kept_2RSK.data_ptr() for cache in decoder.caches] + [keys.data_ptr() for keys in decoder.prefix.keys]


def test_the_compiled_step_is_one_graph_per_mask_for_all_positions_and_decoders() -> None:
    # What a GPU runs, but for the last compiler stage: any graph break, or anything that depends on a position's value, shows here.
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model, images = model_of(("row", "column", "row", "conv")).double(), torch.randint(11, (2, 3, 36))
    with torch.inference_mode():
        expected = decode(ImageDecoder(model, prefill(model, TEXT), 3), images)
        for _ in range(2):
            decoder = ImageDecoder(model, prefill(model, TEXT), 3)
            decoder.compile(backend=counter)
            torch.testing.assert_close(decode(decoder, images, is_static=True), expected, rtol=0, atol=1e-12)
    assert counter.frame_count == 3


def test_three_shapes_of_a_batch_are_compiled_in_one_process() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    model = model_of(("row", "column", "row", "conv"))
    with torch.inference_mode():
        for num_candidates in (1, 2, 3):
            decoder = ImageDecoder(model, prefill(model, TEXT), num_candidates)
            decoder.compile(backend=counter)
            decoder.next_logits(torch.zeros(2, num_candidates, dtype=torch.int64), torch.tensor([0]))
    assert counter.frame_count == 9


@pytest.mark.parametrize("num_candidates", [1, 3, 12])
def test_bf16_weights_give_the_logits_of_float32_to_rounding(num_candidates: int) -> None:
    kinds: tuple[MaskKind, ...] = ("row", "column", "row", "conv")
    images = torch.randint(11, (2, num_candidates, 36))
    with torch.inference_mode():
        _, expected = model_of(kinds)(TEXT.repeat_interleave(num_candidates, 0), images.flatten(0, 1))
        model = model_of(kinds).hold_weights_in(torch.bfloat16)
        prefix = prefill(model, TEXT)
        decoder = ImageDecoder(model, prefix, num_candidates)
        found = decode(decoder, images)
        static = decode(ImageDecoder(model, prefix, num_candidates), images, is_static=True)
    assert prefix.last_state.dtype == torch.float32  # the residual stream
    assert {cache.kept_2RSK.dtype for cache in decoder.caches} == {prefix.keys[0].dtype} == {found.dtype} == {torch.bfloat16}
    spread = expected.std().item()
    for logits in (found, static):
        error = logits.float() - expected.view_as(logits)
        assert error.std() < 0.02 * spread
        assert error.abs().max() < 0.1 * spread


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["row", "column", "conv", "full"])
def test_no_logit_depends_on_a_token_that_is_still_to_come(kind: MaskKind, dtype: torch.dtype, is_static: bool) -> None:
    # A decoder that grew another picture before must give, bit for bit, what a fresh one gives: nothing it still holds may be seen.
    model, images = model_of((kind, kind)).hold_weights_in(dtype), torch.randint(11, (2, 2, 36))
    with torch.inference_mode():
        expected = decode(ImageDecoder(model, prefill(model, TEXT), 2), images, is_static)
        decoder = ImageDecoder(model, prefill(model, TEXT), 2)
        decode(decoder, (images + 1) % 11, is_static)
        for cache in decoder.caches:
            cache.kept_2RSK.mul_(50)
        found = decode(decoder, images, is_static)
    assert found.isfinite().all()
    assert torch.equal(found, expected)


def test_a_candidate_keeps_only_what_its_masks_can_see() -> None:
    # The paper's layout: 33 tokens for a row layer, 252 for the convolutional one, instead of 1,024.
    stream = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=32)
    model = DALLETransformer(TransformerConfig(num_layers=4, num_heads=1, d_model=4), stream)
    decoder = ImageDecoder(model, prefill(model, TEXT[:1]), num_candidates=1)
    assert [cache.kept_2RSK.numel() // (2 * 4) for cache in decoder.caches] == [33, 1_024, 33, 252]


@pytest.mark.parametrize(
    ("config", "mib"), [(TransformerConfig(), 274), (TransformerConfig(num_layers=24, num_heads=16, d_model=2_048), 53.7)]
)
def test_memory_of_a_candidate_in_bf16_is_what_was_computed(config: TransformerConfig, mib: float) -> None:
    # Computed beforehand for a last layer that keeps 166 tokens: its window of 66 reaches back 191, and its ends are kept twice.
    slots = sum(cache_layout(kind, 32, 11).num_slots for kind in layer_kinds(config.num_layers))
    assert 2 * 2 * slots * config.d_model / 2**20 == pytest.approx(mib, rel=0.015)
