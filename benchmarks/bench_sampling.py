"""Whole pictures by the sampler: `python benchmarks/bench_sampling.py`; on a GPU: `--device cuda`.

On a CPU, references run in the same process: the same network with full attention and a cache of everything (with the text
shared by all candidates, and with a copy each), no cache at all, and, given `--peer`, DALLE-pytorch (see `peer_dalle_pytorch.py`).
Alternatives take turns every few tokens, so that whatever else the machine does hits all alike. Where there is no cache, the step in
the middle of each turn is timed and counted for all steps of the turn; everything else runs every token. CPU seconds of one
thread, the caption's reading and the draws included, the dVAE's decoder left out.

On CUDA the presets' sizes run in bf16 with random weights, beside the bound that the card's memory and matrix
rate, measured in the same call, set for weights, keys, values and products.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from bench_train import SIZES
from peer_dalle_pytorch import peer_samplers
from timing import print_ratios

from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.plan import forward_flops_per_token
from dalle_model.config.presets import preset
from dalle_model.sampling.generate import FREE, candidate_seeds, growing, sample_image_tokens
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.cache import read_text
from dalle_model.transformer.slots import slot_plan

TURNS = 16
Sampler = Iterator[object] | Callable[[int], object]
"""An iterator that does a step at a time, or, without a cache, a function that does the step of a given position."""


def build(config: TransformerConfig, stream: StreamShape) -> DALLETransformer:
    torch.manual_seed(0)
    return DALLETransformer(config, stream).eval()


def sampler(model: DALLETransformer, captions: int, candidates: int) -> Iterator[object]:
    """What `sample_image_tokens` does for one batch on a CPU, one token at a time."""
    stream = model.stream
    text = torch.randint(stream.text_vocab_size, (1, stream.max_text_tokens)).repeat(captions, 1)
    noise = torch.rand(captions, candidates, stream.num_image_tokens, dtype=torch.float64)
    known = torch.full((captions, stream.num_image_tokens), FREE)
    yield from growing(model, read_text(model, text), noise, known, SamplingConfig())


def without_cache(model: DALLETransformer) -> Callable[[int], object]:
    text = torch.zeros(1, model.stream.max_text_tokens, dtype=torch.int64)
    image = torch.zeros(1, model.stream.num_image_tokens, dtype=torch.int64)
    return lambda position: model.image_head(model.hidden_states(text, image)[1][:, position])


def cpu_seconds(samplers: dict[str, Sampler], num_tokens: int) -> dict[str, float]:
    """Process CPU seconds of a whole picture (or set of pictures) for each way, taking turns."""
    seconds = dict.fromkeys(samplers, 0.0)
    for turn in range(TURNS):
        first, last = turn * num_tokens // TURNS, (turn + 1) * num_tokens // TURNS
        for name, way in samplers.items():
            started = time.process_time()
            if callable(way):
                way((first + last) // 2)
                seconds[name] += (time.process_time() - started) * (last - first)
            else:
                for _ in range(first, last):
                    next(way)
                seconds[name] += time.process_time() - started
    return seconds


def on_cpu(size: str, candidates: int, peer: Path | None) -> None:
    config, stream, _ = SIZES[size]
    full = build(replace(config, attention="full"), stream)
    with torch.inference_mode():
        samplers: dict[str, Sampler] = {
            "sparse cache": sampler(build(config, stream), 1, candidates),
            "sparse cache, bf16": sampler(build(config, stream).hold_weights_in(torch.bfloat16), 1, candidates),
            "full attention, shared text": sampler(full, 1, candidates),
        }
        reference = "full attention, shared text"
        if candidates > 1:
            reference = "full attention, a text each"
            samplers[reference] = sampler(full, candidates, 1)
        else:
            samplers["no cache"] = without_cache(build(config, stream))
        samplers |= peer_samplers(peer, config, stream, candidates)
        for way in samplers.values():  # what only the first step pays: memory, and the libraries' choices
            if callable(way):
                way(0)
        seconds = cpu_seconds(samplers, stream.num_image_tokens)
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
    return [slot_plan(kind, stream.image_grid_size, config.conv_kernel_size).num_slots for kind in kinds]


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
    plans = [slot_plan(kind, stream.image_grid_size, config.conv_kernel_size) for kind in model.kinds]
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
    parser.add_argument("--peer", type=Path, help="folder that holds DALLE-pytorch")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        for name in arguments.presets:
            for candidates in arguments.candidates or (1, 32, 512):
                on_cuda(name, candidates)
        return
    torch.set_num_threads(1)
    for size in arguments.sizes:
        for candidates in arguments.candidates or (1, 16, 64):
            on_cpu(size, candidates, arguments.peer)


if __name__ == "__main__":
    main()
