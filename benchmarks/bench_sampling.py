"""Whole pictures by the sampler: `python benchmarks/bench_sampling.py`; on a GPU: `--device cuda`.

On a CPU, references run in the same process: the same network with full attention and a cache of everything (with the text
shared by all candidates, and with a copy each), no cache at all, and, given `--peer`, DALLE-pytorch (see `peer_dalle_pytorch.py`).
At several positions all alternatives take turns at doing a step, so that whatever else the machine does hits all alike; the least CPU
time of each, summed over the positions, gives a whole picture. One thread, draws included; the reading of the caption (once for all
candidates, 1% of our time for one picture) and the dVAE's decoder are left out.

On CUDA the presets' sizes run in bf16 with random weights, beside the bound that the card's memory and matrix
rate, measured in the same call, set for weights, keys, values and products.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from bench_train import SIZES
from peer_dalle_pytorch import STEPS, peer_samplers
from timing import least_cpu_seconds, print_ratios

from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.presets import preset
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.sampling.logits import FREE, choose_tokens
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.cache import ImageDecoder, prefill
from dalle_model.transformer.cache_layout import cache_layout
from dalle_model.transformer.cost import forward_flops_per_token

POSITIONS = 8
"""Where steps are timed: in the middle of as many equal parts of a picture. A step costs about as much more as it is later."""

GetReady = Callable[[int], tuple[Callable[[], object], int]]
"""Gets ready for a position; returns what does steps there, and how many: several where a step finds memory as the last one left it."""


def build(config: TransformerConfig, stream: StreamShape) -> DALLETransformer:
    torch.manual_seed(0)
    return DALLETransformer(config, stream).eval()


def with_cache(model: DALLETransformer, captions: int, candidates: int) -> GetReady:
    """What `sample_image_tokens` does on a CPU for each token of one batch."""
    stream, settings = model.stream, SamplingConfig()
    text = torch.randint(stream.text_vocab_size, (1, stream.max_text_tokens)).repeat(captions, 1)
    decoder = ImageDecoder(model, prefill(model, text), candidates)
    tokens = torch.randint(stream.codebook_size, (captions, candidates))
    noise, known = torch.rand(captions, candidates, dtype=torch.float64), torch.full((captions, 1), FREE)

    def get_ready(position: int) -> tuple[Callable[[], object], int]:
        return lambda: [choose_tokens(decoder.next_logits(tokens, position), noise, known, settings) for _ in range(STEPS)], STEPS

    return get_ready


def without_cache(model: DALLETransformer) -> GetReady:
    text = torch.zeros(1, model.stream.max_text_tokens, dtype=torch.int64)
    image = torch.zeros(1, model.stream.num_image_tokens, dtype=torch.int64)
    return lambda position: (lambda: model.image_head(model.hidden_states(text, image)[1][:, position]), 1)


def cpu_seconds(ways: dict[str, GetReady], num_tokens: int, repeats: int) -> dict[str, float]:
    """Process CPU seconds of a whole picture (or set of pictures) for each way, taking turns at each position."""
    seconds = dict.fromkeys(ways, 0.0)
    for part in range(POSITIONS):
        position = int((part + 0.5) * num_tokens / POSITIONS)
        steps = {name: get_ready(position) for name, get_ready in ways.items()}
        for name, least in least_cpu_seconds({name: run for name, (run, _) in steps.items()}, repeats).items():
            seconds[name] += least / steps[name][1] * num_tokens / POSITIONS
    return seconds


def on_cpu(size: str, candidates: int, peer: Path | None, repeats: int) -> None:
    config, stream, _ = SIZES[size]
    full = build(replace(config, attention="full"), stream)
    with torch.inference_mode():
        ways: dict[str, GetReady] = {
            "sparse cache": with_cache(build(config, stream), 1, candidates),
            "sparse cache, bf16": with_cache(build(config, stream).hold_weights_in(torch.bfloat16), 1, candidates),
            "full attention, shared text": with_cache(full, 1, candidates),
        }
        reference = "full attention, shared text"
        if candidates > 1:
            reference = "full attention, a text each"
            ways[reference] = with_cache(full, candidates, 1)
        else:
            ways["no cache"] = without_cache(build(config, stream))
        seconds = cpu_seconds(ways | peer_samplers(peer, config, stream, candidates), stream.num_image_tokens, repeats)
    kept = {kind: sum(slots_of(replace(config, attention=kind), stream)) * 8 * config.d_model / 2**20 for kind in ("sparse", "full")}
    print_ratios(
        f"{size}: {candidates} candidates of one caption; image cache {kept['sparse']:.2f} MiB each, full {kept['full']:.2f} MiB",
        seconds,
        reference,
        lambda s: f"{s:8.2f} s  {candidates / s:8.3f} images/s",
    )
    for name in seconds:
        if name.startswith("DALLE-pytorch"):
            print(f"    sparse cache over {name}: {seconds[name] / seconds['sparse cache']:.1f}x")


def slots_of(config: TransformerConfig, stream: StreamShape) -> list[int]:
    """Tokens that a candidate keeps, layer by layer."""
    kinds = build_on_meta(config, stream).kinds
    return [cache_layout(kind, stream.image_grid_size, config.conv_kernel_size).num_slots for kind in kinds]


def build_on_meta(config: TransformerConfig, stream: StreamShape) -> DALLETransformer:
    with torch.device("meta"):
        return DALLETransformer(config, stream)


def on_cuda(name: str, candidates: int) -> None:
    config = preset(name)
    model = DALLETransformer(config.transformer, config.stream).eval().hold_weights_in(torch.bfloat16).cuda()
    text = torch.randint(config.stream.text_vocab_size, (1, config.stream.max_text_tokens))
    settings, seeds = SamplingConfig(num_images=candidates, batch_size=candidates), candidate_seeds(0, ["a prompt"], candidates)
    seconds = []
    for _ in range(2):  # the first compiles
        torch.cuda.synchronize()
        started = time.perf_counter()
        sample_image_tokens(model, text, candidates, settings, seeds)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    num_tokens = config.stream.num_image_tokens
    bandwidth, flops = measured_bandwidth(), measured_flops()
    bound = bound_seconds(config.transformer, config.stream, candidates, bandwidth, flops) * num_tokens
    rate = f"{candidates / seconds[1]:8.2f} images/s, {candidates * num_tokens / seconds[1]:9.0f} tokens/s"
    limit = f"{candidates / bound:8.2f} images/s at {bandwidth / 1e12:.2f} TB/s and {flops / 1e12:.0f} TFLOP/s"
    print(f"{name}, {candidates} candidates: {rate}; the bound is {limit}: {seconds[1] / bound:.2f}x its time")
    print(f"    first call {seconds[0]:.1f} s, then {seconds[1]:.2f} s; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


def bound_seconds(config: TransformerConfig, stream: StreamShape, candidates: int, bandwidth: float, flops: float) -> float:
    """Least time of one step for all candidates: everything read once, or every product done at the card's rate."""
    model = build_on_meta(config, stream)
    weights = sum(p.numel() for block in model.blocks for p in block.parameters()) + model.image_head.weight.numel()
    plans = [cache_layout(kind, stream.image_grid_size, config.conv_kernel_size) for kind in model.kinds]
    seen = sum(plan.is_visible.sum(1).float().mean().item() for plan in plans)
    read = weights + 2 * config.d_model * (config.num_layers * stream.max_text_tokens + candidates * seen)
    per_token = forward_flops_per_token(config, stream)
    return max(2 * read / bandwidth, candidates * (per_token["linear"] + per_token["sparse_attention"] + per_token["heads"]) / flops)


