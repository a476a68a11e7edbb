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
GUIDED = replace(SETTINGS, guidance=2.0)
FILTERED = replace(SETTINGS, temperature=0.8, top_k=7, top_p=0.9)


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


@pytest.mark.parametrize("is_static", [False, True])
def test_samples_are_those_of_the_full_forward_pass(model: DALLETransformer, is_static: bool) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    found = sample_image_tokens(model, TEXT, 4, SETTINGS, seeds, is_static=is_static)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.flatten().tolist()]
    noise = torch.stack([torch.rand(16, dtype=torch.float64, generator=generator) for generator in generators])
    assert torch.equal(found.flatten(0, 1), by_full_forward_pass(model, TEXT.repeat_interleave(4, 0), noise))
    assert len(found.flatten(0, 1).unique(dim=0)) > 6


@pytest.mark.parametrize("settings", [SETTINGS, GUIDED, FILTERED], ids=["plain", "guided", "filtered"])
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 12])
def test_a_picture_does_not_depend_on_its_batch(
    model: DALLETransformer, batch_size: int, is_static: bool, settings: SamplingConfig
) -> None:
    # Static batches are filled up where pictures run out: 3 at a time leave one over, 8 leave half a batch.
    seeds = candidate_seeds(0, PROMPTS, 4)
    known = torch.full((3, 16), FREE)
    known[1, 5:9] = 7
    expected = sample_image_tokens(model, TEXT, 4, settings, seeds, known)
    settings = replace(settings, batch_size=batch_size)
    assert torch.equal(sample_image_tokens(model, TEXT, 4, settings, seeds, known, is_static), expected)


@pytest.mark.parametrize("settings", [SETTINGS, GUIDED, FILTERED], ids=["plain", "guided", "filtered"])
def test_a_picture_can_be_made_again_from_its_seed_alone(model: DALLETransformer, settings: SamplingConfig) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    expected = sample_image_tokens(model, TEXT, 4, settings, seeds)
    again = sample_image_tokens(model, TEXT[1:2], 1, settings, seeds[1:2, 2:3])
    assert torch.equal(again[0, 0], expected[1, 2])


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, GUIDED, FILTERED], ids=["plain", "guided", "filtered"])
def test_in_bf16_a_picture_depends_on_its_seed_and_the_batchs_shape_but_not_on_its_neighbours(
    model: DALLETransformer, settings: SamplingConfig, is_static: bool
) -> None:
    model = model.float().hold_weights_in(torch.bfloat16)
    seeds = candidate_seeds(0, PROMPTS, 4)
    expected = sample_image_tokens(model, TEXT, 4, settings, seeds, is_static=is_static)
    assert ((expected >= 0) & (expected < 11)).all()
    others = candidate_seeds(1, PROMPTS, 4)
    others[1, 2] = seeds[1, 2]
    text = TEXT.flip(1).clamp(min=0)
    text[1] = TEXT[1]
    found = sample_image_tokens(model, text, 4, settings, others, is_static=is_static)
    assert torch.equal(found[1, 2], expected[1, 2])
    assert not torch.equal(found[0], expected[0])


def test_seeds_belong_to_seed_prompt_and_place() -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    assert len(seeds.unique()) == 12
    assert torch.equal(candidate_seeds(0, ["c"], 2), seeds[2:, :2])
    assert not torch.equal(candidate_seeds(1, PROMPTS, 4), seeds)


def test_a_low_temperature_takes_the_most_likely_tokens(model: DALLETransformer) -> None:
    cold = sample_image_tokens(model, TEXT, 4, replace(SETTINGS, temperature=1e-3), candidate_seeds(0, PROMPTS, 4))
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


def test_any_known_tokens_are_taken_in_where_they_stand(model: DALLETransformer) -> None:
    # Not only top rows: what comes after a known token must have seen it, so the rest is what the full pass draws given it.
    known = torch.full((3, 16), FREE)
    known[:, [2, 3, 9, 15]] = torch.tensor([4, 0, 10, 1])
    seeds = candidate_seeds(0, PROMPTS, 1)
    found = sample_image_tokens(model, TEXT, 1, replace(SETTINGS, top_k=1), seeds, known)[:, 0]
    greedy = model(TEXT, found)[1].argmax(-1)
    assert torch.equal(found, torch.where(known == FREE, greedy, known))
    assert not torch.equal(greedy, found)


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


def test_tokens_of_another_vocabulary_are_named(model: DALLETransformer) -> None:
    seeds = candidate_seeds(0, PROMPTS, 2)
    with pytest.raises(
        ValueError, match="text_tokens holds 20, but this transformer knows 0 to 19, and -1 for none; was it made by another"
    ):
        sample_image_tokens(model, TEXT + 11, 2, SETTINGS, seeds)
    known = torch.full((3, 16), FREE)
    known[0, 3] = 11
    with pytest.raises(ValueError, match="known_image_tokens holds 11, but this transformer knows 0 to 10, and -1 for none"):
        sample_image_tokens(model, TEXT, 2, SETTINGS, seeds, known)


@pytest.mark.parametrize("is_static", [False, True])
def test_logits_that_are_no_numbers_are_an_error(model: DALLETransformer, is_static: bool) -> None:
    seeds = candidate_seeds(0, PROMPTS, 4)
    with torch.no_grad():
        model.image_embedding.weight[7] = torch.nan  # seen as soon as token 7 is drawn
    with pytest.raises(ValueError, match=r"the transformer gave logits that are not numbers .* set sampling\.precision=fp32"):
        sample_image_tokens(model, TEXT, 4, SETTINGS, seeds, is_static=is_static)


def test_a_forbidden_token_is_no_error(model: DALLETransformer) -> None:
    with torch.no_grad():
        model.image_head.bias[3] = -torch.inf
    found = sample_image_tokens(model, TEXT, 4, SETTINGS, candidate_seeds(0, PROMPTS, 4))
    assert (found != 3).all()
