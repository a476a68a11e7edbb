"""The discrete VAE: a picture becomes a small grid of image tokens, and the grid a picture again (section 2.1, Appendix A.1).

At default settings encoder and decoder are OpenAI's released networks, parameter for parameter; every size is
configurable. What differs from a usual VQ-VAE: no nearest-neighbour search (the encoder's logits choose the token), no
normalisation layers, max-pooling down and nearest-neighbour up, residual branches scaled by 1 / num_layers ** 2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.pixels import map_pixels, unmap_pixels

# Shapes: B batch, C channels, H W pixels, h w token grid, K codebook

# The first convolution spans about the same number of pixels whether or not they were folded into channels.
INPUT_KERNEL_SIZES = {1: 7, 2: 3, 4: 3}


class EncoderBlock(nn.Module):
    """Bottleneck residual block: three 3 x 3 convolutions, then 1 x 1, each after a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, residual_gain: float) -> None:
        super().__init__()
        inner = out_channels // 4
        self.skip = _skip(in_channels, out_channels)
        self.convs = nn.ModuleList(
            [_conv(in_channels, inner, 3), _conv(inner, inner, 3), _conv(inner, inner, 3), _conv(inner, out_channels, 1)]
        )
        self.residual_gain = residual_gain

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _residual(self, x_BCHW)


class DecoderBlock(nn.Module):
    """The encoder's block mirrored: 1 x 1, then three 3 x 3 convolutions, each after a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, residual_gain: float) -> None:
        super().__init__()
        inner = out_channels // 4
        self.skip = _skip(in_channels, out_channels)
        self.convs = nn.ModuleList(
            [_conv(in_channels, inner, 1), _conv(inner, inner, 3), _conv(inner, inner, 3), _conv(inner, out_channels, 3)]
        )
        self.residual_gain = residual_gain

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _residual(self, x_BCHW)


class Encoder(nn.Module):
    """Squeezed picture [B, 3, H, W] (`map_pixels`) to codebook logits [B, K, h, w]."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        if not config.has_fixed_tokens:
            self._make_convolutions(config)
        self.patch_logits = _conv(3 * config.downsample**2, config.codebook_size, 1) if config.has_patch_paths else None

    def _make_convolutions(self, config: DVAEConfig) -> None:
        stem = config.stem_patch_size
        width, gain = config.hidden_width, _residual_gain(config)
        self.input = _conv(3 * stem**2, width, INPUT_KERNEL_SIZES[stem])
        self.groups = nn.ModuleList()
        channels = width
        for g in range(config.num_groups):
            blocks = []
            for _ in range(config.blocks_per_group):
                blocks.append(EncoderBlock(channels, width * 2**g, gain))
                channels = width * 2**g
            self.groups.append(nn.Sequential(*blocks))
        self.output = _conv(channels, config.codebook_size, 1)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        if self.patch_logits is None:
            return self._convolve(images_B3HW)
        of_patches_BKhw = _in_float32(self.patch_logits, F.pixel_unshuffle(images_B3HW, self.config.downsample))
        return of_patches_BKhw if self.config.has_fixed_tokens else self._convolve(images_B3HW) + of_patches_BKhw

    def _convolve(self, images_B3HW: Tensor) -> Tensor:
        x = self.input(F.pixel_unshuffle(images_B3HW, self.config.stem_patch_size))
        for g, group in enumerate(self.groups):
            x = group(x)
            if g < self.config.num_poolings:
                x = F.max_pool2d(x, 2)
        return _in_float32(self.output, F.relu(x))


class Decoder(nn.Module):
    """Codebook weights [B, K, h, w] (a one-hot or a soft sample per position) to (mu, ln b), each [B, 3, H, W]."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        stem = config.stem_patch_size
        width, gain = config.hidden_width, _residual_gain(config)
        self.input = _conv(config.codebook_size, config.codebook_width, 1)
        self.groups = nn.ModuleList()
        channels = config.codebook_width
        for g in reversed(range(config.num_groups)):
            blocks = []
            for _ in range(config.blocks_per_group):
                blocks.append(DecoderBlock(channels, width * 2**g, gain))
                channels = width * 2**g
            self.groups.append(nn.Sequential(*blocks))
        self.output = _conv(channels, 6 * stem**2, 1)
        self.patch_pixels = _conv(config.codebook_size, 3 * config.downsample**2, 1) if config.has_patch_paths else None

    def forward(self, z_BKhw: Tensor) -> tuple[Tensor, Tensor]:
        patches = None if self.patch_pixels is None else _in_float32(self.patch_pixels, z_BKhw)
        return self._from_codewords(_in_float32(self.input, z_BKhw), patches)

    def from_tokens(self, tokens_Bhw: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives for one-hot `z`, looking codewords up instead of multiplying by zeros and a one."""
        patches = None if self.patch_pixels is None else _look_up(self.patch_pixels, tokens_Bhw)
        return self._from_codewords(_look_up(self.input, tokens_Bhw), patches)

    def _from_codewords(self, x: Tensor, patches: Tensor | None) -> tuple[Tensor, Tensor]:
        for i, group in enumerate(self.groups):
            x = group(x)
            if 1 <= self.config.num_groups - 1 - i <= self.config.num_poolings:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        x_B6HW = F.pixel_shuffle(_in_float32(self.output, F.relu(x)), self.config.stem_patch_size)
        mu, log_scale = x_B6HW[:, :3], x_B6HW[:, 3:]
        if patches is not None:
            mu = mu + F.pixel_shuffle(patches, self.config.downsample)
        return mu, log_scale


