"""Pictures for captions, as image tokens: N candidates per caption, each repeatable from its own seed (section 2.6)."""

# Shapes: P captions of one batch, C candidates of each, I image positions

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from dalle_model.config.generation import SamplingConfig
from dalle_model.sampling.logits import FREE as FREE
from dalle_model.sampling.logits import are_usable, broken_logits, choose_tokens
from dalle_model.sampling.static import GraphSampler
from dalle_model.transformer.cache import ImageDecoder, TextPrefix, prefill
from dalle_model.transformer.model import NO_TOKEN, DALLETransformer

OnRow = Callable[[Tensor, Tensor], None]
"""Is told the numbers of candidates, int64 [C], and their tokens so far, int64 [P, C, i] with i whole rows of the grid."""


def candidate_seeds(seed: int, prompts: list[str], num_images: int) -> Tensor:
    """int64 [P, N] in [0, 2**63): a seed for each candidate of each prompt, whatever else is sampled with it."""
    seeds = [
        [int.from_bytes(hashlib.blake2b(f"{seed} {i} {prompt}".encode(), digest_size=8).digest(), "big") >> 1 for i in range(num_images)]
        for prompt in prompts
    ]
    return torch.tensor(seeds, dtype=torch.int64).view(len(prompts), num_images)


def sample_image_tokens(
    model: DALLETransformer,
    text_tokens: Tensor,
    num_images: int,
    settings: SamplingConfig,
    seeds: Tensor,
    known_image_tokens: Tensor | None = None,
    is_static: bool | None = None,
    on_row: OnRow | None = None,
) -> Tensor:
    """Sample `num_images` pictures for each caption: int64 [P, num_images, num_image_tokens], on the model's device.

    `text_tokens` [P, max_text_tokens] has `NO_TOKEN` where there is no token. `seeds` int64 [P, num_images] decides each picture
    by itself: neither its neighbours nor `settings.batch_size` matter (but for rounding, when a draw falls on the very
    edge between two tokens: rare in float32, common in bf16 when the shape of the batch is another). `known_image_tokens`
    [P, num_image_tokens] fixes tokens, with `FREE` where one is sampled: the top rows of a picture to complete, for instance.
    `is_static`, by default on CUDA, repeats one step of fixed shape (`static.py`); results are the same to rounding. `on_row` watches
    the pictures grow and changes nothing; what it raises ends the sampling.
    Raises `ValueError` for tensors whose shape or token ids do not fit the transformer, and when its logits are not numbers.
    """
    stream, num_captions = model.stream, len(text_tokens)
    if known_image_tokens is None:
        known_image_tokens = torch.full((num_captions, stream.num_image_tokens), FREE)
    _check_shape(text_tokens, (num_captions, stream.max_text_tokens), "text_tokens", "[captions, max_text_tokens]")
    _check_shape(seeds, (num_captions, num_images), "seeds", "[captions, num_images]")
    _check_shape(known_image_tokens, (num_captions, stream.num_image_tokens), "known_image_tokens", "[captions, num_image_tokens]")
    _check_range(text_tokens, NO_TOKEN, stream.text_vocab_size, "text_tokens")
    _check_range(known_image_tokens, FREE, stream.codebook_size, "known_image_tokens")
    device = model.image_head.weight.device
    is_static = device.type == "cuda" if is_static is None else is_static
    out = torch.empty(num_captions, num_images, stream.num_image_tokens, dtype=torch.int64, device=device)
    candidates_at_once = min(num_images, settings.batch_size)
    captions_at_once = min(num_captions, max(1, settings.batch_size // num_images))
    static: GraphSampler | None = None
    with torch.inference_mode():
        for captions in _batches(num_captions, captions_at_once, is_static):
            text, known = text_tokens[captions].to(device), known_image_tokens[captions].to(device)
            if settings.guidance != 1:
                text = torch.cat((text, torch.full_like(text, NO_TOKEN)))
            prefix = prefill(model, text)
            for candidates in _batches(num_images, candidates_at_once, is_static):
                noise = _noise(seeds[captions][:, candidates], stream.num_image_tokens).to(device)
                if is_static:
                    static = static or GraphSampler(model, prefix, noise, known, settings)
                    grown = static.sample(prefix, noise, known, on_row and partial(on_row, candidates))
                else:
                    drawn: list[Tensor] = []
                    for tokens_PC in decode(model, prefix, noise, known, settings):
                        drawn.append(tokens_PC)
                        if on_row and len(drawn) % stream.image_grid_size == 0:
                            on_row(candidates, torch.stack(drawn, 2))
                    grown = torch.stack(drawn, 2)
                out[captions[:, None], candidates] = grown
    return out


def decode(model: DALLETransformer, prefix: TextPrefix, noise: Tensor, known: Tensor, settings: SamplingConfig) -> Iterator[Tensor]:
    """The tokens [P, C] of noise.shape[:2] pictures at one position after the other."""
    decoder = ImageDecoder(model, prefix, noise.shape[1])
    logits = decoder.first_logits()
    for i in range(noise.shape[2]):
        if not are_usable(logits):
            raise broken_logits()
        drawn = choose_tokens(logits, noise[..., i], known[:, i, None], settings)
        yield drawn
        if i + 1 < noise.shape[2]:
            logits = decoder.next_logits(torch.cat((drawn, drawn)) if settings.guidance != 1 else drawn, i)


def _batches(number: int, size: int, is_padded: bool) -> Iterator[Tensor]:
    """The numbers below `number`, int64, `size` at a time. When padded the last one stands in for those that are missing."""
    for start in range(0, number, size):
        places = torch.arange(start, start + size)
        yield places.clamp(max=number - 1) if is_padded else places[places < number]


def _noise(seeds: Tensor, num_tokens: int) -> Tensor:
    """Uniform float64 [P, C, num_tokens]; each candidate's row comes from a generator of its own, on the CPU for every device."""
    generator = torch.Generator()
    rows = [torch.rand(num_tokens, dtype=torch.float64, generator=generator.manual_seed(seed)) for seed in seeds.flatten().tolist()]
    return torch.stack(rows).view(*seeds.shape, num_tokens)


def _check_shape(tensor: Tensor, shape: tuple[int, ...], name: str, meaning: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {meaning} = {list(shape)}; is it for another transformer?")


def _check_range(tokens: Tensor, least: int, size: int, name: str) -> None:
    outside = tokens[(tokens < least) | (tokens >= size)]
    if len(outside):
        raise ValueError(
            f"{name} holds {outside[0].item()}, but this transformer knows 0 to {size - 1}, and {least} for none; "
            "was it made by another tokenizer or dVAE?"
        )
