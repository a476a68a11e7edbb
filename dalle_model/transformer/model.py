"""The sparse transformer: one autoregressive stream of a caption's tokens and its picture's (section 2.2, Appendix B).

    position   0 … T-1                              T … T+I-1
    holds      text token, or that position's pad   image token, raster order
    plus       text position                        row + column of the grid
    predicts   the next text token; T-1 predicts    the next image token; the last one predicts nothing
               the first image token

Every token of the stream is a target exactly once. The first text token follows the start of text, which is the same
constant for every pair: no position is spent on it, its final state is the learned vector `start`. Where the
paper is silent we chose: pre-norm LayerNorm, exact GELU, biases everywhere, untied heads, a final LayerNorm.
"""

# Shapes: B batch, T text positions, I image positions, N = T + I, D d_model, H heads, K d_head, V vocabulary

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.branch_scales import BranchScale, BranchScaler
from dalle_model.transformer.loss import NO_TARGET, sum_cross_entropy
from dalle_model.transformer.masks import layer_kinds

NO_TOKEN = NO_TARGET
"""Stands in `text_tokens` where a caption has no token."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Block(nn.Module):
    """Attention, then a two-layer network, each added to the residual stream after its own norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.attention_out = nn.Linear(d_model, d_model)
        self.mlp_norm = nn.LayerNorm(d_model)
        self.mlp_in = nn.Linear(d_model, 4 * d_model)
        self.mlp_out = nn.Linear(4 * d_model, d_model)
        self.scales: tuple[BranchScale, BranchScale] | None = None
        """Gradient scales of attention and MLP, for training in fp16."""

    def forward(self, x_BND: Tensor, attend: Attend) -> Tensor:
        """[B, N, D]. `attend` maps queries, keys and values [B, H, N, K] to [B, H, N, K]."""
        if self.scales is not None:
            attention, mlp = self.scales
            x_BND = x_BND + attention.leave(self.attend(attention.enter(x_BND), attend))
            return x_BND + mlp.leave(F.dropout(self.mlp(mlp.enter(x_BND)), self.dropout, self.training))
        x_BND = x_BND + self.attend(x_BND, attend)
        return x_BND + F.dropout(self.mlp(x_BND), self.dropout, self.training)

    def attend(self, x_BND: Tensor, attend: Attend) -> Tensor:
        """The first branch, [B, N, D]."""
        B, N, D = x_BND.shape
        normed_BND = self.attention_norm(x_BND).to(self.qkv.weight.dtype)
        q, k, v = self.qkv(normed_BND).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended_BND = attend(q, k, v).transpose(1, 2).reshape(B, N, D)
        return F.dropout(self.attention_out(attended_BND), self.dropout, self.training)

    def mlp(self, x: Tensor) -> Tensor:
        """The second branch, [..., D]; it looks at each position by itself."""
        out: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x).to(self.mlp_in.weight.dtype))))
        return out


