"""The dVAE against the published code: `python benchmarks/bench_dvae.py [--size small|paper] [--dvae FOLDER]`.

The reference is the published `dall_e` package's arithmetic, rewritten line by line below and run in the same process with the same
weights: encoder logits then argmax, decoder from one-hot vectors. Tokens must be identical, else the benchmark stops.
Then what bf16 and fp16 change: with random weights, with the demo's k-means start, and with the checkpoint of `--dvae`; and how fast
the parts of tokenising are, decoding of pictures, their way to the device, and the network. On a CUDA device (or with `--device`) these are
seconds of the clock, beside the rate of matrix products measured in the same run: `--size paper` fills the GPU table of RESULTS.md.
"""

import argparse
import collections
import io
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timing import least_cpu_seconds, print_ratios
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dalle_datasets.demo.emoji_scenes import all_scenes, draw_scene
from dalle_datasets.images import decode_image
from dalle_datasets.loading.image_batches import centre, transformer_augmentation
from dalle_model.config.model import DVAEConfig
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.codebook import initialize_codebook
from dalle_model.dvae.image_tokenizer import COMPILE_FOR_CUDA, Encode, ImageTokenizer
from dalle_model.dvae.loss import dvae_loss
from dalle_model.dvae.pixels import as_floats, as_tensor, map_pixels, unmap_pixels
from dalle_model.precision import autocast

SIZES = {"small": DVAEConfig(image_size=64, codebook_size=512, hidden_width=64), "paper": DVAEConfig()}


def published_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`dall_e.utils.Conv2d.forward` on a CPU."""
    return F.conv2d(x, conv.weight, conv.bias, padding=(conv.kernel_size[0] - 1) // 2)


def published_block(block: nn.Module, x: Tensor) -> Tensor:
    """`EncoderBlock.forward` and `DecoderBlock.forward`."""
    skip, residual = block.skip, x
    for conv in block.convs:  # type: ignore[union-attr]
        residual = published_conv(conv, F.relu(residual))
    return (published_conv(skip, x) if isinstance(skip, nn.Conv2d) else x) + block.residual_gain * residual  # type: ignore[operator]


def published_tokens(model: DVAE, images: Tensor) -> Tensor:
    """Encoder and argmax as in the published notebook."""
    x = published_conv(model.encoder.input, map_pixels(images))
    for g, group in enumerate(model.encoder.groups):
        for block in group:  # type: ignore[union-attr]
            x = published_block(block, x)
        x = F.max_pool2d(x, 2) if g < 3 else x
    return published_conv(model.encoder.output, F.relu(x)).argmax(1).flatten(1)


def published_pictures(model: DVAE, tokens: Tensor) -> Tensor:
    """One-hot vectors, decoder, sigmoid as in the published notebook."""
    size, grid = model.config.codebook_size, model.config.image_grid_size
    x = published_conv(model.decoder.input, F.one_hot(tokens.view(-1, grid, grid), size).permute(0, 3, 1, 2).float())
    for g, group in enumerate(model.decoder.groups):
        for block in group:  # type: ignore[union-attr]
            x = published_block(block, x)
        x = F.interpolate(x, scale_factor=2, mode="nearest") if g < 3 else x
    return unmap_pixels(torch.sigmoid(published_conv(model.decoder.output, F.relu(x))[:, :3]))


def training_update(flush_denormals: bool, batch: int) -> Callable[[], object]:
    """Forward and backward of the demo's dVAE with cold samples, whose tails fall below the smallest normal number."""
    config = DVAEConfig(
        image_size=32,
        downsample=4,
        codebook_size=512,
        hidden_width=64,
        num_groups=2,
        blocks_per_group=1,
        codebook_width=64,
        stem_patch_size=2,
    )
    torch.manual_seed(0)
    model, images = DVAE(config).to(memory_format=torch.channels_last), torch.rand(batch, 3, 32, 32)
    with torch.no_grad():
        model.encoder.output.weight.mul_(100)  # confident, as after training

    def run() -> None:
        torch.set_flush_denormal(flush_denormals)
        dvae_loss(model, images, temperature=1 / 16, kl_weight=1.0, min_log_scale=0.0)["loss"].backward()

    return run


