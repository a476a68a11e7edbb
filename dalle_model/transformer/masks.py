"""Attention masks: the paper's row, column and convolutional masks (Appendix B.1, Figure 11).

Text attends causally to text; every image position sees all the text; image positions see one another through
one of three sparse patterns, chosen by layer. These are the *definitions*: the fast forms in `attention.py`, the
sampler's cache in `cache.py` and the FLOP counts are tested against them.

A stream is `num_text` text positions followed by `grid_size ** 2` image positions in raster order. All three patterns
depend only on how far back a key lies, so a pattern is a set of raster offsets, query minus key:

    row     0 … W              itself and the W tokens before it, across row ends; the farthest is right above it
    column  0, W, 2W, …        itself and the tokens above it
    conv    see `conv_offsets` a window of K x K tokens that wraps round the rows, causal
    full    0, 1, 2, …         everything before it (not in the paper; for comparison)
"""

from typing import Literal

import torch
from torch import Tensor

MaskKind = Literal["row", "column", "conv", "full"]


def layer_kinds(num_layers: int, attention: Literal["sparse", "full"] = "sparse") -> tuple[MaskKind, ...]:
    """Mask of each layer: layer i, counted from 1, is column when (i - 2) mod 4 = 0, else row; the last one is convolutional."""
    kinds: list[MaskKind] = ["full"] * num_layers
    if attention == "sparse":
        kinds = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, num_layers)]
        kinds.append("conv")
    return tuple(kinds)


def conv_offsets(grid_size: int, kernel_size: int) -> tuple[int, ...]:
    """Offsets of the convolutional mask: at most K // 2 rows back and at most K // 2 columns to either side, modulo the row.

    The paper says "wraparound behaviour (similar to the row attention)" and no more. This rule is the one that gives Figure 11(d)
    token for token (offsets 0, 1, 3, 4, 5, 7 for W = 4, K = 3). With the paper's W = 32 and K = 11 it has 66 offsets; a
    window that is merely centred has 61 and does not give the figure.
    """
    reach = kernel_size // 2
    window = (reach + 1) * grid_size
    return tuple(o for o in range(min(window, grid_size**2)) if min(o % grid_size, grid_size - o % grid_size) <= reach)


def image_offsets(kind: MaskKind, grid_size: int, kernel_size: int) -> tuple[int, ...]:
    """How far back an image position may look, as raster offsets in ascending order; 0 is the position itself."""
    num_image_tokens = grid_size**2
    match kind:
        case "row":
            return tuple(range(min(grid_size + 1, num_image_tokens)))
        case "column":
            return tuple(range(0, num_image_tokens, grid_size))
        case "conv":
            return conv_offsets(grid_size, kernel_size)
        case "full":
            return tuple(range(num_image_tokens))


def image_mask(kind: MaskKind, grid_size: int, kernel_size: int) -> Tensor:
    """bool [num_image_tokens, num_image_tokens]: may the row's position attend to the column's?"""
    is_offset = torch.zeros(grid_size**2, dtype=torch.bool)
    is_offset[list(image_offsets(kind, grid_size, kernel_size))] = True
    position = torch.arange(grid_size**2)
    offset = position[:, None] - position[None, :]
    return (offset >= 0) & is_offset[offset.clamp(min=0)]


def stream_mask(kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> Tensor:
    """bool [N, N] over the whole stream, N = num_text + grid_size ** 2. One softmax spans text and image keys."""
    num_positions = num_text + grid_size**2
    mask = torch.zeros(num_positions, num_positions, dtype=torch.bool)
    mask[:num_text, :num_text] = torch.ones(num_text, num_text, dtype=torch.bool).tril()
    mask[num_text:, :num_text] = True
    mask[num_text:, num_text:] = image_mask(kind, grid_size, kernel_size)
    return mask