def measured_bandwidth() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty(2**30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / cuda_seconds(lambda: target.copy_(source))


def measured_flops() -> float:
    """Of a large bf16 matrix product."""
    a = torch.randn(8_192, 8_192, dtype=torch.bfloat16, device="cuda")
    return 2 * 8_192**3 / cuda_seconds(lambda: a @ a)


def cuda_seconds(run: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            run()
        torch.cuda.synchronize()
        least = min(least, (time.perf_counter() - started) / 10)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="*", choices=[*SIZES], default=[*SIZES], help="on a CPU")
    parser.add_argument("--presets", nargs="*", default=["small", "medium", "large"], help="on CUDA")
    parser.add_argument("--candidates", nargs="*", type=int, help="default 1 16 64, on CUDA 1 32 512")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of steps at each position, of which the fastest counts")
    parser.add_argument("--peer", type=Path, help="folder that holds DALLE-pytorch")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if arguments.device == "cuda":
        for name in arguments.presets:
            for candidates in arguments.candidates or (1, 32, 512):
                on_cuda(name, candidates)
        return
    torch.set_num_threads(1)
    for size in arguments.sizes:
        for candidates in arguments.candidates or (1, 16, 64):
            on_cpu(size, candidates, arguments.peer, arguments.repeats)


if __name__ == "__main__":
    main()
