"""Sizes of the four networks: text vocabulary, discrete VAE, CLIP and transformer."""

import math
from dataclasses import dataclass, field
from typing import Literal

from dalle_datasets.ranges import check_ranges
from dalle_datasets.store.identity import LATER


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Byte-pair encoding of captions (paper, section 2.2)."""

    vocab_size: int = 16_384
    """Number of BPE ids; padding is not one of them (each text position has its own pad embedding)."""
    max_text_tokens: int = 256
    """Fixed length of the text part of the stream."""
    lowercase: bool = True
    """Captions are lower-cased before encoding."""
    bpe_dropout: float = 0.1
    """Share of BPE merges skipped at random while training the transformer (section 2.2)."""

    def __post_init__(self) -> None:
        if not 257 <= self.vocab_size <= 65_536:
            raise ValueError(
                f"tokenizer.vocab_size={self.vocab_size} must be in [257, 65536]: 256 bytes and at least one merge; stored as uint16"
            )
        check_ranges(self, vocab_size=(257, 65_536), max_text_tokens=(1, 1_000_000), bpe_dropout=(0, 0.999))


@dataclass(frozen=True, kw_only=True, slots=True)
class DVAEConfig:
    """The discrete VAE (section 2.1, Appendix A). Defaults are the released network."""

    image_size: int = 256
    """Side of the square pictures, pixels."""
    downsample: int = 8
    """Pixels per token along a side: 4, 8 or 16."""
    codebook_size: int = 8_192
    """K, the number of image tokens to choose from."""
    hidden_width: int = 256
    """Channels of the first group; group g has hidden_width * 2**g (`n_hid`)."""
    num_groups: int = 4
    """Groups of residual blocks; a 2 x 2 max-pool follows the first log2(downsample / stem_patch_size) of them."""
    blocks_per_group: int = 2
    """Residual blocks in a group (`n_blk_per_group`)."""
    codebook_width: int = 128
    """Width of a codebook entry: the decoder's first 1 x 1 convolution (`n_init`)."""
    stem_patch_size: int = 1
    """Pixels folded into channels before the first convolution; 1 in the paper, 2 makes small CPU models cheaper."""
    codebook_init: Literal["random", "patch_kmeans", "fixed_patches"] = "random"
    """`random` as in the paper. `patch_kmeans` adds linear paths round encoder and decoder whose codewords start as
    k-means centroids of image patches: short CPU trainings do not find a codebook from random weights. `fixed_patches` keeps
    these centroids as its tokens: an encoder without convolutions, and a decoder that alone is trained, on hard tokens and the
    error in pixels. It has the better pictures after minutes on a CPU, and `train_dvae`'s settings of temperature, KL and ln b
    do nothing."""

    def __post_init__(self) -> None:
        if self.downsample not in (4, 8, 16):
            raise ValueError(f"dvae.downsample={self.downsample} must be 4, 8 or 16")
        if self.image_size % self.downsample:
            raise ValueError(
                f"dvae.image_size={self.image_size} is not a multiple of dvae.downsample={self.downsample}; change one of them"
            )
        if not 2 <= self.codebook_size <= 65_536:
            raise ValueError(f"dvae.codebook_size={self.codebook_size} must be in [2, 65536]; tokens are stored as uint16")
        if self.hidden_width % 4:
            raise ValueError(f"dvae.hidden_width={self.hidden_width} must be a multiple of 4: a block's inner width is a quarter")
        if self.stem_patch_size not in (1, 2, 4) or self.stem_patch_size > self.downsample:
            raise ValueError(f"dvae.stem_patch_size={self.stem_patch_size} must be 1, 2 or 4")
        if self.num_groups < self.num_poolings + 1:
            raise ValueError(
                f"dvae.num_groups={self.num_groups} is too few for dvae.downsample={self.downsample}: "
                f"{self.num_poolings} poolings need {self.num_poolings + 1} groups"
            )
        check_ranges(
            self, image_size=(4, 65_536), downsample=(4, 16), codebook_size=(2, 65_536), hidden_width=(4, 1_000_000), num_groups=(1, 30),
            blocks_per_group=(1, 10_000), codebook_width=(1, 1_000_000), stem_patch_size=(1, 4),
        )  # fmt: skip

    @property
    def has_patch_paths(self) -> bool:
        """Whether encoder and decoder have linear paths that start as k-means centroids of patches."""
        return self.codebook_init != "random"

    @property
    def has_fixed_tokens(self) -> bool:
        """Whether tokens stay those of the first centroids, and the decoder alone is trained."""
        return self.codebook_init == "fixed_patches"

    @property
    def num_poolings(self) -> int:
        """How often the encoder halves the resolution after its stem."""
        return int(math.log2(self.downsample // self.stem_patch_size))

    @property
    def image_grid_size(self) -> int:
        """Side of the token grid."""
        return self.image_size // self.downsample

    @property
    def num_image_tokens(self) -> int:
        """Tokens of one picture, row-major."""
        return self.image_grid_size**2


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """The CLIP that scores pairs and reranks: an open_clip model, published or trained here."""

    pretrained: str = ""
    """`MODEL/TAG` of open_clip or `local-dir:PATH`; empty trains the small model below on our pairs."""
    image_size: int = 32
    """Side of the input picture, pixels."""
    patch_size: int = 4
    """Side of a vision patch, pixels."""
    embed_width: int = 64
    """Width of the shared embedding."""
    width: int = 96
    """Width of both towers."""
    head_width: int = 32
    """Width of one attention head."""
    vision_layers: int = 3
    """Layers of the vision tower."""
    text_layers: int = 2
    """Layers of the text tower."""

    def __post_init__(self) -> None:
        check_ranges(
            self, image_size=(1, 65_536), patch_size=(1, 65_536), embed_width=(1, 1_000_000), width=(1, 1_000_000),
            head_width=(1, 1_000_000), vision_layers=(1, 10_000), text_layers=(1, 10_000),
        )  # fmt: skip
        if self.image_size % self.patch_size:
            raise ValueError(f"clip.image_size={self.image_size} is not a multiple of clip.patch_size={self.patch_size}")
        if self.width % self.head_width:
            raise ValueError(f"clip.width={self.width} is not a multiple of clip.head_width={self.head_width}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """The sparse transformer (section 2.2, Appendix B). Vocabulary and grid come from tokenizer and dVAE."""

    num_layers: int = 64
    """Layers: column when (i - 2) mod 4 = 0, else row, counted from 1; the last one convolutional."""
    num_heads: int = 62
    """Attention heads."""
    d_model: int = 3_968
    """Width of the residual stream."""
    attention: Literal["sparse", "full"] = "sparse"
    """`sparse`: the paper's row, column and convolutional masks. `full`: causal everywhere, for comparison."""
    conv_kernel_size: int = 11
    """Side of the convolutional mask's window (Appendix B.1), odd."""
    dropout: float = 0.0
    """Dropout on embeddings and residual branches; the paper states none."""
    pads: Literal["per_position", "one"] = field(default="per_position", metadata=LATER)
    """`per_position`: a learned pad vector for each text position, as in the paper. `one`: the same vector everywhere, for comparison."""

    def __post_init__(self) -> None:
        check_ranges(
            self, num_layers=(1, 10_000), num_heads=(1, 100_000), d_model=(1, 10_000_000), conv_kernel_size=(1, 65_535), dropout=(0, 0.999)
        )
        if self.d_model % self.num_heads:
            raise ValueError(
                f"transformer.d_model={self.d_model} does not split evenly into transformer.num_heads={self.num_heads}; "
                f"choose a multiple of {self.num_heads}"
            )
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"transformer.conv_kernel_size={self.conv_kernel_size} must be odd")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamShape:
    """What one training sequence looks like: text positions, then image positions. Derived, never configured."""

    text_vocab_size: int
    max_text_tokens: int
    codebook_size: int
    image_grid_size: int

    @property
    def num_image_tokens(self) -> int:
        """Image positions."""
        return self.image_grid_size**2

    @property
    def num_positions(self) -> int:
        """All positions: 256 + 1,024 in the paper."""
        return self.max_text_tokens + self.num_image_tokens
