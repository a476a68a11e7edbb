"""The logit-Laplace likelihood is a density."""

import math

import pytest
import torch

from dalle_model.dvae.likelihood import logit_laplace_log_prob, soft_floor
from dalle_model.dvae.pixels import LOGIT_LAPLACE_EPS, map_pixels


@pytest.mark.parametrize("mu", [-3.0, 0.0, 1.5])
@pytest.mark.parametrize("log_scale", [-2.0, -0.5])
def test_density_integrates_to_one(mu, log_scale):
    # Steps that are even in logit space, where the density's tails are exponential.
    logits = torch.linspace(-60, 60, 2_000_001, dtype=torch.float64)
    pixels = torch.sigmoid(logits)
    inside = (pixels > 0) & (pixels < 1)
    density = logit_laplace_log_prob(pixels[inside], torch.tensor(mu), torch.tensor(log_scale)).exp()
    assert float(torch.trapezoid(density, pixels[inside])) == pytest.approx(1, abs=1e-4)


def test_density_at_its_centre_is_the_formula():
    log_prob = logit_laplace_log_prob(torch.tensor(0.5), torch.tensor(0.0), torch.tensor(0.0))
    assert float(log_prob) == pytest.approx(-math.log(2 * 1 * 0.5 * 0.5))


def test_a_pixel_is_likelier_where_mu_points():
    pixel, log_scale = torch.tensor(0.7), torch.tensor(-1.0)
    assert logit_laplace_log_prob(pixel, torch.logit(pixel), log_scale) > logit_laplace_log_prob(pixel, torch.tensor(0.0), log_scale)


def test_squeezed_black_and_white_have_a_finite_likelihood():
    pixels = map_pixels(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(pixels, torch.tensor([LOGIT_LAPLACE_EPS, 1 - LOGIT_LAPLACE_EPS]))
    assert logit_laplace_log_prob(pixels, torch.zeros(2), torch.zeros(2)).isfinite().all()


def test_soft_floor_holds_from_below_and_leaves_large_values_alone():
    log_scale = torch.tensor([-100.0, 20.0])
    torch.testing.assert_close(soft_floor(log_scale, -1.5), torch.tensor([-1.5, 20.0]))
    assert soft_floor(log_scale, None) is log_scale
