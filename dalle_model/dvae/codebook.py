"""A codebook that starts from the pictures: k-means over patches. Not in the paper; off unless `dvae.codebook_init` asks for it.

From random weights a dVAE needs tens of thousands of updates before its tokens mean anything; a demo on a CPU
has a few hundred. With `patch_kmeans` encoder and decoder have a linear path round their convolutions: the encoder's
scores a patch by its distance to each codeword, the decoder's writes the codeword's pixels. Those paths start as k-means
centroids, the convolutions' last layers start at zero, and everything is then trained together with the paper's objective.

With `fixed_patches` the centroids stay the tokens, and a decoder is trained to undo them. What it sees of a token starts as the
centroid's pixels, so that its first update already knows which tokens are alike: from random numbers it gained a third of that.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dalle_model.dvae.model import DVAE
from dalle_model.dvae.pixels import LOGIT_LAPLACE_EPS, map_pixels

# Shapes: N patches, P values of a patch, K codebook

MAX_PATCHES = 20_000
"""Distinct patches that k-means looks at: more changed nothing at the demo's size."""
MAX_FIXED_PATCHES = 60_000
"""As many for tokens that no training improves afterwards: 0.24 dB on emoji of 64 pixels."""
ITERATIONS = 12
CHROMA_WEIGHT = 2.0
"""How much more a difference in colour counts than one in lightness when patches are compared. Outlines have the largest
lightness steps; at weight 1 they take the codewords, and one in seven objects comes back in a neighbouring colour."""
LUMA = (0.299, 0.587, 0.114)
SHARPNESS = 16.0
"""How many nats the logit of a codeword falls below the best possible one at the mean squared distance of a patch from its codeword."""


@torch.no_grad()
def initialize_codebook(model: DVAE, images: Tensor, seed: int) -> None:
    """Set the linear paths of a `patch_kmeans` or `fixed_patches` dVAE from float images [B, 3, H, W] in [0, 1].

    The images are all its training pictures, or a sample of them.

    Raises `ValueError` when the pictures have fewer distinct patches than the codebook has entries.
    """
    config = model.config
    encoder, decoder = model.encoder.patch_logits, model.decoder.patch_pixels
    assert encoder is not None, "a dVAE with dvae.codebook_init=random has no linear paths"
    assert decoder is not None, "a dVAE with dvae.codebook_init=random has no linear paths"
    assert encoder.bias is not None, "the linear path has a bias"
    assert decoder.bias is not None, "the linear path has a bias"
    patches_NP = torch.unique(F.pixel_unshuffle(map_pixels(images), config.downsample).permute(0, 2, 3, 1).flatten(0, 2), dim=0)
    if len(patches_NP) < config.codebook_size:
        raise ValueError(
            f"the pictures have {len(patches_NP)} distinct patches of {config.downsample} x {config.downsample} pixels, fewer than "
            f"dvae.codebook_size={config.codebook_size}; choose a smaller codebook or more pictures"
        )
    generator = torch.Generator().manual_seed(seed)
    num_patches = MAX_FIXED_PATCHES if config.has_fixed_tokens else MAX_PATCHES
    patches_NP = patches_NP[torch.randperm(len(patches_NP), generator=generator)[:num_patches]]
    metric_PP = _metric(config.downsample**2)
    metric_KP = kmeans(patches_NP @ metric_PP, config.codebook_size, ITERATIONS, generator)
    sharpness = SHARPNESS / float(_squared_distances(patches_NP @ metric_PP, metric_KP).amin(1).mean().clamp_min(1e-8))
    # -sharpness * |(patch - centroid) metric|^2, without the term that is the same for every codeword.
    encoder.weight.copy_((2 * sharpness * metric_KP @ metric_PP.t())[:, :, None, None])
    encoder.bias.copy_(-sharpness * metric_KP.square().sum(1))
    centroids_KP = (metric_KP @ torch.linalg.inv(metric_PP)).clamp(LOGIT_LAPLACE_EPS, 1 - LOGIT_LAPLACE_EPS)
    decoder.weight.copy_(torch.logit(centroids_KP).t()[:, :, None, None])
    decoder.bias.zero_()
    # One-hot input has a single 1 where other layers see many numbers: only weights of unit size reach the next layer at that size.
    model.decoder.input.weight.normal_(generator=generator)
    if config.has_fixed_tokens:
        pixels_KP = (centroids_KP - centroids_KP.mean(0)) / centroids_KP.std().clamp_min(1e-8)
        num_channels = min(config.codebook_width, pixels_KP.shape[1])
        model.decoder.input.weight[:num_channels] = pixels_KP[:, :num_channels].t()[:, :, None, None]
    for output in (model.decoder.output,) if config.has_fixed_tokens else (model.encoder.output, model.decoder.output):
        output.weight.zero_()
        assert output.bias is not None, "output layers have a bias"
        output.bias.zero_()


def kmeans(points_NP: Tensor, num_clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Centroids [K, P] by Lloyd's algorithm from random points; a cluster that lost all its points restarts at the worst served one."""
    centroids_KP = points_NP[torch.randperm(len(points_NP), generator=generator)[:num_clusters]].clone()
    for _ in range(iterations):
        distances_N, nearest_N = _squared_distances(points_NP, centroids_KP).min(1)
        counts_K = torch.bincount(nearest_N, minlength=num_clusters)
        sums_KP = torch.zeros_like(centroids_KP).index_add_(0, nearest_N, points_NP)
        centroids_KP = torch.where(counts_K[:, None] > 0, sums_KP / counts_K.clamp_min(1)[:, None], centroids_KP)
        empty = (counts_K == 0).nonzero()[:, 0]
        centroids_KP[empty] = points_NP[distances_N.topk(len(empty)).indices]
    return centroids_KP


def _metric(values_per_channel: int) -> Tensor:
    """Matrix [P, P]: rows of patches times it are compared by plain distance. Lightness stays, colour is stretched."""
    lightness_33 = torch.tensor(LUMA)[:, None].expand(3, 3)
    stretch_33 = lightness_33 + CHROMA_WEIGHT * (torch.eye(3) - lightness_33)
    return torch.kron(stretch_33, torch.eye(values_per_channel))


def _squared_distances(points_NP: Tensor, centroids_KP: Tensor) -> Tensor:
    squares_NK = points_NP.square().sum(1, keepdim=True) - 2 * points_NP @ centroids_KP.t() + centroids_KP.square().sum(1)
    return squares_NK.clamp_min(0)
