"""The masks for FlexAttention, which compiles them into a kernel that leaves out whole blocks of the score matrix on a GPU.

On CUDA it has not been measured or run by us yet: no GPU was at hand (`tests/on_gpu/test_transformer.py` waits for one). On a CPU torch
refuses its backward pass, although the uncompiled form has one: with that refusal lifted the tests compare outputs and gradients
with the definitions. Column layers see the picture transposed,
so that a column's tokens are neighbours: 27 of 100 blocks of 128 x 128 at the paper's layout, instead of 55.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from dalle_model.compiling import compiled
from dalle_model.transformer.masks import MaskKind

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

log = logging.getLogger(__name__)


def mask_mod(kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> MaskMod:
    """May query position `q` attend to key position `k`? Columns expect the picture in column order (`column_order`)."""
    reach = kernel_size // 2

    def row(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & ((k < num_text) | (q - k <= grid_size))

    def column(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & ((k < num_text) | ((q - num_text) // grid_size == (k - num_text) // grid_size))

    def conv(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        offset = q - k
        is_in_window = (offset // grid_size <= reach) & ((offset + reach) % grid_size <= 2 * reach)
        return (offset >= 0) & ((k < num_text) | is_in_window)

    def full(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) | (k < 0)

    return {"row": row, "column": column, "conv": conv, "full": full}[kind]


def column_order(num_text: int, grid_size: int) -> Tensor:
    """Stream positions with the picture column by column, int64 [N]."""
    image = torch.arange(grid_size**2).view(grid_size, grid_size).T.flatten()
    return torch.cat((torch.arange(num_text), num_text + image))


class FlexAttention(nn.Module):
    """Attention of one kind through FlexAttention: compiled on CUDA, the plain form elsewhere (forward only)."""

    def __init__(self, kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> None:
        super().__init__()
        self.num_positions = num_text + grid_size**2
        self.mask_mod = mask_mod(kind, num_text, grid_size, kernel_size)
        self.order = column_order(num_text, grid_size) if kind == "column" else None
        self._block_masks: dict[torch.device, tuple[BlockMask, Tensor | None, Tensor | None]] = {}

    def forward(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor) -> Tensor:
        """[B, H, N, K]."""
        block_mask, order, inverse = self._on(q_BHNK.device)
        attend = _compiled() if q_BHNK.is_cuda else flex_attention
        if order is None or inverse is None:
            out_BHNK: Tensor = attend(q_BHNK, k_BHNK, v_BHNK, block_mask=block_mask)
            return out_BHNK
        q_BHNK, k_BHNK, v_BHNK = (x.index_select(2, order) for x in (q_BHNK, k_BHNK, v_BHNK))
        out_BHNK = attend(q_BHNK, k_BHNK, v_BHNK, block_mask=block_mask)
        return out_BHNK.index_select(2, inverse)

    def _on(self, device: torch.device) -> tuple[BlockMask, Tensor | None, Tensor | None]:
        """The blocks to compute and the order of positions, made once per device."""
        if device not in self._block_masks:
            size = self.num_positions
            with torch.inference_mode(False):  # a later backward pass keeps them, whatever the first pass is for
                block_mask = create_block_mask(self.mask_mod, None, None, size, size, device=str(device))
                order = None if self.order is None else self.order.to(device)
                self._block_masks[device] = (block_mask, order, None if order is None else order.argsort())
        return self._block_masks[device]


@functools.cache
def flex_works(device: torch.device) -> bool:
    """Whether FlexAttention compiles here, forward and backward; tried once per device. Says why not in a warning."""
    if device.type != "cuda":
        return False
    try:
        _try_out(device)
    except Exception as error:  # whatever a compiler, a driver or Triton may raise: attention has another form to fall back on
        log.warning("FlexAttention does not work on %s (%s: %s); structured attention is used instead", device, type(error).__name__, error)
        return False
    return True


def _try_out(device: torch.device) -> None:
    """Compute a small output and its gradient, also where the caller wants none: a training begins with a validation."""
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator(device).manual_seed(0)  # leaves the caller's random numbers as they are
        q = torch.randn(1, 1, 128, 16, device=device, generator=generator, requires_grad=True)
        mask = create_block_mask(mask_mod("row", 64, 8, 3), None, None, 128, 128, device=str(device))
        _compiled()(q, q, q, block_mask=mask).sum().backward()


@functools.cache
def _compiled() -> Any:
    return compiled(flex_attention)
