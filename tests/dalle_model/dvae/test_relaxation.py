"""The relaxed sample is a soft choice among tokens, and its schedules are the paper's."""

import math

import pytest
import torch

from dalle_model.dvae.relaxation import cosine_schedule, gumbel_softmax, kl_to_uniform


def test_samples_sum_to_one_over_the_codebook():
    torch.manual_seed(0)
    z = gumbel_softmax(torch.randn(2, 7, 3, 3), temperature=0.8)
    torch.testing.assert_close(z.sum(1), torch.ones(2, 3, 3))
    assert z.max() < 1, "samples are soft in the forward pass"


def test_a_cold_sample_is_one_hot_and_follows_the_logits():
    torch.manual_seed(0)
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1])).view(1, 3, 1, 1).expand(1, 3, 100, 100)
    z = gumbel_softmax(logits, temperature=1e-4)
    assert z.amax(1).mean() > 0.999
    shares = z.argmax(1).flatten().bincount(minlength=3) / 10_000
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.02, rtol=0)


def test_gradients_are_those_of_the_soft_sample():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 1, 1, requires_grad=True)
    noise_free = gumbel_softmax(logits, temperature=0.5)
    (noise_free * torch.arange(4.0).view(1, 4, 1, 1)).sum().backward()
    z = noise_free.detach().flatten()
    values = torch.arange(4.0)
    by_hand = (z * (values - (z * values).sum())) / 0.5  # the softmax's Jacobian
    torch.testing.assert_close(logits.grad.flatten(), by_hand)


def test_straight_through_is_one_hot_with_the_gradient_of_the_soft_sample():
    def draw(straight_through):
        torch.manual_seed(0)
        logits = torch.randn(1, 4, 2, 2, requires_grad=True)
        sample = gumbel_softmax(logits, 0.5, straight_through)
        (sample * torch.arange(4.0).view(1, 4, 1, 1)).sum().backward()
        return sample.detach(), logits.grad

    (soft, expected), (hard, gradient) = draw(False), draw(True)
    assert torch.equal(hard.amax(1), torch.ones(1, 2, 2))
    assert torch.equal(hard.sum(1), torch.ones(1, 2, 2))
    assert torch.equal(hard.argmax(1), soft.argmax(1))
    torch.testing.assert_close(gradient, expected)


def test_half_precision_logits_give_float32_samples():
    assert gumbel_softmax(torch.zeros(1, 4, 1, 1, dtype=torch.bfloat16), temperature=1.0).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature=.* must be positive; for hard tokens take the argmax"):
        gumbel_softmax(torch.zeros(1, 2, 1, 1), temperature)


def test_kl_is_zero_for_uniform_and_ln_k_for_a_certain_choice():
    assert float(kl_to_uniform(torch.full((2, 8, 3, 3), 5.0))) == pytest.approx(0, abs=1e-6)
    certain = torch.zeros(2, 8, 3, 3)
    certain[:, 3] = 100
    assert float(kl_to_uniform(certain)) == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("start", "end", "num_steps", "expected"),
    [
        (1.0, 1 / 16, 150_000, {0: 1.0, 75_000: (1 + 1 / 16) / 2, 150_000: 1 / 16, 400_000: 1 / 16}),
        (0.0, 6.6, 5_000, {0: 0.0, 2_500: 3.3, 9_000: 6.6}),
    ],
)
def test_schedules_are_half_a_cosine_then_flat(start, end, num_steps, expected):
    for step, value in expected.items():
        assert cosine_schedule(step, start, end, num_steps) == pytest.approx(value)


def test_a_schedule_without_steps_is_at_its_end():
    assert cosine_schedule(0, 0.0, 6.6, 0) == 6.6