class DVAE(nn.Module):
    """Encoder and decoder with the checks and the two directions people use: `tokenize` and `decode_tokens`."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self._initialize()

    def encode_logits(self, images: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the tokens, float32 [B, K, h, w], for float images [B, 3, H, W] in [0, 1].

        Raises `ValueError` for another shape or for whole-number pixels.
        """
        side = self.config.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise ValueError(
                f"images have shape {_shape(images)}, but this dVAE reads [B, 3, {side}, {side}] "
                f"(dvae.image_size={side}); resize or transpose them"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, but this dVAE reads floating-point pixels in [0, 1]; divide bytes by 255")
        logits: Tensor = self.encoder(map_pixels(images))  # the published encoder, too, sees pixels in [0.1, 0.9]
        return logits

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Image tokens, int64 [B, num_image_tokens], row-major: the likeliest codeword of each position, without noise (section 2.2)."""
        return self.encode_logits(images).argmax(1).flatten(1)

    def decode_soft(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Location mu and log scale ln b of the logit-Laplace likelihood, each [B, 3, H, W].

        `z` [B, K, h, w] weighs the codewords of each position and sums to 1 over K. Raises `ValueError` for another shape.
        """
        size, grid = self.config.codebook_size, self.config.image_grid_size
        if z.ndim != 4 or tuple(z.shape[1:]) != (size, grid, grid):
            raise ValueError(
                f"z has shape {_shape(z)}, but this decoder reads [B, {size}, {grid}, {grid}] "
                f"(dvae.codebook_size={size}, token grid {grid} x {grid})"
            )
        if not z.is_floating_point():
            raise ValueError(f"z is {z.dtype}, but this decoder reads floating-point weights; for tokens use decode_tokens")
        mu, log_scale = self.decoder(z)
        return mu, log_scale

    @torch.no_grad()
    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Pictures, float32 [B, 3, H, W] in [0, 1], for whole-number tokens [B, num_image_tokens].

        The picture is sigmoid(mu), the likelihood's median, with the squeeze of `map_pixels` undone. Raises `ValueError` for
        another number of tokens per picture, another type, or a token outside the codebook.
        """
        size, grid = self.config.codebook_size, self.config.image_grid_size
        if tokens.ndim != 2 or tokens.shape[1] != grid**2:
            raise ValueError(f"tokens have shape {_shape(tokens)}, but this dVAE has {grid**2} tokens per picture: [B, {grid**2}]")
        if tokens.is_floating_point() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens are {tokens.dtype}, but a token is a whole number in [0, {size})")
        tokens = tokens.long()
        if tokens.numel():
            low, high = (int(v) for v in tokens.aminmax())
            if low < 0 or high >= size:
                raise ValueError(
                    f"tokens reach from {low} to {high}, but this dVAE's codebook has tokens 0 to {size - 1} "
                    f"(dvae.codebook_size={size}); were they made by another dVAE?"
                )
        mu, _ = self.decoder.from_tokens(tokens.view(-1, grid, grid))
        return unmap_pixels(torch.sigmoid(mu.float()))

    @torch.no_grad()
    def _initialize(self) -> None:
        """Weights N(0, 1 / fan_in), biases 0, as in the released code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    module.bias.zero_()


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2)


def _skip(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Identity() if in_channels == out_channels else _conv(in_channels, out_channels, 1)


def _residual_gain(config: DVAEConfig) -> float:
    return 1 / (config.num_groups * config.blocks_per_group) ** 2


def _residual(block: "EncoderBlock | DecoderBlock", x: Tensor) -> Tensor:
    residual = x
    for conv in block.convs:
        residual = conv(F.relu(residual))
    return torch.add(block.skip(x), residual, alpha=block.residual_gain)


def _in_float32(conv: nn.Conv2d, x: Tensor) -> Tensor:
    # As in the released code: the logits and the codebook lookup keep full precision under mixed precision.
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = conv(x.float())
    return y


def _look_up(conv: nn.Conv2d, tokens_Bhw: Tensor) -> Tensor:
    """A 1 x 1 convolution of one-hot vectors, exactly: row `token` of the transposed weight, plus the bias."""
    assert conv.bias is not None
    codewords = F.embedding(tokens_Bhw, conv.weight[:, :, 0, 0].t()) + conv.bias
    return codewords.permute(0, 3, 1, 2)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
