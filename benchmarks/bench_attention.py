"""The fast forms of attention against the mask they stand for, forward and backward: `python benchmarks/bench_attention.py`.

Says where `choose_backend` should switch. One thread, so that ratios do not depend on the neighbours.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import least_cpu_seconds, print_ratios
from torch import Tensor

from dalle_model.transformer.attention import build_attention, choose_backend

# text positions, grid size, kernel size, batch, heads, d_head
LAYOUTS = {
    "demo": (18, 8, 5, 48, 6, 32),
    "16x16": (32, 16, 11, 8, 8, 32),
    "paper": (256, 32, 11, 1, 8, 64),
}


def forward_and_backward(attend: Callable[[Tensor, Tensor, Tensor], Tensor], qkv: list[Tensor], weights: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad((attend(*qkv) * weights).sum(), qkv)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layouts", nargs="*", choices=[*LAYOUTS], default=[*LAYOUTS])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for layout in arguments.layouts:
        num_text, grid_size, kernel_size, batch, heads, d_head = LAYOUTS[layout]
        shape = (batch, heads, num_text + grid_size**2, d_head)
        qkv = [torch.randn(shape, requires_grad=True) for _ in range(3)]
        weights = torch.randn(shape)

        def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        for kind in ("row", "column", "conv"):
            forms = {backend: build_attention(kind, num_text, grid_size, kernel_size, backend) for backend in ("masked", "structured")}
            alternatives = {name: forward_and_backward(form, qkv, weights) for name, form in forms.items()}
            alternatives["causal, not this mask"] = forward_and_backward(causal, qkv, weights)
            seconds = least_cpu_seconds(alternatives, arguments.repeats)
            chosen = choose_backend(kind, num_text, grid_size)
            print_ratios(f"{layout}: {kind}, {num_text} + {grid_size} x {grid_size}, batch {batch} (chosen: {chosen})", seconds, "masked")


if __name__ == "__main__":
    main()
