"""Decoding one image token at a time: keep only the keys and values that a mask can still see.

The text is read once per caption and its keys and values are shared by all candidates of that caption, as one matrix product.
Each candidate then keeps, per layer, what `cache_layout.py` says. The results equal the full forward pass;
`tests/dalle_model/transformer/test_cache.py` compares every mask at every position.

A position given as a number reads what is there by then: best on a CPU. Given as a tensor, every step has the same shapes
and does not wait for the device, so that one compiled kernel or one CUDA graph serves all positions.
"""

# Shapes: P captions, C candidates of each, B = P * C, T text positions, D d_model, H heads, K d_head, W grid size, I image positions,
#         G = P * H (what shares text keys), R = P * H * C (rows with their own image keys), S slots of a cache that are read

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle_model.compiling import compiled
from dalle_model.transformer.cache_layout import CacheLayout, cache_layout
from dalle_model.transformer.loss import head_logits
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


def prefill(model: DALLETransformer, text_tokens: Tensor) -> TextPrefix:
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

    Holds the growing pictures' keys and values; use one decoder for one set of pictures at a time.
    """

    def __init__(self, model: DALLETransformer, prefix: TextPrefix, num_candidates: int) -> None:
        self.model, self.prefix, self.num_candidates = model, prefix, num_candidates
        self.positions_ID = model.image_positions()
        sizes = (model.stream.image_grid_size, model.config.conv_kernel_size)
        rows = len(prefix.values[0]) * num_candidates
        tables = {kind: SlotTables(cache_layout(kind, *sizes), prefix.values[0]) for kind in set(model.kinds)}
        self.caches = [SlotCache(tables[kind], rows, prefix.values[0]) for kind in model.kinds]
        self.decode_block: Callable[..., Tensor] = decode_block

    def reset(self, prefix: TextPrefix) -> None:
        """Take other captions, or make other candidates of the same, in the same memory: a captured CUDA graph knows no other.

        What the slots still hold is never seen: a slot counts only once its position has been written anew.
        """
        for mine, theirs in zip((*self.prefix.keys, *self.prefix.values), (*prefix.keys, *prefix.values), strict=True):
            mine.copy_(theirs)
        self.prefix.last_state.copy_(prefix.last_state)

    def compile(self, **options: Any) -> None:
        """Compile what a block does at a position given as a tensor: once for each kind of mask, not once for each layer."""
        self.decode_block = compiled(decode_block, **options)

    def first_logits(self) -> Tensor:
        """[P, C, codebook_size] of the first image token: the same for all candidates of a caption."""
        logits_PV = self._logits(self.prefix.last_state)
        return logits_PV.unsqueeze(1).expand(-1, self.num_candidates, -1)

    def next_logits(self, image_tokens: Tensor, position: int | Tensor) -> Tensor:
        """Take in the tokens [P, C] of `position` (a number, or int64 [1]); returns logits [P, C, codebook_size] of the one after it."""
        x_BD = self.model.image_embedding(image_tokens.flatten()) + self.positions_ID[position]
        for block, cache, *text in zip(self.model.blocks, self.caches, self.prefix.keys, self.prefix.values, strict=True):
            x_BD = self.decode_block(block, cache, *text, x_BD, position)
        return self._logits(x_BD).view(*image_tokens.shape, -1)

    def _logits(self, x_BD: Tensor) -> Tensor:
        """[B, codebook_size]. A CPU rounds those of bf16 weights to bf16: float32 ones would cost twice the time of the product."""
        head, normed_BD = self.model.image_head, self.model.final_norm(x_BD)
        return head_logits(head, normed_BD) if x_BD.is_cuda else linear(head, normed_BD)


def decode_block(block: Block, cache: "SlotCache", keys_GKT: Tensor, values_GTK: Tensor, x_BD: Tensor, position: int | Tensor) -> Tensor:
    """One block at one position of B = P * C pictures, [B, D]."""
    x_BD = x_BD + linear(block.attention_out, _attend(block, cache, keys_GKT, values_GTK, x_BD, position))
    hidden = linear(block.mlp_in, block.mlp_norm(x_BD))
    return x_BD + linear(block.mlp_out, F.gelu(hidden))


def _attend(block: Block, cache: "SlotCache", keys_GKT: Tensor, values_GTK: Tensor, x_BD: Tensor, position: int | Tensor) -> Tensor:
    """[B, H * K]: one softmax over the caption's keys and the picture's own."""
    (G, K, T), H = keys_GKT.shape, block.num_heads
    P, C = G // H, len(x_BD) * H // G
    qkv = linear(block.qkv, block.attention_norm(x_BD)).view(P, C, 3, H, K).permute(2, 0, 3, 1, 4)
    q_GCK = (qkv[0] * K**-0.5).reshape(G, C, K).contiguous()
    k_RSK, v_RSK, bias = cache.add(qkv[1:].reshape(2, G * C, K), position)
    S = k_RSK.shape[1]
    own_RS = _scores(q_GCK.view(G * C, K), k_RSK)
    if bias is not None:
        own_RS = own_RS + bias
    p = torch.cat((torch.bmm(q_GCK, keys_GKT), own_RS.view(G, C, S)), -1).softmax(-1)
    out_GCK = _mix(p.view(G * C, T + S)[:, T:], v_RSK).view(G, C, K)
    out_GCK = torch.baddbmm(out_GCK, p[..., :T], values_GTK)
    return out_GCK.view(P, H, C, K).transpose(1, 2).reshape(P * C, H * K)


class SlotTables:
    """A plan on a device, shared by all layers of one kind."""

    def __init__(self, plan: CacheLayout, like: Tensor) -> None:
        self.num_slots = plan.num_slots
        self.writes, self.first = plan.writes.to(like.device), plan.first.to(like.device)
        self.run = torch.arange(plan.num_read, device=like.device)
        self.bias = torch.where(plan.is_visible, 0.0, -torch.inf).to(like)
        self.num_write, self.reads = plan.writes.tolist(), plan.reads()


class SlotCache:
    """One layer's keys and values of all growing pictures."""

    def __init__(self, tables: SlotTables, rows: int, like: Tensor) -> None:
        self.tables = tables
        # Zeros: a masked slot weighs nothing, but nothing times the NaN of unused memory would be NaN.
        self.kept_2RSK = like.new_zeros(2, rows, tables.num_slots, like.shape[-1])

    def add(self, new_2RK: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keep one more token; returns keys and values [R, S, K] and, where some of them may not be seen, what to add to their scores."""
        tables = self.tables
        if isinstance(position, int):
            for slot in tables.num_write[position]:
                self.kept_2RSK[:, :, slot] = new_2RK
            first, count, is_masked = tables.reads[position]
            seen_2RSK = self.kept_2RSK[:, :, first : first + count]
            return seen_2RSK[0], seen_2RSK[1], tables.bias[position] if is_masked else None
        slots = tables.writes.index_select(0, position).view(-1)
        self.kept_2RSK.index_copy_(2, slots, new_2RK.unsqueeze(2).expand(-1, -1, len(slots), -1))
        seen_2RSK = self.kept_2RSK
        if len(tables.run) < tables.num_slots:
            seen_2RSK = seen_2RSK.index_select(2, tables.first.index_select(0, position) + tables.run)
        return seen_2RSK[0], seen_2RSK[1], tables.bias.index_select(0, position)


def linear(layer: nn.Linear, x_BD: Tensor) -> Tensor:
    """`layer(x_BD)`, from weights kept in any precision.

    Weights times few columns is up to 1.4 times as fast on a CPU as few rows times weights, and up to 1.8 times in bf16
    (benchmarks/RESULTS.md); the result is then a transposed view. The two round differently.
    """
    x_BD = x_BD.to(layer.weight.dtype)
    if x_BD.is_cuda or not (8 <= len(x_BD) <= 32 or x_BD.dtype == torch.bfloat16):
        out_BE: Tensor = layer(x_BD)
        return out_BE
    return torch.addmm(layer.bias.unsqueeze(1), layer.weight, x_BD.t().contiguous()).t()


def _scores(q_RK: Tensor, k_RSK: Tensor) -> Tensor:
    """[R, S]: each row's query with its own keys."""
    if q_RK.is_cuda:  # reads each key once, straight from its slot, when compiled; a batch of one-row products would copy them first
        return (q_RK.float().unsqueeze(1) * k_RSK.float()).sum(-1).to(q_RK.dtype)
    return torch.bmm(q_RK.unsqueeze(1), k_RSK.transpose(1, 2)).squeeze(1)


def _mix(p_RS: Tensor, v_RSK: Tensor) -> Tensor:
    """[R, K]: each row's own values, weighted."""
    if p_RS.is_cuda:
        return (p_RS.float().unsqueeze(2) * v_RSK.float()).sum(1).to(p_RS.dtype)
    return torch.bmm(p_RS.unsqueeze(1), v_RSK).squeeze(1)
