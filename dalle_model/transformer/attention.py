"""Attention over one stream of text and image, in fast forms that give what the masks in `masks.py` define.

    masked      scaled dot-product attention with the definition as a boolean mask: every query meets every key
    structured  each block of image rows (or each column) meets only the text and the few rows it may see, in one
                softmax. At the paper's layout that is about a fifth of the score matrix.
    flex        the mask compiled into a kernel that leaves out whole blocks (`flex.py`), for long streams on CUDA

All take queries, keys and values [B, H, N, K] of a whole stream and are exact: outputs and gradients equal the
definition to rounding. The choice depends on size and device only, so a model's numbers do not change with its surroundings.
"""

# Shapes: B batch, H heads, N stream positions (T text, then I image), K d_head;
#         b blocks of image queries, Q queries of a block, M image keys that a block meets, W grid size

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle_model.transformer.masks import MaskKind, image_mask, image_offsets, stream_mask

Backend = Literal["masked", "structured", "flex"]

# Below this the block structure costs about as much as it saves (benchmarks/bench_attention.py on CPU: 0.5x at 18 + 8 x 8,
# 0.8x to 1.3x at 32 + 16 x 16, 1.4x to 2.4x at 256 + 32 x 32).
MASKED_UP_TO_POSITIONS = 512


def choose_backend(kind: MaskKind, num_text: int, grid_size: int, device_type: str = "cpu") -> Backend:
    """The faster form for a layer of this kind and size: measured on CPU, expected on CUDA."""
    if num_text + grid_size**2 <= MASKED_UP_TO_POSITIONS:
        return "masked"
    if device_type == "cuda":
        return "flex"
    return "masked" if kind == "full" else "structured"


def build_attention(kind: MaskKind, num_text: int, grid_size: int, kernel_size: int, backend: Backend | None = None) -> nn.Module:
    """A module without parameters that maps (q, k, v), each [B, H, N, K], to [B, H, N, K]. `backend` overrides the choice.

    Raises `ValueError` when the structured form is asked for full attention, which has no structure.
    """
    if backend is None:
        form = build_attention(kind, num_text, grid_size, kernel_size, choose_backend(kind, num_text, grid_size))
        if choose_backend(kind, num_text, grid_size, "cuda") == "flex":
            return _FlexOnCuda(form, (kind, num_text, grid_size, kernel_size))
        return form
    if backend == "flex":
        from dalle_model.transformer.flex import FlexAttention  # half as expensive to import as all of torch

        return FlexAttention(kind, num_text, grid_size, kernel_size)
    if backend == "masked":
        return MaskedAttention(kind, num_text, grid_size, kernel_size)
    if kind == "full":
        raise ValueError("attention backend 'structured' has no form for full attention; use 'masked'")
    return StructuredAttention(kind, num_text, grid_size, kernel_size)


class _FlexOnCuda(nn.Module):
    """A model is built before it is moved, so the device decides when attention runs."""

    def __init__(self, elsewhere: nn.Module, sizes: tuple[MaskKind, int, int, int]) -> None:
        super().__init__()
        self.elsewhere, self.sizes = elsewhere, sizes
        self.flex: nn.Module | None = None

    def forward(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor) -> Tensor:
        """[B, H, N, K]. FlexAttention's kernels have no float64 and no heads narrower than 16."""
        form = self.elsewhere
        if q_BHNK.is_cuda and q_BHNK.dtype != torch.float64 and q_BHNK.shape[-1] >= 16:
            from dalle_model.transformer.flex import flex_works

            if flex_works(q_BHNK.device):
                self.flex = self.flex or build_attention(*self.sizes, "flex")
                form = self.flex
        out_BHNK: Tensor = form(q_BHNK, k_BHNK, v_BHNK)
        return out_BHNK