class DALLETransformer(nn.Module):
    """p(caption, picture) over text and image tokens.

    `text_tokens` are int64 [B, T] with `NO_TOKEN` where there is none (after the caption's end); `image_tokens` are
    int64 [B, I] in raster order. Empty text positions are never predicted: pads are not in the vocabulary.
    """

    def __init__(self, config: TransformerConfig, stream: StreamShape) -> None:
        super().__init__()
        d_model, grid_size = config.d_model, stream.image_grid_size
        self.config, self.stream = config, stream
        self.activation_checkpointing = False
        """Whether training keeps only each block's input and computes the block again in the backward pass."""
        self.text_embedding = nn.Embedding(stream.text_vocab_size, d_model)
        self.pad_embedding = nn.Embedding(stream.max_text_tokens if config.pads == "per_position" else 1, d_model)
        self.text_position_embedding = nn.Embedding(stream.max_text_tokens, d_model)
        self.image_embedding = nn.Embedding(stream.codebook_size, d_model)
        self.row_embedding = nn.Embedding(grid_size, d_model)
        self.column_embedding = nn.Embedding(grid_size, d_model)
        self.start = nn.Parameter(torch.empty(d_model))
        self.kinds = layer_kinds(config.num_layers, config.attention)
        self.blocks = nn.ModuleList(Block(config) for _ in self.kinds)
        self.attention = nn.ModuleDict(
            {kind: build_attention(kind, stream.max_text_tokens, grid_size, config.conv_kernel_size) for kind in sorted(set(self.kinds))}
        )
        self.final_norm = nn.LayerNorm(d_model)
        self.text_head = nn.Linear(d_model, stream.text_vocab_size)
        self.image_head = nn.Linear(d_model, stream.codebook_size)
        self._initialize()

    def branches(self) -> dict[str, list[nn.Module]]:
        """The modules of each residual branch by name, "attention_00", "mlp_00", "attention_01" and so on."""
        named: dict[str, list[nn.Module]] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            named[f"attention_{i:02}"] = [block.attention_norm, block.qkv, block.attention_out]
            named[f"mlp_{i:02}"] = [block.mlp_norm, block.mlp_in, block.mlp_out]
        return named

    def scale_branches(self) -> BranchScaler:
        """Give each residual branch a gradient scale, for fp16, and return what adapts them."""
        scales = []
        for block in self.blocks:
            assert isinstance(block, Block)
            block.scales = (BranchScale(), BranchScale())
            scales += [*block.scales]
        return BranchScaler(list(zip(scales, self.branches().values(), strict=True)))

    def _initialize(self) -> None:
        """Normal weights of variance 2 / (5 d_model), as in GPT-NeoX; the paper gives none.

        Branches are scaled by 1 / sqrt(2 num_layers), so that the residual stream does not grow with depth.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "embedding" in name:
                # As large as what the first layers add to them; at GPT-2's 0.02 a token is lost in that sum until it has grown.
                nn.init.normal_(parameter, std=0.2)
            elif "head" in name or name == "start":
                nn.init.normal_(parameter, std=0.02)
            else:
                branch = math.sqrt(2 * self.config.num_layers) if name.endswith(("attention_out.weight", "mlp_out.weight")) else 1.0
                nn.init.normal_(parameter, std=math.sqrt(2 / (5 * self.config.d_model)) / branch)

    def embed_text(self, text_tokens: Tensor) -> Tensor:
        """[B, T] to [B, T, D]; each empty position has its own learned pad vector, or all have the same."""
        token_BTD = self.text_embedding(text_tokens.clamp(min=0))
        is_empty_BT1 = (text_tokens == NO_TOKEN).unsqueeze(-1)
        return torch.where(is_empty_BT1, self.pad_embedding.weight, token_BTD) + self.text_position_embedding.weight

    def hold_weights_in(self, dtype: torch.dtype) -> "DALLETransformer":
        """Cast the weights of all matrix products, for sampling; returns the model.

        Embeddings, norms and the residual stream stay as they are: what bf16 autocast computes in training, from half the memory.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        return self

    def image_positions(self) -> Tensor:
        """[I, D]: the row's embedding plus the column's."""
        grid_WWD = self.row_embedding.weight[:, None] + self.column_embedding.weight[None, :]
        return grid_WWD.flatten(0, 1)

    def embed_image(self, image_tokens: Tensor) -> Tensor:
        """[B, I] to [B, I, D]."""
        token_BID: Tensor = self.image_embedding(image_tokens)
        return token_BID + self.image_positions()

    def hidden_states(self, text_tokens: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised final states from which each token is predicted: text [B, T, D], image [B, I, D]."""
        x_BND = torch.cat((self.embed_text(text_tokens), self.embed_image(image_tokens)), 1)
        x_BND = F.dropout(x_BND, self.config.dropout, self.training)
        for block, kind in zip(self.blocks, self.kinds, strict=True):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, self.attention[kind], use_reentrant=False)
            else:
                x_BND = block(x_BND, self.attention[kind])
        start_B1D = self.start.expand(len(x_BND), 1, -1).to(x_BND.dtype)
        states_BND = self.final_norm(torch.cat((start_B1D, x_BND[:, :-1]), 1))
        text_BTD, image_BID = states_BND.tensor_split([self.stream.max_text_tokens], 1)
        return text_BTD, image_BID

    def forward(self, text_tokens: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every token given those before it: text [B, T, text_vocab_size], image [B, I, codebook_size]."""
        text_BTD, image_BID = self.hidden_states(text_tokens, image_tokens)
        return self.text_head(text_BTD.to(self.text_head.weight.dtype)), self.image_head(image_BID.to(self.image_head.weight.dtype))

    def loss(self, text_tokens: Tensor, image_tokens: Tensor, num_text_tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean cross entropy of the text tokens and of the image tokens, nats per token.

        The paper divides by the number of tokens of each kind in the batch. A caller that sees only a part of the batch passes
        that part's fair share of the batch's text tokens as `num_text_tokens`, so that the parts' means average to the whole's.
        """
        text_BTD, image_BID = self.hidden_states(text_tokens, image_tokens)
        if num_text_tokens is None:
            num_text_tokens = (text_tokens != NO_TOKEN).sum()
        text_sum = sum_cross_entropy(text_BTD.flatten(0, 1), self.text_head, text_tokens.flatten())
        image_sum = sum_cross_entropy(image_BID.flatten(0, 1), self.image_head, image_tokens.flatten())
        return text_sum / num_text_tokens.clamp(min=1), image_sum / image_tokens.numel()
