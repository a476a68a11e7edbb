"""One update of the transformer, forward, backward and AdamW: `python benchmarks/bench_train.py`.

References, run in the same process: the same network with every sparse layer as masked attention, with full causal attention,
and, given `--peer`, DALLE-pytorch (see `peer_dalle_pytorch.py`). Its feed-forward layers are gated and have 12 d^2 weights
where ours have 8 d^2; `sparse, the peer's width` has as many. Rates are stream positions (text and image tokens) per CPU
second of one thread.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from peer_dalle_pytorch import peer_updates
from timing import least_cpu_seconds, print_ratios

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.cost import forward_flops_per_token

# transformer, stream, pairs per update
SIZES = {
    "demo": (
        TransformerConfig(num_layers=3, num_heads=6, d_model=192, conv_kernel_size=5),
        StreamShape(text_vocab_size=512, max_text_tokens=18, codebook_size=256, image_grid_size=8),
        48,
    ),
    "16x16": (
        TransformerConfig(num_layers=4, num_heads=8, d_model=256),
        StreamShape(text_vocab_size=1_024, max_text_tokens=32, codebook_size=1_024, image_grid_size=16),
        4,
    ),
    "paper": (
        TransformerConfig(num_layers=4, num_heads=8, d_model=512),
        StreamShape(text_vocab_size=16_384, max_text_tokens=256, codebook_size=8_192, image_grid_size=32),
        1,
    ),
}


def update(
    config: TransformerConfig, stream: StreamShape, pairs: int, is_masked: bool = False, is_wide: bool = False
) -> Callable[[], object]:
    """A function that does one update of a fresh network."""
    torch.manual_seed(0)
    model = DALLETransformer(config, stream)
    if is_masked:
        sizes = (stream.max_text_tokens, stream.image_grid_size, config.conv_kernel_size)
        model.attention = torch.nn.ModuleDict({kind: build_attention(kind, *sizes, "masked") for kind in set(model.kinds)})
    if is_wide:
        for block in model.blocks:
            block.mlp_in = torch.nn.Linear(config.d_model, 6 * config.d_model)
            block.mlp_out = torch.nn.Linear(6 * config.d_model, config.d_model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    text = torch.randint(stream.text_vocab_size, (pairs, stream.max_text_tokens))
    image = torch.randint(stream.codebook_size, (pairs, stream.num_image_tokens))

    def run() -> None:
        text_loss, image_loss = model.loss(text, image)
        (text_loss / 8 + image_loss * 7 / 8).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="folder that holds DALLE-pytorch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in arguments.sizes:
        config, stream, pairs = SIZES[size]
        positions = pairs * stream.num_positions
        flops = forward_flops_per_token(config, stream)
        useful = 3 * positions * (flops["linear"] + flops["sparse_attention"] + flops["heads"])
        alternatives = {
            "sparse": update(config, stream, pairs),
            "sparse, masks everywhere": update(config, stream, pairs, is_masked=True),
            "full causal attention": update(replace(config, attention="full"), stream, pairs),
        }
        if peers := peer_updates(arguments.peer, config, stream, pairs):
            alternatives |= {"sparse, the peer's width": update(config, stream, pairs, is_wide=True), **peers}
        seconds = least_cpu_seconds(alternatives, arguments.repeats)
        print_ratios(
            f"{size}: {pairs} pairs of {stream.max_text_tokens} + {stream.num_image_tokens} tokens, "
            f"{config.num_layers} layers of {config.d_model}; useful work of `sparse`: {useful / seconds['sparse'] / 1e9:.0f} GFLOP/s",
            seconds,
            "DALLE-pytorch, sparse" if peers else "full causal attention",
            lambda s, positions=positions: f"{positions / s:9.0f} tokens/s",
        )


if __name__ == "__main__":
    main()
