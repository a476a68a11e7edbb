"""Decoding token by token gives the logits of the full forward pass: every mask, every position, in float64."""

import pytest
import torch

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import NO_TOKEN, DALLETransformer
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.cache import ImageDecoder, read_text
from dalle_model.transformer.masks import MaskKind

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=6)
TEXT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN], [9, 2, 6, 5, 3]])


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(
    "kinds", [("row", "row"), ("column", "column"), ("conv", "conv"), ("full", "full"), ("row", "column", "row", "conv")]
)
def test_decoding_equals_the_full_forward_pass(kinds: tuple[MaskKind, ...], kernel_size: int) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(num_layers=len(kinds), num_heads=2, d_model=16, conv_kernel_size=kernel_size)
    model = DALLETransformer(config, STREAM)
    model.kinds = kinds
    model.attention = torch.nn.ModuleDict({kind: build_attention(kind, 5, 6, kernel_size) for kind in set(kinds)})
    model = model.double().eval()
    images = torch.randint(11, (2, 3, 36))  # 3 candidates of each of 2 captions
    with torch.inference_mode():
        decoder = ImageDecoder(model, read_text(model, TEXT), num_candidates=3)
        logits = [decoder.first_logits()]
        logits += [decoder.next_logits(images[..., i], i) for i in range(35)]
        _, expected = model(TEXT.repeat_interleave(3, 0), images.flatten(0, 1))
    torch.testing.assert_close(torch.stack(logits, 2).flatten(0, 1), expected, rtol=0, atol=1e-12)


def test_a_candidate_keeps_only_what_its_masks_can_see() -> None:
    # The paper's layout: 33 tokens for a row layer, 192 for the convolutional one, instead of 1,024.
    stream = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=32)
    model = DALLETransformer(TransformerConfig(num_layers=4, num_heads=1, d_model=4), stream)
    decoder = ImageDecoder(model, read_text(model, TEXT[:1]), num_candidates=1)
    kept = [
        sum(tensor.numel() for tensor in vars(cache).values() if isinstance(tensor, torch.Tensor) and tensor.is_floating_point())
        for cache in decoder.caches
    ]
    assert [numbers // (2 * 4) for numbers in kept] == [33, 1_024, 33, 192]
