"""Pictures for captions, as image tokens: N candidates per caption, each repeatable from its own seed (section 2.6)."""

import hashlib

import torch
from torch import Tensor

from dalle_model.config.generation import SamplingConfig
from dalle_model.sampling.logits import draw_tokens, filter_logits
from dalle_model.transformer.cache import ImageDecoder, TextPrefix, read_text
from dalle_model.transformer.model import NO_TOKEN, DALLETransformer

FREE = -1
"""Stands in `known_image_tokens` where a token is to be sampled."""


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
) -> Tensor:
    """Sample `num_images` pictures for each caption: int64 [P, num_images, num_image_tokens], on the model's device.

    `text_tokens` [P, max_text_tokens] has `NO_TOKEN` where there is no token. `seeds` int64 [P, num_images] decides each picture
    by itself: neither its neighbours nor `settings.batch_size` matter (but for rounding, when a draw falls on the very
    edge between two tokens). `known_image_tokens` [P, num_image_tokens] fixes tokens, with `FREE` where one is sampled: the top rows
    of a picture to complete, for instance. Raises `ValueError` for shapes that do not fit and for guidance without captions dropped.
    """
    stream = model.stream
    _check(text_tokens, (len(text_tokens), stream.max_text_tokens), "text_tokens", "[captions, max_text_tokens]")
    _check(seeds, (len(text_tokens), num_images), "seeds", "[captions, num_images]")
    if known_image_tokens is not None:
        _check(known_image_tokens, (len(text_tokens), stream.num_image_tokens), "known_image_tokens", "[captions, num_image_tokens]")
    device = model.image_head.weight.device
    noise = _noise(seeds, stream.num_image_tokens).to(device)
    out = torch.empty(len(text_tokens), num_images, stream.num_image_tokens, dtype=torch.int64, device=device)
    candidates_at_once = min(num_images, settings.batch_size)
    captions_at_once = max(1, settings.batch_size // num_images)
    for first in range(0, len(text_tokens), captions_at_once):
        captions = slice(first, first + captions_at_once)
        text = text_tokens[captions].to(device)
        known = None if known_image_tokens is None else known_image_tokens[captions].to(device)
        if settings.guidance != 1:
            text = torch.cat((text, torch.full_like(text, NO_TOKEN)))
        with torch.inference_mode():
            prefix = read_text(model, text)
            for start in range(0, num_images, candidates_at_once):
                candidates = slice(start, start + candidates_at_once)
                out[captions, candidates] = _grow(model, prefix, noise[captions, candidates], settings, known)
    return out


def _grow(model: DALLETransformer, prefix: TextPrefix, noise: Tensor, settings: SamplingConfig, known: Tensor | None) -> Tensor:
    """Sample all tokens of noise.shape[:2] pictures, [P, C, num_image_tokens]."""
    num_captions, num_candidates, num_tokens = noise.shape
    decoder = ImageDecoder(model, prefix, num_candidates)
    tokens = torch.empty(noise.shape, dtype=torch.int64, device=noise.device)
    logits = decoder.first_logits()
    for i in range(num_tokens):
        if settings.guidance != 1:
            given, free = logits[:num_captions], logits[num_captions:]
            logits = free + settings.guidance * (given - free)
        drawn = draw_tokens(filter_logits(logits, settings.temperature, settings.top_k, settings.top_p), noise[..., i])
        if known is not None:
            fixed = known[:, i, None].expand_as(drawn)
            drawn = torch.where(fixed == FREE, drawn, fixed)
        tokens[..., i] = drawn
        if i + 1 < num_tokens:
            logits = decoder.next_logits(torch.cat((drawn, drawn)) if settings.guidance != 1 else drawn, i)
    return tokens


def _noise(seeds: Tensor, num_tokens: int) -> Tensor:
    """Uniform float64 [P, N, num_tokens]; each candidate's row comes from a generator of its own, on the CPU for every device."""
    generator = torch.Generator()
    rows = [torch.rand(num_tokens, dtype=torch.float64, generator=generator.manual_seed(seed)) for seed in seeds.flatten().tolist()]
    return torch.stack(rows).view(*seeds.shape, num_tokens)


def _check(tensor: Tensor, shape: tuple[int, ...], name: str, meaning: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {meaning} = {list(shape)}; is it for another transformer?")
