"""Decoding one image token at a time: keep only the keys and values that a mask can still see.

The text is read once per caption and its keys and values are shared by all candidates of that caption. Each candidate then
keeps, per layer, only

    row     a ring of the last W + 1 image tokens
    column  one column's tokens at a time are read, all columns are kept
    conv    a ring as long as the window reaches back, read at the window's offsets
    full    everything

Softmax does not care about the order of keys and positions live in the embeddings, so a ring needs no unrolling. The results
equal the full forward pass; `tests/dalle_model/transformer/test_cache.py` compares every mask at every position.
"""

# Shapes: P captions, C candidates of each, T text positions, D d_model, H heads, K d_head, W grid size,
#         G = P * H (what shares text keys), R = P * H * C (rows with their own image keys), S slots of a cache

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle_model.transformer.masks import MaskKind, image_offsets
from dalle_model.transformer.model import Block, DALLETransformer


@dataclass(frozen=True, slots=True)
class TextPrefix:
    """Captions, read: what every later position needs of them."""

    keys: tuple[Tensor, ...]
    """Per layer [G, K, T], ready for the score product."""
    values: tuple[Tensor, ...]
    """Per layer [G, T, K]."""
    last_state: Tensor
    """[P, D]: state of the last text position after the blocks; it predicts the first image token."""


def read_text(model: DALLETransformer, text_tokens: Tensor) -> TextPrefix:
    """Run the text part of the stream for captions [P, T]."""
    keys, values = [], []

    def attend(q_PHTK: Tensor, k_PHTK: Tensor, v_PHTK: Tensor) -> Tensor:
        keys.append(k_PHTK.flatten(0, 1).transpose(1, 2).contiguous())
        values.append(v_PHTK.flatten(0, 1).contiguous())
        return F.scaled_dot_product_attention(q_PHTK, k_PHTK, v_PHTK, is_causal=True)

    x_PTD = model.embed_text(text_tokens)
    for block in model.blocks:
        x_PTD = block(x_PTD, attend)
    return TextPrefix(tuple(keys), tuple(values), x_PTD[:, -1])


class ImageDecoder:
    """`num_candidates` pictures for each caption of a prefix, grown side by side.

    Holds the growing pictures' keys and values; use one decoder for one set of pictures.
    """

    def __init__(self, model: DALLETransformer, prefix: TextPrefix, num_candidates: int) -> None:
        self.model, self.prefix, self.num_candidates = model, prefix, num_candidates
        self.num_captions = len(prefix.last_state)
        self.positions_ID = model.image_positions()
        rows = self.num_captions * model.config.num_heads * num_candidates
        self.caches = [_cache_for(kind, rows, model, prefix.last_state) for kind in model.kinds]

    def first_logits(self) -> Tensor:
        """[P, C, codebook_size] of the first image token: the same for all candidates of a caption."""
        logits_PV: Tensor = self.model.image_head(self.model.final_norm(self.prefix.last_state))
        return logits_PV.unsqueeze(1).expand(-1, self.num_candidates, -1)

    def next_logits(self, image_tokens: Tensor, position: int) -> Tensor:
        """Take in the tokens [P, C] of `position`; returns logits [P, C, codebook_size] of the one after it."""
        P, C = image_tokens.shape
        x = self.model.image_embedding(image_tokens.flatten()) + self.positions_ID[position]
        for layer, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            x = x + block.attention_out(self._attend(block, layer, x, position))
            x = x + block.mlp(x)
        logits: Tensor = self.model.image_head(self.model.final_norm(x))
        return logits.view(P, C, -1)

    def _attend(self, block: Block, layer: int, x: Tensor, position: int) -> Tensor:
        """[P * C, D]: one softmax over the caption's keys and the candidate's own."""
        P, C, H = self.num_captions, self.num_candidates, block.num_heads
        qkv = block.qkv(block.attention_norm(x)).view(P, C, 3, H, -1).permute(2, 0, 3, 1, 4)
        q_GCK, new_2RK = qkv[0].reshape(P * H, C, -1), qkv[1:].reshape(2, P * H * C, -1)
        K = q_GCK.shape[-1]
        k_RSK, v_RSK = self.caches[layer].add(new_2RK, position)
        keys_GKT, values_GTK = self.prefix.keys[layer], self.prefix.values[layer]
        T, S = values_GTK.shape[1], k_RSK.shape[1]
        q_GCK = (q_GCK * K**-0.5).contiguous()
        text_GCT = torch.bmm(q_GCK, keys_GKT)
        own_GCS = torch.bmm(q_GCK.view(-1, 1, K), k_RSK.transpose(1, 2)).view(P * H, C, S)
        p = torch.cat((text_GCT, own_GCS), -1).softmax(-1)
        out_GCK = torch.bmm(p[..., T:].reshape(-1, 1, S), v_RSK).view(P * H, C, K)
        out_GCK = torch.baddbmm(out_GCK, p[..., :T], values_GTK)
        return out_GCK.view(P, H, C, K).transpose(1, 2).reshape(P * C, H * K)


class _RingCache:
    """The newest `size` tokens, read at given offsets back from the newest (all of them when `offsets` is None)."""

    def __init__(self, rows: int, size: int, like: Tensor, width: int, offsets: tuple[int, ...] | None = None) -> None:
        self.kept_2RSK = like.new_empty(2, rows, size, width)
        self.size = size
        self.offsets = None if offsets is None else torch.tensor(offsets, device=like.device)

    def add(self, new_2RK: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Keep one more token; returns the keys and values that it may see, itself included."""
        self.kept_2RSK[:, :, position % self.size] = new_2RK
        if self.offsets is None:
            seen_2RSK = self.kept_2RSK[:, :, : min(position + 1, self.size)]
        else:
            seen_2RSK = self.kept_2RSK.index_select(2, (position - self.offsets[self.offsets <= position]) % self.size)
        return seen_2RSK[0], seen_2RSK[1]


class _ColumnCache:
    """Every column's tokens, top to bottom."""

    def __init__(self, rows: int, grid_size: int, like: Tensor, width: int) -> None:
        self.kept_W2RSK = like.new_empty(grid_size, 2, rows, grid_size, width)
        self.grid_size = grid_size

    def add(self, new_2RK: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Keep one more token; returns the keys and values of its column down to itself."""
        row, column = divmod(position, self.grid_size)
        self.kept_W2RSK[column, :, :, row] = new_2RK
        seen_2RSK = self.kept_W2RSK[column, :, :, : row + 1]
        return seen_2RSK[0], seen_2RSK[1]


def _cache_for(kind: MaskKind, rows: int, model: DALLETransformer, like: Tensor) -> _RingCache | _ColumnCache:
    grid_size, width = model.stream.image_grid_size, model.config.d_head
    offsets = image_offsets(kind, grid_size, model.config.conv_kernel_size)
    match kind:
        case "column":
            return _ColumnCache(rows, grid_size, like, width)
        case "conv":
            return _RingCache(rows, offsets[-1] + 1, like, width, offsets)
        case "row" | "full":
            return _RingCache(rows, len(offsets), like, width)
