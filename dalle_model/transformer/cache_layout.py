"""KV-cache layout per mask: entries that can still be attended to are contiguous, the rest are overwritten.

    row     a ring of the last W + 1 tokens
    column  all tokens, column by column: what a token sees is the start of its column's W slots
    conv    a ring of the last K // 2 + 1 rows, kept column by column: the columns within reach are one run of slots. The
            outermost columns are kept at both ends, so that the run goes on where the mask wraps round
    full    all tokens

Softmax does not care about the order of keys, and positions live in the embeddings, so nothing is ever moved.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from dalle_model.transformer.masks import MaskKind, image_offsets


@dataclass(frozen=True, slots=True, eq=False)
class CacheLayout:
    """Slots of one candidate in a layer of one kind, for each of the I image positions."""

    num_slots: int
    """How many tokens are kept."""
    num_read: int
    """How many neighbouring slots a position reads."""
    writes: Tensor
    """int64 [I, 1 or 2]: the slots that a position's key and value go to."""
    first: Tensor
    """int64 [I]: the first slot that a position reads."""
    is_visible: Tensor
    """bool [I, num_read]: whether a slot that is read holds a token that the mask lets the position see, itself included."""

    def reads(self) -> list[tuple[int, int, bool]]:
        """For each position (first slot, how many, whether `is_visible` must be obeyed), leaving out empty slots at the end."""
        found = []
        for first, is_visible in zip(self.first.tolist(), self.is_visible, strict=True):
            num_visible = int(is_visible.sum())
            is_prefix = bool(is_visible[:num_visible].all())
            found.append((first, num_visible if is_prefix else self.num_read, not is_prefix))
        return found


@functools.cache
def cache_layout(kind: MaskKind, grid_size: int, kernel_size: int) -> CacheLayout:
    """The plan for a kind of mask; `is_visible` follows from the mask's definition."""
    offsets = image_offsets(kind, grid_size, kernel_size)
    position = torch.arange(grid_size**2)
    row, column = position // grid_size, position % grid_size
    match kind:
        case "row" | "full":
            num_slots = num_read = len(offsets)
            writes, first = position % num_slots, torch.zeros_like(position)
        case "column":
            num_slots, num_read = grid_size**2, grid_size
            writes, first = column * grid_size + row, column * grid_size
        case "conv":
            reach = kernel_size // 2
            rows = min(reach + 1, grid_size)
            if 2 * reach + 1 >= grid_size:  # every column is within reach of every other
                num_slots = num_read = grid_size * rows
                writes, first = column * rows + row % rows, torch.zeros_like(position)
            else:
                num_slots, num_read = (grid_size + 2 * reach) * rows, (2 * reach + 1) * rows
                place = column + reach
                again = place + grid_size * ((column < reach).long() - (column >= grid_size - reach).long())
                writes, first = torch.stack((place, again), 1) * rows + (row % rows)[:, None], column * rows
    writes = writes.view(len(position), -1)
    return CacheLayout(num_slots, num_read, writes, first, _visible(num_slots, num_read, writes, first, offsets))


def _visible(num_slots: int, num_read: int, writes: Tensor, first: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """Follow who holds which slot, and ask the mask about each holder."""
    is_offset = torch.zeros(len(first), dtype=torch.bool)
    is_offset[list(offsets)] = True
    holder = torch.full((num_slots,), -1)
    is_visible = torch.empty(len(first), num_read, dtype=torch.bool)
    for position, start in enumerate(first.tolist()):
        holder[writes[position]] = position
        seen = holder[start : start + num_read]
        is_visible[position] = (seen >= 0) & is_offset[position - seen.clamp(min=0)]
    return is_visible
