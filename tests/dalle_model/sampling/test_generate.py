"""Sampling: a picture depends on caption, settings and its seed, and on nothing else."""

from dataclasses import replace

import pytest
import torch

from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.sampling.generate import FREE, candidate_seeds, sample_image_tokens
from dalle_model.transformer import NO_TOKEN, DALLETransformer

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=4)
TEXT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN], [9, 2, 6, 5, 3], [7, NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN]])
PROMPTS = ["a", "b", "c"]
SETTINGS = SamplingConfig(num_images=4, batch_size=64)


@pytest.fixture
def model() -> DALLETransformer:
    torch.manual_seed(0)
    model = DALLETransformer(TransformerConfig(num_layers=4, num_heads=2, d_model=16, conv_kernel_size=3), STREAM).double().eval()
    for head in (model.image_head,):
        torch.nn.init.normal_(head.weight, std=1.0)  # opinions strong enough that captions and tokens matter
    return model


def by_full_forward_pass(model: DALLETransformer, text: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    tokens = torch.zeros(len(text), 16, dtype=torch.int64)
    for i in range(16):
        p = model(text, tokens)[1][:, i].softmax(-1)
        tokens[:, i] = (p.cumsum(-1) <= noise[:, i, None]).sum(-1)
    return tokens


def test_samples_are_those_of_the_full_forward_pass(model: DALLETransformer) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    found = sample_image_tokens(model, TEXT, 4, SETTINGS, seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.flatten().tolist()]
    noise = torch.stack([torch.rand(16, dtype=torch.float64, generator=generator) for generator in generators])
    assert torch.equal(found.flatten(0, 1), by_full_forward_pass(model, TEXT.repeat_interleave(4, 0), noise))
    assert len(found.flatten(0, 1).unique(dim=0)) > 6


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 12])
def test_a_picture_does_not_depend_on_its_batch(model: DALLETransformer, batch_size: int) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    expected = sample_image_tokens(model, TEXT, 4, SETTINGS, seeds)
    assert torch.equal(sample_image_tokens(model, TEXT, 4, replace(SETTINGS, batch_size=batch_size), seeds), expected)


def test_a_picture_can_be_made_again_from_its_seed_alone(model: DALLETransformer) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    expected = sample_image_tokens(model, TEXT, 4, SETTINGS, seeds)
    again = sample_image_tokens(model, TEXT[1:2], 1, SETTINGS, seeds[1:2, 2:3])
    assert torch.equal(again[0, 0], expected[1, 2])


def test_seeds_belong_to_seed_prompt_and_place() -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    assert len(seeds.unique()) == 12
    assert torch.equal(candidate_seeds(0, ["c"], 2), seeds[2:, :2])
    assert not torch.equal(candidate_seeds(1, PROMPTS, 4), seeds)


def test_a_low_temperature_takes_the_most_likely_tokens(model: DALLETransformer) -> None:
    cold = sample_image_tokens(model, TEXT, 4, replace(SETTINGS, temperature=1e-6), candidate_seeds(0, PROMPTS, 4))
    greedy = sample_image_tokens(model, TEXT, 4, replace(SETTINGS, top_k=1), candidate_seeds(1, PROMPTS, 4))
    assert torch.equal(cold, greedy)
    logits = model(TEXT, cold[:, 0])[1]
    assert torch.equal(logits.argmax(-1), cold[:, 0])


def test_guidance_moves_from_the_empty_captions_logits_through_the_captions_and_beyond(model: DALLETransformer) -> None:
    seeds = candidate_seeds(0, PROMPTS, 1)
    found = sample_image_tokens(model, TEXT, 1, replace(SETTINGS, guidance=3.0, top_k=1), seeds)[:, 0]
    given, free = model(TEXT, found)[1], model(torch.full_like(TEXT, NO_TOKEN), found)[1]
    assert torch.equal((free + 3 * (given - free)).argmax(-1), found)
    assert not torch.equal(given.argmax(-1), found)


def test_known_tokens_stay_and_the_rest_follows_from_them(model: DALLETransformer) -> None:
    known = torch.full((3, 16), FREE)
    known[:, :8] = torch.arange(8)
    found = sample_image_tokens(model, TEXT, 2, SETTINGS, candidate_seeds(0, PROMPTS, 2), known)
    assert torch.equal(found[..., :8], torch.arange(8).expand(3, 2, 8))
    assert not torch.equal(found[:, 0, 8:], found[:, 1, 8:])


def test_tensors_of_another_shape_are_named(model: DALLETransformer) -> None:
    with pytest.raises(ValueError, match=r"text_tokens has shape \[3, 4\], expected \[captions, max_text_tokens\] = \[3, 5\]; is it for"):
        sample_image_tokens(model, TEXT[:, :4], 2, SETTINGS, candidate_seeds(0, PROMPTS, 2))
    with pytest.raises(ValueError, match=r"seeds has shape \[3, 1\], expected \[captions, num_images\] = \[3, 2\]"):
        sample_image_tokens(model, TEXT, 2, SETTINGS, candidate_seeds(0, PROMPTS, 1))
    with pytest.raises(ValueError, match=r"known_image_tokens has shape \[3, 4\], expected .* = \[3, 16\]"):
        sample_image_tokens(model, TEXT, 2, SETTINGS, candidate_seeds(0, PROMPTS, 2), torch.zeros(3, 4))