class MaskedAttention(nn.Module):
    """The definition itself."""

    mask: Tensor  # bool [N, N]

    def __init__(self, kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> None:
        super().__init__()
        self.register_buffer("mask", stream_mask(kind, num_text, grid_size, kernel_size), persistent=False)

    def forward(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor) -> Tensor:
        """[B, H, N, K]."""
        return F.scaled_dot_product_attention(q_BHNK, k_BHNK, v_BHNK, attn_mask=self.mask)


class StructuredAttention(nn.Module):
    """Text by ordinary causal attention; image queries in blocks, against all text and their own neighbourhood."""

    mask: Tensor  # bool [b or 1, Q, M]

    def __init__(self, kind: MaskKind, num_text: int, grid_size: int, kernel_size: int) -> None:
        super().__init__()
        self.num_text = num_text
        self.blocks = _Columns(grid_size) if kind == "column" else _RowBlocks(kind, grid_size, kernel_size)
        self.register_buffer("mask", self.blocks.mask(), persistent=False)

    def forward(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor) -> Tensor:
        """[B, H, N, K]."""
        # CUDA's autocast would run softmax in float32, and products written in place cannot mix types.
        with torch.autocast(q_BHNK.device.type, enabled=False):
            q_BHTK, q_BHIK = q_BHNK.tensor_split([self.num_text], 2)
            k_BHTK, k_BHIK = k_BHNK.tensor_split([self.num_text], 2)
            v_BHTK, v_BHIK = v_BHNK.tensor_split([self.num_text], 2)
            text_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
            image_BHIK = _ImageAttention.apply(q_BHIK, k_BHTK, v_BHTK, k_BHIK, v_BHIK, self.mask, self.blocks)
            return torch.cat((text_BHTK, image_BHIK), 2)


class _Columns:
    """One block per column: transposing the grid makes a column's tokens neighbours (Figure 11c)."""

    def __init__(self, grid_size: int) -> None:
        self.grid_size = grid_size

    def mask(self) -> Tensor:
        """bool [1, W, W]: causal, alike in all columns."""
        return torch.ones(1, self.grid_size, self.grid_size, dtype=torch.bool).tril()

    def split_queries(self, x_BHIK: Tensor) -> Tensor:
        """[B, H, I, K] to [B, H, b, Q, K]."""
        B, H, _, K = x_BHIK.shape
        return x_BHIK.reshape(B, H, self.grid_size, self.grid_size, K).transpose(2, 3)

    def split_keys(self, x_BHIK: Tensor) -> Tensor:
        """[B, H, I, K] to [B, H, b, M, K]."""
        return self.split_queries(x_BHIK)

    def join_queries(self, x_BHbQK: Tensor) -> Tensor:
        """The inverse of `split_queries`."""
        return x_BHbQK.transpose(2, 3).flatten(2, 3)

    def add_keys(self, x_BHbMK: Tensor) -> Tensor:
        """The adjoint of `split_keys`: what the blocks say about each key, added up."""
        return self.join_queries(x_BHbMK)


class _RowBlocks:
    """Blocks of whole rows; a block meets itself and as many rows before it as the mask's farthest offset needs."""

    def __init__(self, kind: MaskKind, grid_size: int, kernel_size: int) -> None:
        self.kind, self.grid_size, self.kernel_size = kind, grid_size, kernel_size
        self.rows_back = -(-image_offsets(kind, grid_size, kernel_size)[-1] // grid_size)
        # Two rows per block when the look-back is long (or rows are short): more masked scores, but larger matrices.
        self.rows = 2 if grid_size % 2 == 0 and (self.rows_back > 1 or grid_size < 32) else 1
        self.num_blocks = grid_size // self.rows

    def mask(self) -> Tensor:
        """bool [b, Q, M], cut from the definition. Keys before the first row do not exist and are masked."""
        back, block = self.rows_back * self.grid_size, self.rows * self.grid_size
        padded = F.pad(image_mask(self.kind, self.grid_size, self.kernel_size), (back, 0))
        return torch.stack([padded[i * block : (i + 1) * block, i * block : (i + 1) * block + back] for i in range(self.num_blocks)])

    def split_queries(self, x_BHIK: Tensor) -> Tensor:
        """[B, H, I, K] to [B, H, b, Q, K]."""
        B, H, _, K = x_BHIK.shape
        return x_BHIK.reshape(B, H, self.num_blocks, self.rows * self.grid_size, K)

    def split_keys(self, x_BHIK: Tensor) -> Tensor:
        """[B, H, I, K] to overlapping blocks [B, H, b, M, K]."""
        back, block = self.rows_back * self.grid_size, self.rows * self.grid_size
        return F.pad(x_BHIK, (0, 0, back, 0)).unfold(2, block + back, block).transpose(-1, -2)

    def join_queries(self, x_BHbQK: Tensor) -> Tensor:
        """The inverse of `split_queries`."""
        return x_BHbQK.flatten(2, 3)

    def add_keys(self, x_BHbMK: Tensor) -> Tensor:
        """The adjoint of `split_keys`: what the blocks say about each key, added up."""
        B, H, num_blocks, _, K = x_BHbMK.shape
        blocks_back = -(-self.rows_back // self.rows)
        total = x_BHbMK.new_zeros(B, H, (blocks_back + num_blocks) * self.rows, self.grid_size, K)
        x_rows = x_BHbMK.reshape(B, H, num_blocks, self.rows_back + self.rows, self.grid_size, K)
        first = blocks_back * self.rows - self.rows_back
        for i in range(self.rows_back + self.rows):
            rows = slice(first + i, first + i + (num_blocks - 1) * self.rows + 1, self.rows)
            total[:, :, rows] += x_rows[:, :, :, i]
        return total[:, :, blocks_back * self.rows :].flatten(2, 3)


class _ImageAttention(torch.autograd.Function):
    """Image queries against [all text | their block's image keys] in one softmax.

    Written by hand because autograd would keep four copies of the scores; this keeps the probabilities only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BHIK: Tensor,
        k_BHTK: Tensor,
        v_BHTK: Tensor,
        k_BHIK: Tensor,
        v_BHIK: Tensor,
        mask_bQM: Tensor,
        blocks: _Columns | _RowBlocks,
    ) -> Tensor:
        B, H, T, K = k_BHTK.shape
        q_GbQK = (blocks.split_queries(q_BHIK) * K**-0.5).flatten(0, 1).contiguous()
        k_GbMK, v_GbMK = blocks.split_keys(k_BHIK).flatten(0, 1), blocks.split_keys(v_BHIK).flatten(0, 1)
        G, b, Q, _ = q_GbQK.shape
        M = k_GbMK.shape[2]
        q_GIK, k_GTK, v_GTK = q_GbQK.view(G, b * Q, K), k_BHTK.reshape(G, T, K), v_BHTK.reshape(G, T, K)
        # Both kinds of scores are written side by side into one buffer, for one softmax.
        scores_GbQS = q_BHIK.new_empty(G, b, Q, T + M)
        torch.bmm(q_GIK, k_GTK.transpose(1, 2), out=scores_GbQS.view(G, b * Q, T + M)[..., :T])
        hidden = q_BHIK.new_full((), -torch.inf)  # made on the device: a copy would make it wait
        torch.where(mask_bQM, q_GbQK @ k_GbMK.transpose(-1, -2), hidden, out=scores_GbQS[..., T:])
        p_GbQS = scores_GbQS.softmax(-1)
        out_GIK = p_GbQS.view(G, b * Q, T + M)[..., :T] @ v_GTK
        p_local = p_GbQS.view(G * b, Q, T + M)[..., T:]
        out_GIK.view(G * b, Q, K).baddbmm_(p_local, v_GbMK.reshape(G * b, M, K))
        ctx.blocks = blocks
        ctx.num_heads = H
        ctx.save_for_backward(q_GbQK, k_GTK, v_GTK, k_GbMK, v_GbMK, p_GbQS)
        return blocks.join_queries(out_GIK.view(B, H, b, Q, K))

    @staticmethod
    def backward(ctx: Any, grad_BHIK: Tensor) -> tuple[Tensor | None, ...]:
        q_GbQK, k_GTK, v_GTK, k_GbMK, v_GbMK, p_GbQS = ctx.saved_tensors
        blocks: _Columns | _RowBlocks = ctx.blocks
        H: int = ctx.num_heads
        G, b, Q, K = q_GbQK.shape
        B, T, M = G // H, k_GTK.shape[1], k_GbMK.shape[2]
        grad_GbQK = blocks.split_queries(grad_BHIK).flatten(0, 1).contiguous()

        def over_text(x: Tensor) -> Tensor:
            return x.view(G, b * Q, -1)

        def over_blocks(x: Tensor) -> Tensor:
            return x.reshape(G * b, -1, x.shape[-1])

        p_text, p_local = over_text(p_GbQS)[..., :T], over_blocks(p_GbQS)[..., T:]
        grad_v_GTK = p_text.transpose(1, 2) @ over_text(grad_GbQK)
        grad_v_GbMK = p_local.transpose(1, 2) @ over_blocks(grad_GbQK)
        grad_p_GbQS = torch.empty_like(p_GbQS)
        torch.bmm(over_text(grad_GbQK), v_GTK.transpose(1, 2), out=over_text(grad_p_GbQS)[..., :T])
        torch.bmm(over_blocks(grad_GbQK), over_blocks(v_GbMK).transpose(1, 2), out=over_blocks(grad_p_GbQS)[..., T:])
        grad_s_GbQS = torch._softmax_backward_data(grad_p_GbQS, p_GbQS, -1, p_GbQS.dtype)
        s_text, s_local = over_text(grad_s_GbQS)[..., :T], over_blocks(grad_s_GbQS)[..., T:]
        grad_q_GIK = s_text @ k_GTK
        grad_q_GIK.view(G * b, Q, K).baddbmm_(s_local, over_blocks(k_GbMK))
        grad_q_GIK *= K**-0.5
        grad_k_GTK = s_text.transpose(1, 2) @ over_text(q_GbQK)
        grad_k_GbMK = s_local.transpose(1, 2) @ over_blocks(q_GbQK)
        return (
            blocks.join_queries(grad_q_GIK.view(B, H, b, Q, K)),
            grad_k_GTK.view(B, H, T, K),
            grad_v_GTK.view(B, H, T, K),
            blocks.add_keys(grad_k_GbMK.view(B, H, b, M, K)),
            blocks.add_keys(grad_v_GbMK.view(B, H, b, M, K)),
            None,
            None,
        )