@torch.inference_mode()
def print_changed_tokens(checkpoint: Path | None) -> None:
    """Share of tokens that bf16 convolutions change, on scenes of the demo."""
    demo = preset("demo")
    scenes = [draw_scene(scene, 64) for scene in random.Random(0).sample(all_scenes(), 512)]
    torch.manual_seed(0)
    started = DVAE(demo.dvae)
    initialize_codebook(started, pictures(scenes, demo.dvae.image_size), seed=0)
    models = {"random weights (--size small)": DVAE(SIZES["small"]), "the demo's k-means start": started}
    if checkpoint is not None:
        models[str(checkpoint)] = load_dvae(checkpoint)
    print("tokens that shorter types change             bf16      fp16")
    for name, model in models.items():
        images = pictures(scenes[:64], model.config.image_size)
        exact = model.eval().tokenize(images)
        changed = []
        for precision in ("bf16", "fp16"):
            with autocast(precision, images.device):
                changed.append(float((model.tokenize(images) != exact).float().mean()))
        print(f"  {name:36s} {changed[0]:9.3%} {changed[1]:9.3%}")


def pictures(scenes: list[NDArray[np.uint8]], side: int) -> Tensor:
    """Scenes as the dVAE reads them."""
    return as_floats(as_tensor(np.stack([centre(scene, side, np.random.default_rng(0)) for scene in scenes])))


