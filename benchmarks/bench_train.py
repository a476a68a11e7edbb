"""One update of the transformer, forward, backward and AdamW: `python benchmarks/bench_train.py`.

References, run in the same process: the same network with every sparse layer as masked attention, and with full causal
attention. Rates are stream positions (text and image tokens) per CPU second of one thread.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from timing import least_cpu_seconds, print_ratios

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.plan import forward_flops_per_token
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.attention import build_attention

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


def update(config: TransformerConfig, stream: StreamShape, pairs: int, is_masked: bool) -> Callable[[], object]:
    """A function that does one update of a fresh network."""
    torch.manual_seed(0)
    model = DALLETransformer(config, stream)
    if is_masked:
        sizes = (stream.max_text_tokens, stream.image_grid_size, config.conv_kernel_size)
        model.attention = torch.nn.ModuleDict({kind: build_attention(kind, *sizes, "masked") for kind in set(model.kinds)})
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in arguments.sizes:
        config, stream, pairs = SIZES[size]
        positions = pairs * stream.num_positions
        flops = forward_flops_per_token(config, stream)
        useful = 3 * positions * (flops["linear"] + flops["sparse_attention"] + flops["heads"])
        seconds = least_cpu_seconds(
            {
                "sparse": update(config, stream, pairs, is_masked=False),
                "sparse, masks everywhere": update(config, stream, pairs, is_masked=True),
                "full causal attention": update(replace(config, attention="full"), stream, pairs, is_masked=False),
            },
            arguments.repeats,
        )
        print_ratios(
            f"{size}: {pairs} pairs of {stream.max_text_tokens} + {stream.num_image_tokens} tokens, "
            f"{config.num_layers} layers of {config.d_model}; useful work of `sparse`: {useful / seconds['sparse'] / 1e9:.0f} GFLOP/s",
            seconds,
            "full causal attention",
            lambda s, positions=positions: f"{positions / s:9.0f} tokens/s",
        )


if __name__ == "__main__":
    main()
