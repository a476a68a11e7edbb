"""Everything that only a GPU can tell, in one call of minutes: `python benchmarks/on_gpu.py --minutes 8 --out DIR` or `make gpu`.

The machine needs a GPU, `open-dalle[train]` and, for the tests, pytest. The steps run in this order, each in a process of its own with a
slice of the time that is left, because a crash of one must not take the others along:

    machine     card, driver, torch; measured ceilings: a large bf16 product, a copy within the device's memory
    tests       `pytest -m gpu tests/on_gpu`
    training    updates of small, medium and large: tokens/s, share of the ceiling, memory against the plan, by form of attention
    sampling    1, 32 and 512 candidates beside the bound that the card's memory and products set
    tokenising  pictures/s of the dVAE's encoder by precision
    pictures    vocabulary, dVAE, tokens and transformer trained on scenes drawn here, tokens that short types change, pictures at the end

Each figure is appended to DIR/results.jsonl as soon as it is there, what a step prints to DIR/STEP.log, and how each step ended to the
screen and to results.jsonl. A step that fails, or runs out of time, is recorded and the next one begins. `--dry-run` does all of it at toy
size on a CPU, in this process.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene, draw_scene
from dalle_datasets.loading.image_batches import ImageBatches
from dalle_datasets.store.ids import pair_id
from dalle_datasets.store.parquet import list_parts, read_parquet, write_parts
from dalle_datasets.store.schemas import IMAGE_TOKENS, PAIRS, TEXT_TOKENS, TRAINING_SET
from dalle_model.config.model import DVAEConfig
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.image_tokenizer import ImageTokenizer
from dalle_model.dvae.pixels import as_bytes
from dalle_model.generator import decode_batches
from dalle_model.jobs.train_transformer import weighted_loss
from dalle_model.precision import autocast
from dalle_model.running.run_dir import execute, prepare
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.text import BpeTokenizer
from dalle_model.training.optim import MovingAverage, build_optimizer
from dalle_model.transformer import NO_TOKEN, DALLETransformer, load_transformer
from dalle_model.transformer.attention import build_attention
from dalle_model.transformer.cache_layout import cache_layout
from dalle_model.transformer.cost import forward_flops_per_token, plan_transformer, training_flops_per_token

ROOT = Path(__file__).resolve().parents[1]
SHARES = {"machine": 2, "tests": 14, "training": 14, "sampling": 10, "tokenising": 5, "pictures": 15}
"""Step -> its share of the time."""
TINY = {
    "tokenizer.vocab_size": 280, "tokenizer.max_text_tokens": 8, "dvae.image_size": 32, "dvae.codebook_size": 16, "dvae.hidden_width": 8,
    "dvae.codebook_width": 8, "clip.image_size": 32, "clip.patch_size": 8, "transformer.num_layers": 2, "transformer.num_heads": 2,
    "transformer.d_model": 32, "transformer.conv_kernel_size": 3, "train_transformer.batch_size": 4, "train_transformer.microbatch_size": 0,
}  # fmt: skip
"""What makes a preset a toy."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One step's surroundings."""

    out: Path
    step: str
    is_dry: bool
    ends_at: float
    """`time.monotonic()` at which its time is over."""

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return torch.device("cpu" if self.is_dry else "cuda")

    @property
    def has_time(self) -> bool:
        """Whether another figure may be begun."""
        return time.monotonic() < self.ends_at

    def write(self, **figures: Any) -> None:
        """Keep figures, at once."""
        with (self.out / "results.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **figures}) + "\n")

    def attempt(self, name: str, act: Callable[[], dict[str, Any]]) -> None:
        """Write what `act` returns, or why it failed, which costs this figure only."""
        if not self.has_time:
            return self.write(what=name, skipped="no time left")
        try:
            self.write(what=name, **act())
        except Exception as error:
            traceback.print_exc()
            self.write(what=name, error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if not self.is_dry:
            torch.cuda.empty_cache()

    def config(self, name: str, **overrides: Any) -> Config:
        """A preset, or a toy of its kind."""
        toy = {**TINY, **{key: value for key, value in overrides.items() if key not in TINY}} if self.is_dry else overrides
        return preset(name, {"paths.data_root": str(self.out / "data"), **toy})

    def seconds(self, run: Callable[[], object], repeats: int = 3) -> float:
        """The least of some runs, after one that does not count."""
        least = float("inf")
        for i in range(1 + (1 if self.is_dry else repeats)):
            self.finish_work()
            started = time.perf_counter()
            run()
            self.finish_work()
            least = min(least, time.perf_counter() - started) if i else least
        return least

    def finish_work(self) -> None:
        """Wait for the device."""
        if not self.is_dry:
            torch.cuda.synchronize()


def machine(bench: Bench) -> None:
    """What this is, and what it can do at most."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "pyarrow", "triton") if _is_installed(name)}
    about: dict[str, Any] = {
        "host_cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "cuda": torch.version.cuda,
    }
    if not bench.is_dry:
        card = torch.cuda.get_device_properties(0)
        about |= {"card": card.name, "memory_gib": card.total_memory / 2**30, "capability": f"{card.major}.{card.minor}"}
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
            about["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    bench.write(what="machine", **about)
    bench.attempt("ceilings", lambda: ceilings(bench))


def ceilings(bench: Bench) -> dict[str, float]:
    """Products in TFLOP/s, a copy in TB/s."""
    side, num_bytes = (128, 2**16) if bench.is_dry else (8_192, 2**31)
    found = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a = torch.randn(side, side, device=bench.device).to(dtype)
        found[f"{str(dtype).removeprefix('torch.')}_tflops"] = 2 * side**3 / bench.seconds(lambda a=a: a @ a, 10) / 1e12
    source = torch.zeros(num_bytes, dtype=torch.int8, device=bench.device)
    target = torch.empty_like(source)
    found["copy_tb_per_s"] = 2 * num_bytes / bench.seconds(lambda: target.copy_(source), 10) / 1e12
    return found


def tests(bench: Bench) -> None:
    """The tests that are for a GPU."""
    if not _is_installed("pytest"):
        return bench.write(what="tests", skipped="pytest is not installed")
    options = ["-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/on_gpu", "--durations=5"]
    if bench.is_dry:
        import pytest

        return bench.write(what="tests", exit_status=int(pytest.main([*options, "--collect-only", f"--rootdir={ROOT}"])))
    left = max(1.0, bench.ends_at - time.monotonic())
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=left)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    bench.write(what="tests", exit_status=done.returncode, summary=done.stdout.strip().splitlines()[-1:], failed=failed)


def training(bench: Bench) -> None:
    """Updates of the presets' transformers, by form of attention."""
    ceiling = _read(bench, "ceilings").get("bfloat16_tflops", 0.0) * 1e12
    pairs = {"small": 128, "medium": 32, "large": 16}
    for name, forms in {
        "small": ("chosen", "flex", "structured"),
        "medium": ("chosen", "structured", "masked"),
        "large": ("chosen",),
    }.items():
        for form in forms:
            if not (bench.is_dry and form == "flex"):  # which has no backward pass on a CPU
                bench.attempt(f"{name}, {form}", lambda name=name, form=form: update_rate(bench, name, form, pairs[name], ceiling))


def update_rate(bench: Bench, name: str, form: str, pairs: int, ceiling: float) -> dict[str, Any]:
    """Whole updates in bf16 on random tokens: forward, backward, clipping, AdamW, average."""
    config = bench.config(name, **{"train_transformer.batch_size": pairs, "train_transformer.microbatch_size": 0})
    settings, stream, transformer = config.train_transformer, config.stream, config.transformer
    torch.manual_seed(0)
    model = DALLETransformer(transformer, stream)
    if form != "chosen":
        sizes = (stream.max_text_tokens, stream.image_grid_size, transformer.conv_kernel_size)
        model.attention = nn.ModuleDict({kind: build_attention(kind, *sizes, form) for kind in set(model.kinds)})  # type: ignore[arg-type]
    model.to(bench.device)
    optimizer, average = build_optimizer(model, settings), MovingAverage(model, settings.ema_decay)
    batch = {
        "text_tokens": torch.randint(stream.text_vocab_size, (settings.batch_size, stream.max_text_tokens), device=bench.device),
        "image_tokens": torch.randint(stream.codebook_size, (settings.batch_size, stream.num_image_tokens), device=bench.device),
    }

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision, bench.device):
            loss = weighted_loss(model, batch, settings.text_loss_weight)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        average.update(model, 1)

    if not bench.is_dry:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    update()
    bench.finish_work()
    first = time.perf_counter() - started
    tokens_per_s = settings.batch_size * stream.num_positions / bench.seconds(update, 5)
    figures = {"pairs": settings.batch_size, "tokens_per_s": tokens_per_s, "first_update_s": first}
    if ceiling:
        figures["share_of_ceiling"] = tokens_per_s * training_flops_per_token(transformer, stream) / ceiling
    if not bench.is_dry:
        figures["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    figures["planned_gib"] = plan_transformer(config).memory.total / 2**30
    return figures


def sampling(bench: Bench) -> None:
    """Whole pictures' tokens, beside what the card's memory and products allow."""
    found = _read(bench, "ceilings")
    for name in ("medium", "large"):
        for candidates in (1, 2, 3) if bench.is_dry else (1, 32, 512):
            bench.attempt(f"{name}, {candidates} candidates", lambda name=name, n=candidates: sampling_rate(bench, name, n, found))


def sampling_rate(bench: Bench, name: str, candidates: int, ceilings: dict[str, float]) -> dict[str, Any]:
    """Seconds of the first call, which compiles, and of the second."""
    config = bench.config(name)
    model = DALLETransformer(config.transformer, config.stream).eval().hold_weights_in(torch.bfloat16).to(bench.device)
    text = torch.zeros(1, config.stream.max_text_tokens, dtype=torch.int64)
    settings, seeds = replace(config.sampling, num_images=candidates, batch_size=candidates), candidate_seeds(0, ["a prompt"], candidates)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        sample_image_tokens(model, text, candidates, settings, seeds)
        bench.finish_work()
        seconds.append(time.perf_counter() - started)
    figures = {"first_s": seconds[0], "seconds": seconds[1], "images_per_s": candidates / seconds[1]}
    if {"copy_tb_per_s", "bfloat16_tflops"} <= ceilings.keys():
        figures["times_the_bound"] = seconds[1] / bound_seconds(config, candidates, ceilings)
    return figures


def bound_seconds(config: Config, candidates: int, ceilings: dict[str, float]) -> float:
    """Least time of a picture: at each step everything is read once, or every product done at the card's rate."""
    transformer, stream = config.transformer, config.stream
    with torch.device("meta"):
        model = DALLETransformer(transformer, stream)
    weights = sum(p.numel() for block in model.blocks for p in block.parameters()) + model.image_head.weight.numel()
    plans = [cache_layout(kind, stream.image_grid_size, transformer.conv_kernel_size) for kind in model.kinds]
    seen = sum(plan.is_visible.sum(1).float().mean().item() for plan in plans)
    read = 2 * (weights + 2 * transformer.d_model * (len(plans) * stream.max_text_tokens + candidates * seen))
    flops = forward_flops_per_token(transformer, stream)
    products = candidates * (flops["linear"] + flops["sparse_attention"] + flops["heads"])
    step = max(read / (ceilings["copy_tb_per_s"] * 1e12), products / (ceilings["bfloat16_tflops"] * 1e12))
    return step * stream.num_image_tokens


def tokenising(bench: Bench) -> None:
    """Pictures a second of the published network's shape, as the job runs it."""
    config = bench.config("small").dvae if bench.is_dry else DVAEConfig()
    for precision in ("fp16", "bf16", "fp32"):
        bench.attempt(precision, lambda precision=precision: encoder_rate(bench, config, precision))


def encoder_rate(bench: Bench, config: DVAEConfig, precision: str) -> dict[str, Any]:
    """Of several batches that overlap as in the job."""
    model = DVAE(config).eval().requires_grad_(False).to(bench.device)
    size = 4 if bench.is_dry else 32
    images = np.random.default_rng(0).integers(0, 256, (size, config.image_size, config.image_size, 3), np.uint8)
    started = time.perf_counter()
    tokenizer = ImageTokenizer(model, precision, size)
    compiled_s = time.perf_counter() - started
    num_batches = 2 if bench.is_dry else 20
    seconds = bench.seconds(lambda: list(tokenizer.stream([images] * num_batches)), 2)
    return {"images_per_s": num_batches * size / seconds, "compile_s": compiled_s}


def pictures(bench: Bench) -> None:
    """The whole way from pictures to pictures by the jobs themselves."""
    config = bench.config("demo", **{"train_dvae.precision": "bf16", "train_transformer.precision": "bf16"})
    if bench.is_dry:
        config = replace(
            config,
            dvae=replace(config.dvae, codebook_init="random"),
            train_dvae=replace(config.train_dvae, max_steps=2, batch_size=8),
            train_transformer=replace(config.train_transformer, max_steps=2),
        )
    made: dict[str, Any] = {}
    draw_pairs(bench.out / "data", 60 if bench.is_dry else 3_000)
    pairs = {"pairs": "pairs/scenes", "pairs_id": "drawn here"}
    bench.attempt("vocabulary", lambda: run("train_bpe", config, pairs, made, tokenizer="tokenizer"))
    bench.attempt("dvae", lambda: run("train_dvae", config, pairs, made, dvae="checkpoint"))
    chosen = {kind: made.get(kind, "") for kind in ("dvae", "dvae_id", "tokenizer", "tokenizer_id")}
    bench.attempt("tokens that short types change", lambda: changed_tokens(bench, bench.out / "data" / chosen["dvae"]))
    networks = {**pairs, **chosen}
    bench.attempt("image tokens", lambda: run("tokenize_images", config, networks, made, image_tokens="image_tokens"))
    bench.attempt("text tokens", lambda: run("tokenize_captions", config, networks, made, text_tokens="text_tokens"))
    join_tokens(bench.out / "data", made)
    inputs = {**chosen, "training_set": "training_sets/scenes", "training_set_id": "scenes"}
    bench.attempt("transformer", lambda: run("train_transformer", config, inputs, made, transformer="checkpoint"))
    bench.attempt("pictures", lambda: draw(bench, config, made))


def run(job: str, config: Config, inputs: dict[str, str], made: dict[str, Any], **kept: str) -> dict[str, Any]:
    """A job's figures; its artefact and id go to `made`."""
    started = time.perf_counter()
    result = execute(job, prepare(job, config, inputs))
    for kind, key in kept.items():
        made[kind] = result[key]
        made[f"{kind}_id"] = result.get(f"{kind}_id", "")
    return {"seconds": time.perf_counter() - started, **{name: value for name, value in result.items() if isinstance(value, int | float)}}


def draw_pairs(root: Path, number: int) -> None:
    """Captioned scenes as the filters would leave them, every tenth for validation."""
    import hashlib
    import io
    import random

    rows = []
    for i, scene in enumerate(random.Random(0).sample(all_scenes(), number)):
        pixels, file = draw_scene(scene, 64), io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        caption, sha256 = caption_scene(scene, random.Random(i)), hashlib.sha256(file.getvalue()).hexdigest()
        row = {field.name: None for field in PAIRS}
        row |= {"pair_id": pair_id(sha256, caption), "caption": caption, "image": file.getvalue(), "width": 64, "height": 64}
        row |= {"sha256": sha256, "pixel_sha256": sha256, "split": "validation" if i % 10 == 9 else "train", "language": "en"}
        row |= {"num_caption_words": len(caption.split()), "aspect_ratio": 1.0, "source": "scenes", "candidate_id": f"{i:016x}"}
        rows.append(row | {"page_url": "", "image_url": f"{i}.png"})
    write_parts(root / "pairs" / "scenes", pa.Table.from_pylist(rows, PAIRS.with_metadata(None)), PAIRS, 1_000, 250)


def join_tokens(root: Path, made: dict[str, Any]) -> None:
    """The training set that SQL would choose: every pair."""
    tokens: dict[str, dict[int, list[int]]] = {}
    for kind, schema in (("image_tokens", IMAGE_TOKENS), ("text_tokens", TEXT_TOKENS)):
        parts = [read_parquet(part, schema, ["pair_id", kind]) for part in list_parts(root / made[kind])]
        tokens[kind] = {row["pair_id"]: row[kind] for part in parts for row in part.to_pylist()}
    rows = [
        {**row, **{kind: found[row["pair_id"]] for kind, found in tokens.items()}}
        for part in list_parts(root / "pairs" / "scenes")
        for row in read_parquet(part, PAIRS, ["pair_id", "caption", "split"]).to_pylist()
    ]
    blank: dict[str, Any] = {"crop": 0, "source": "scenes", "page_url": ""}
    table = pa.Table.from_pylist(
        [{**{n: blank.get(n) for n in TRAINING_SET.names}, **row} for row in rows], TRAINING_SET.with_metadata(None)
    )
    write_parts(root / "training_sets" / "scenes", table, TRAINING_SET, 1_000, 250)
    manifest = {"training_set_id": "scenes", **{name: made[name] for name in ("tokenizer_id", "dvae_id")}}
    (root / "training_sets" / "scenes" / "manifest.json").write_text(json.dumps(manifest))


def changed_tokens(bench: Bench, directory: Path) -> dict[str, Any]:
    """Share of a trained dVAE's tokens that differ from those in fp32."""
    model = load_dvae(directory).to(bench.device)
    images = ImageBatches(bench.out / "data" / "pairs" / "scenes", "validation", model.config.image_size)
    batch = next(images.in_order(6 if bench.is_dry else 256)).images
    tokens = {kind: next(iter(ImageTokenizer(model, kind, len(batch)).stream([batch]))) for kind in ("fp32", "fp16", "bf16")}
    return {kind: float((tokens[kind] != tokens["fp32"]).mean()) for kind in ("fp16", "bf16")}


def draw(bench: Bench, config: Config, made: dict[str, Any]) -> dict[str, Any]:
    """A sheet of pictures, a row for each of eight held-out captions, in DIR/pictures.png."""
    root = bench.out / "data"
    tokenizer, dvae = BpeTokenizer.load(root / made["tokenizer"]), load_dvae(root / made["dvae"]).to(bench.device)
    model = load_transformer(root / made["transformer"]).to(bench.device)
    captions = next(
        ImageBatches(root / "pairs" / "scenes", "validation", dvae.config.image_size).in_order(2 if bench.is_dry else 8)
    ).captions
    text = torch.full((len(captions), model.stream.max_text_tokens), NO_TOKEN)
    for row, ids in zip(text, tokenizer.encode(captions), strict=True):
        row[: len(ids)] = torch.tensor(ids[: len(row)])
    num_images = 2 if bench.is_dry else 16
    settings = replace(config.sampling, num_images=num_images, batch_size=num_images * len(captions))
    started = time.perf_counter()
    tokens = sample_image_tokens(model, text, num_images, settings, candidate_seeds(0, captions, num_images))
    images: Tensor = torch.cat(list(decode_batches(dvae, tokens.flatten(0, 1), settings.batch_size)))
    rows = as_bytes(images).reshape(len(captions), num_images, *as_bytes(images).shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(bench.out / "pictures.png")
    return {"captions": captions, "seconds": time.perf_counter() - started, "sheet": "pictures.png"}


STEPS: dict[str, Callable[[Bench], None]] = {
    "machine": machine,
    "tests": tests,
    "training": training,
    "sampling": sampling,
    "tokenising": tokenising,
    "pictures": pictures,
}


def _is_installed(name: str) -> bool:
    try:
        return bool(metadata.version(name)) and find_spec(name) is not None
    except (metadata.PackageNotFoundError, ModuleNotFoundError):
        return False


def _read(bench: Bench, what: str) -> dict[str, float]:
    """Figures that an earlier step wrote."""
    lines = [json.loads(line) for line in (bench.out / "results.jsonl").read_text().splitlines()]
    found: dict[str, float] = next((line for line in reversed(lines) if line.get("what") == what and "error" not in line), {})
    return found


def _in_this_process(bench: Bench) -> str:
    """How the step ended."""
    try:
        STEPS[bench.step](bench)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


def _in_a_process(bench: Bench) -> str:
    """How the step ended, in a process of its own that ends with its time."""
    slice_s = bench.ends_at - time.monotonic()
    command = [sys.executable, __file__, "--out", str(bench.out), "--step", bench.step, "--minutes", str(slice_s / 60)]
    with (bench.out / f"{bench.step}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(slice_s + 10)  # its own clock ends it between two figures
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return "out of time"
    return "" if status == 0 else f"exit status {status}; see {bench.step}.log"


def steps(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Each step with its part of the time that is left."""
    ends_at, names = time.monotonic() + arguments.minutes * 60, [arguments.step] if arguments.step else [*STEPS]
    for i, name in enumerate(names):
        left = ends_at - time.monotonic()
        share = left * SHARES[name] / sum(SHARES[other] for other in names[i:])
        yield Bench(arguments.out, name, arguments.dry_run, time.monotonic() + share)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True, help="a folder for results; what is there of an earlier call is kept")
    parser.add_argument("--step", choices=[*STEPS], help="only this one")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU")
    arguments = parser.parse_args()
    if not (arguments.dry_run or torch.cuda.is_available()):
        sys.exit("on_gpu: no GPU is visible to torch; --dry-run tries every step at toy size on a CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for bench in steps(arguments):
        started = time.monotonic()
        ended = _in_this_process(bench) if arguments.dry_run or arguments.step else _in_a_process(bench)
        failed += bool(ended)
        if arguments.step:
            break
        bench.write(what="step", seconds=round(time.monotonic() - started, 1), **({"failed": ended} if ended else {}))
        print(f"{bench.step:10} {time.monotonic() - started:6.1f} s  {ended or 'done'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