def print_rates(config: DVAEConfig, repeats: int) -> None:
    """Pictures a second of one core: decoding, with the transformer's crop, and the network."""
    side, rng = config.image_size, np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((2 * side, 3 * side // 2), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=90)
    model = DVAE(config).eval().to(memory_format=torch.channels_last)
    parts = {
        f"decode JPEG {smooth.width} x {smooth.height}, crop": lambda: transformer_augmentation(
            np.asarray(decode_image(file.getvalue(), 2**27)), side, rng
        ),
        "network": lambda: model.tokenize(torch.rand(1, 3, side, side)),
    }
    seconds = least_cpu_seconds(parts, repeats)
    print_ratios(f"tokenising at {side} x {side}", seconds, "network", lambda s: f"{1 / s:9.1f} images/s")


@torch.no_grad()
def print_device_rates(config: DVAEConfig, device: torch.device, batch: int, dvae: Path | None) -> None:
    """Pictures a second of each part of tokenising, by the clock."""
    torch.manual_seed(0)
    model = (load_dvae(dvae) if dvae else DVAE(config).eval()).requires_grad_(False).to(device)
    side = model.config.image_size
    images = np.stack([draw_scene(scene, side) for scene in random.Random(0).sample(all_scenes(), batch)])
    with FlopCounterMode(display=False) as counter:
        model.tokenize(as_floats(as_tensor(images[:1]).to(device)))
    flops = counter.get_total_flops()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; {side} x {side}, batches of {batch}; {flops / 1e9:.1f} GFLOP a picture")
    for precision in ("fp32", "fp16", "bf16"):
        print_network_rates(model, images, flops, precision)
    if device.type == "cuda":
        host = torch.from_numpy(images)
        for way, source in (("pageable", host), ("pinned", host.pin_memory())):
            taken = seconds(lambda source=source: source.to(device, non_blocking=True), device, 20)
            print(f"  transfer, {way:32s} {batch / taken:9.1f} images/s")
    files, rng = [encoded(scene) for scene in images], np.random.default_rng(0)

    def decode(data: bytes) -> NDArray[np.uint8]:
        return transformer_augmentation(np.asarray(decode_image(data, 2**27)), side, rng)

    for num_threads in sorted({1, os.cpu_count() or 1}):
        with ThreadPoolExecutor(num_threads) as threads:
            taken = seconds(lambda threads=threads: list(threads.map(decode, files)), torch.device("cpu"), 3)
        print(f"  decode JPEG and crop, {num_threads:3d} threads          {batch / taken:9.1f} images/s")


def print_network_rates(model: DVAE, images: NDArray[np.uint8], flops: int, precision: str) -> None:
    """The encoder with and without what `ImageTokenizer` does on CUDA, against matrix products of the same type on the same device."""
    device, batch = next(model.parameters()).device, len(images)
    size = 8_192 if device.type == "cuda" else 512
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    measured = 2 * size**3 / seconds(lambda: left @ right, device, 20)
    (exact,) = ImageTokenizer(model, "fp32", batch, as_it_is).stream([images])
    ways = {"as it is": as_it_is} | ({"compiled, CUDA graph": COMPILE_FOR_CUDA} if device.type == "cuda" else {})
    for way, compiler in ways.items():
        tokenizer = ImageTokenizer(model, precision, batch, compiler)
        (made,) = tokenizer.stream([images])
        tokenizer.busy_s, num_batches = 0.0, 20 if device.type == "cuda" else 2
        collections.deque(tokenizer.stream([images] * num_batches), maxlen=0)
        rate = num_batches * batch / tokenizer.busy_s
        print(
            f"  network, {precision}, {way:27s} {rate:9.1f} images/s  {rate * flops / 1e12:7.3f} TFLOP/s, {rate * flops / measured:4.0%} "
            f"of {measured / 1e12:.3f} measured; {(made != exact).mean():.4%} of the tokens differ from plain fp32"
        )


def as_it_is(encode: Encode) -> Encode:
    """No compiler."""
    return encode


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the clock for one of several runs in a row, after one that does not count."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / repeats


def encoded(scene: NDArray[np.uint8]) -> bytes:
    """The scene as a JPEG of twice its width and one and a half times its height, as photographs are larger than what is made of them."""
    file = io.BytesIO()
    height, width = scene.shape[:2]
    Image.fromarray(scene).resize((2 * width, 3 * height // 2), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


@torch.inference_mode()
def inference(config: DVAEConfig, repeats: int) -> None:
    torch.manual_seed(0)
    model = DVAE(config).eval()
    channels_last = DVAE(config).eval().to(memory_format=torch.channels_last)
    channels_last.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, config.image_size, config.image_size)
    tokens = published_tokens(model, images)
    for ours in (model, channels_last):
        if not torch.equal(ours.tokenize(images), tokens):
            raise SystemExit("tokens differ from the published code's")
    encoders = {
        "published code": lambda: published_tokens(model, images),
        "ours": lambda: model.tokenize(images),
        "ours, channels_last": lambda: channels_last.tokenize(images),
    }
    decoders = {
        "published code (one-hot)": lambda: published_pictures(model, tokens),
        "ours (lookup)": lambda: model.decode_tokens(tokens),
        "ours (lookup), channels_last": lambda: channels_last.decode_tokens(tokens),
    }
    for title, alternatives in (("encoder: picture to tokens", encoders), ("decoder: tokens to picture", decoders)):
        seconds = least_cpu_seconds(alternatives, repeats)
        print_ratios(title, seconds, next(iter(alternatives)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dvae", type=Path, help="folder of a trained dVAE, e.g. data/runs/train-dvae-…/dvae")
    parser.add_argument("--device", action="store_true", help="only the rates of this machine's device, by the clock (the default on CUDA)")
    parser.add_argument("--batch", type=int, default=64, help="pictures per forward pass of the device's rates")
    arguments = parser.parse_args()
    if torch.cuda.is_available() or arguments.device:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        print_device_rates(SIZES[arguments.size], device, arguments.batch, arguments.dvae)
        return
    torch.set_num_threads(1)
    inference(SIZES[arguments.size], arguments.repeats)
    print_rates(SIZES[arguments.size], arguments.repeats)
    print_changed_tokens(arguments.dvae)
    updates = {"as torch comes": training_update(False, 16), "denormals flushed": training_update(True, 16)}
    print_ratios("demo training update, cold samples", least_cpu_seconds(updates, arguments.repeats), "as torch comes")


if __name__ == "__main__":
    main()
