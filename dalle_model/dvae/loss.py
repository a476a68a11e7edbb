"""The dVAE's objective: the evidence lower bound with a weighted KL term, per pixel value (section 2.1, Appendix A.2).

`hard_token_loss` is not the paper's: it trains the decoder of a `fixed_patches` dVAE.
"""

import torch
from torch import Tensor

from dalle_model.dvae.likelihood import logit_laplace_log_prob, soft_floor
from dalle_model.dvae.model import DVAE
from dalle_model.dvae.pixels import LOGIT_LAPLACE_EPS, map_pixels
from dalle_model.dvae.relaxation import gumbel_softmax, kl_to_uniform


def dvae_loss(
    model: DVAE, images: Tensor, *, temperature: float, kl_weight: float, min_log_scale: float | None, straight_through: bool = False
) -> dict[str, Tensor]:
    """Loss and its terms for float images [B, 3, H, W] in [0, 1].

    `loss` = `reconstruction_loss` (nats per pixel value) + kl_weight * `kl_nats` * positions / pixel values: the paper
    sums both terms over the picture and divides by 256 * 256 * 3. `kl_nats` is the mean KL of one position.
    """
    logits_BKhw = model.encode_logits(images)
    mu, log_scale = model.decode_soft(gumbel_softmax(logits_BKhw, temperature, straight_through))
    log_prob = logit_laplace_log_prob(map_pixels(images.float()), mu.float(), soft_floor(log_scale.float(), min_log_scale))
    reconstruction_loss = -log_prob.mean()
    kl_nats = kl_to_uniform(logits_BKhw)
    positions_per_value = model.config.num_image_tokens / images[0].numel()
    loss = reconstruction_loss + kl_weight * positions_per_value * kl_nats
    return {"loss": loss, "reconstruction_loss": reconstruction_loss.detach(), "kl_nats": kl_nats.detach()}


SQUARED_ERROR_WEIGHT = 3.0
"""Weight of the squared error beside the absolute one: squares see large errors, absolute values keep edges sharp."""


def hard_token_loss(model: DVAE, images: Tensor) -> dict[str, Tensor]:
    """How far pictures [B, 3, H, W] in [0, 1] are from what the decoder makes of their likeliest tokens; no gradient for the encoder.

    `loss` = mean absolute error + 3 x mean squared error of pixel values in [0, 1].
    """
    with torch.no_grad():
        tokens = model.encode_logits(images).argmax(1)
    loss = pixel_error(model.decoder.from_tokens(tokens)[0], images)
    return {"loss": loss, "reconstruction_loss": loss.detach()}


def pixel_error(mu: Tensor, images: Tensor) -> Tensor:
    """`hard_token_loss` of decoded pictures, sigmoid(mu); the squeeze of `map_pixels` is undone without clamping, which has no gradient."""
    errors = (torch.sigmoid(mu.float()) - map_pixels(images.float())) / (1 - 2 * LOGIT_LAPLACE_EPS)
    return errors.abs().mean() + SQUARED_ERROR_WEIGHT * errors.square().mean()


def codebook_perplexity(occurrences_K: Tensor) -> float:
    """exp of the entropy of how often each token was used: K when all are used equally, 1 when only one is."""
    shares = occurrences_K.double() / occurrences_K.sum().clamp_min(1)
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))
