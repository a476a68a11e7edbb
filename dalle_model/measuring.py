"""How fast this machine trains and draws, measured in seconds: the answer to a question on standard input, as JSON.

A child process, so that whoever asks need not load torch: `python -m dalle_model.measuring`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from dalle_datasets.store.parquet import list_parts
from dalle_model.clip import build_clip, contrastive_loss
from dalle_model.config.model import TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE
from dalle_model.dvae.loss import dvae_loss, hard_token_loss
from dalle_model.planning import Look, Machine, Times
from dalle_model.precision import autocast
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.text import BpeTokenizer
from dalle_model.training.parallel import own_device
from dalle_model.transformer import NO_TOKEN, DALLETransformer

SECONDS = 1.5
"""How long each measurement goes on, unless one round takes longer."""
MAX_CAPTIONS = 200_000
NUM_DRAWN = 16
MATRIX = 512


def look_at(pairs: Path, start: Path | None = None) -> Look:
    """What a folder of pairs holds: counts, captions, sizes; captions are counted in tokens of the vocabulary `start`, if given."""
    columns = ["caption", "split", "width", "height"]
    captions: list[str] = []
    sides: list[int] = []
    num_pairs = num_validation = 0
    for path in list_parts(pairs):
        table = pq.read_table(path, columns=columns)
        num_pairs += table.num_rows
        num_validation += table["split"].to_pylist().count("validation")
        captions += table["caption"].to_pylist()[: MAX_CAPTIONS - len(captions)]
        sides += np.minimum(table["width"].to_numpy(), table["height"].to_numpy()).tolist()
    words = {word for caption in captions for word in caption.lower().split()}
    vocab_size = min(16_384, max(320, 256 + 64 * round(1.2 * len(words) / 64)))
    lengths, cut_share = [1], 0.0
    if captions:
        tokenizer = BpeTokenizer.load(start) if start else BpeTokenizer.train(captions, TokenizerConfig(vocab_size=vocab_size))
        lengths = [len(ids) for ids in tokenizer.encode(captions)]
        cut_share = sum(length > tokenizer.max_text_tokens for length in lengths) / len(lengths) if start else 0.0
    median = int(np.median(sides)) if sides else 0
    return Look(num_pairs, num_validation, len(set(captions)), len(words), max(lengths), vocab_size, median, cut_share)


def measure_machine() -> Machine:
    """What this machine is, and its rates of matrix products."""
    device = own_device()
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
        rates.append(2 * MATRIX**3 / _seconds(lambda a=a, b=b: a @ b, device, 0.3))  # type: ignore[misc]
    is_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if is_gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = torch.cuda.get_device_name(device) if is_gpu else "cpu"
    num_devices = torch.cuda.device_count() if is_gpu else 1
    return Machine(name, num_devices, len(os.sched_getaffinity(0)), memory, rates[0], rates[1])


def measure_times(config: Config, startup_s: float) -> Times:
    """Updates of the three networks, and drawing, with these sizes on random data."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device, size = own_device(), config.dvae.image_size
    dvae = DVAE(config.dvae).to(device).to(memory_format=torch.channels_last)
    images = torch.rand(max(config.train_dvae.batch_size, config.train_clip.batch_size), 3, size, size, device=device)
    few = images[: config.train_dvae.batch_size].contiguous(memory_format=torch.channels_last)
    floor = config.train_dvae.min_log_scale
    dvae.encoder.requires_grad_(not config.dvae.has_fixed_tokens)

    def update_dvae() -> Tensor:
        if config.dvae.has_fixed_tokens:
            return hard_token_loss(dvae, few)["loss"]
        return dvae_loss(dvae, few, temperature=0.5, kl_weight=1.0, min_log_scale=floor)["loss"]

    dvae_s = _update_s(dvae, update_dvae, config, "train_dvae")
    words = [f"{i} picture of things" for i in range(len(images))]
    tokenizer = BpeTokenizer.train(words, replace(config.tokenizer, vocab_size=300))
    clip = build_clip(config.clip, tokenizer)
    clip.network.to(device)
    batch = images[: config.train_clip.batch_size]
    texts = clip.tokenize(words[: len(batch)]).to(device)
    dvae.eval()
    with torch.no_grad():
        encode_s = _seconds(lambda: clip.encode_images(dvae.decode_tokens(dvae.tokenize(batch))), device) / len(batch)
    clip_s = _update_s(
        clip.network, lambda: contrastive_loss(clip.network, clip.prepare_images(batch), texts)["loss"], config, "train_clip"
    )
    clip_s += config.train_clip.reconstruction_share * encode_s * len(batch)
    stream = replace(config.stream, text_vocab_size=config.tokenizer.vocab_size)
    transformer = DALLETransformer(config.transformer, stream).to(device)
    pairs = config.train_transformer.batch_size
    text = torch.randint(0, stream.text_vocab_size, (pairs, stream.max_text_tokens), device=device)
    tokens = torch.randint(0, stream.codebook_size, (pairs, stream.num_image_tokens), device=device)
    transformer_s = _update_s(transformer, lambda: sum(transformer.loss(text, tokens)), config, "train_transformer")
    transformer.eval()
    prompt = torch.full((1, stream.max_text_tokens), NO_TOKEN)
    prompt[0, 0] = 1
    seeds = candidate_seeds(0, ["a"], NUM_DRAWN)

    def draw() -> None:
        (drawn,) = sample_image_tokens(transformer, prompt, NUM_DRAWN, config.sampling, seeds)
        with torch.no_grad():
            clip.encode_images(dvae.decode_tokens(drawn))

    return Times(startup_s, dvae_s, clip_s, transformer_s, encode_s, _seconds(draw, device) / NUM_DRAWN)


def _update_s(model: nn.Module, loss: Callable[[], Any], config: Config, section: str) -> float:
    """Seconds of an update: forward, backward, AdamW."""
    settings = getattr(config, section)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    device = next(model.parameters()).device

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision, device):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return _seconds(update, device)


def _seconds(act: Callable[[], object], device: torch.device, at_least_s: float = SECONDS) -> float:
    """Mean seconds of a call, after one to warm up."""
    act()
    _wait(device)
    started, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - started < at_least_s:
        act()
        calls += 1
        _wait(device)
    return (time.perf_counter() - started) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Answer questions, one JSON object a line: {"pairs": folder, "tokenizer": folder or none} or {"overrides": settings of `demo`}."""
    startup_s = time.time() - float(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        if "pairs" in asked:
            start = Path(asked["tokenizer"]) if asked.get("tokenizer") else None
            answer: dict[str, Any] = {"look": asdict(look_at(Path(asked["pairs"]), start)), "machine": asdict(measure_machine())}
        else:
            answer = asdict(measure_times(preset("demo", asked["overrides"]), startup_s))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
