"""The logit-Laplace likelihood of pixels (Appendix A.3); `map_pixels` keeps it finite.

Pixels live in (0, 1); a Gaussian or Laplace density would waste mass outside. The logit-Laplace is the law of
sigmoid(Laplace(mu, b)): it has bounded support, and an L1-like loss in logit space.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def logit_laplace_log_prob(pixels: Tensor, mu: Tensor, log_scale: Tensor) -> Tensor:
    """ln f(x | mu, b) of every pixel value x in (0, 1) (use `map_pixels` first), b = exp(log_scale); same shape as the inputs.

    f integrates to 1 over (0, 1): -ln(2 b x (1 - x)) - |logit(x) - mu| / b.
    """
    log_jacobian = torch.log(pixels) + torch.log1p(-pixels)
    return -(math.log(2) + log_scale + log_jacobian) - (torch.logit(pixels) - mu).abs() * torch.exp(-log_scale)


def soft_floor(log_scale: Tensor, floor: float | None) -> Tensor:
    """`log_scale`, bent smoothly so that it stays above `floor`; unchanged when there is none (the paper)."""
    return log_scale if floor is None else floor + F.softplus(log_scale - floor)
