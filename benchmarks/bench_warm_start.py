"""Fine-tuning against training anew on pictures that the base model did not see: `python benchmarks/bench_warm_start.py [--packs FOLDER]`.

A base model (vocabulary, dVAE, CLIP, transformer) is trained on one half of the concepts; then transformer and CLIP are trained on the
other half, begun from the base or from random weights, with equal updates, batches and seeds. Vocabulary and dVAE are the base's in both,
so losses are in the same tokens. `--packs` is a folder of Parquet files with the columns `concept`, `style` and `image`; the new half is
then in styles that the base did not see either. Without it, demo scenes of other objects. Rows are means over seeds of the validation
loss; a difference is paired by seed, with a 95% interval (Student's t).
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import random
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene, draw_scene
from dalle_datasets.loading.image_batches import ImageBatches
from dalle_datasets.store.ids import pair_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS, TRAINING_SET
from dalle_model.config.presets import preset
from dalle_model.dvae import load_dvae
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.running.run_dir import execute, prepare
from dalle_model.running.starts import start_inputs
from dalle_model.text import BpeTokenizer

SIDE = 32
NEW_STYLES = ("fxemoji", "openmoji")
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26}
"""Number of pairs -> Student's t for 95%, two-sided."""

SIZES: dict[str, Any] = {
    "tokenizer.vocab_size": 900, "tokenizer.max_text_tokens": 16, "dvae.codebook_size": 256, "dvae.hidden_width": 32,
    "clip.vision_layers": 2, "clip.text_layers": 1, "clip.width": 64, "transformer.num_layers": 2, "transformer.num_heads": 4,
    "transformer.d_model": 96, "train_dvae.max_steps": 60, "train_dvae.gumbel_anneal_steps": 50, "train_dvae.validate_every": 60,
    "train_clip.max_steps": 80, "train_clip.batch_size": 64, "train_clip.validate_every": 40,
    "train_transformer.max_steps": 500, "train_transformer.validate_every": 100,
}  # fmt: skip


def pictures(packs: Path | None, num_base: int, num_new: int) -> tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]]:
    """(PNG, caption) of the base's half and of the new half."""
    found = list(_scenes() if packs is None else _pack_pictures(packs))
    random.Random(0).shuffle(found)
    halves: tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]] = ([], [])
    for draw, caption, concept, style in found:
        is_new = hashlib.sha256(concept.encode()).digest()[0] % 2 == 1
        if len(halves[is_new]) < (num_base, num_new)[is_new] and (style is None or (style in NEW_STYLES) == is_new):
            halves[is_new].append((_png(draw()), caption))
    return halves


Found = tuple[Callable[[], Image.Image], str, str, str | None]
"""How to draw a picture, its caption, concept and style."""


def _scenes() -> Iterator[Found]:
    for i, scene in enumerate(all_scenes()):
        yield lambda scene=scene: Image.fromarray(draw_scene(scene, SIDE)), caption_scene(scene, random.Random(i)), scene.object, None


def _pack_pictures(packs: Path) -> Iterator[Found]:
    for path in sorted(packs.glob("*.parquet")):
        for row in pq.read_table(path, columns=["concept", "style", "image"]).to_pylist():
            if "skin" not in row["concept"]:
                yield lambda data=row["image"]: _square(data), row["concept"], row["concept"], row["style"]


def _square(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        square = Image.new("RGBA", (max(picture.size),) * 2, "white")
        square.alpha_composite(picture.convert("RGBA"), tuple((square.width - side) // 2 for side in picture.size))
    return square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write_pairs(root: Path, name: str, found: list[tuple[bytes, str]]) -> dict[str, str]:
    """Pairs under a data root, one in six for validation: the inputs `pairs` and `pairs_id`."""
    rows = []
    for i, (image, caption) in enumerate(found):
        sha256 = hashlib.sha256(image).hexdigest()
        rows.append(
            {
                "pair_id": pair_id(sha256, caption), "caption": caption, "image": image, "width": SIDE, "height": SIDE, "sha256": sha256,
                "pixel_sha256": sha256, "split": "validation" if i % 6 == 5 else "train", "num_caption_words": len(caption.split()),
                "aspect_ratio": 1.0, "language": "en", "source": name, "page_url": "", "image_url": f"{name}/{i}",
                "candidate_id": f"{i:016x}",
            }
        )  # fmt: skip
    write_parts(Layout(root).pairs(name), pa.Table.from_pylist(rows, PAIRS.with_metadata(None)), PAIRS, 1_000, 250)
    return {"pairs": f"pairs/{name}", "pairs_id": name}


def run(job: str, root: Path, inputs: Mapping[str, str], **overrides: Any) -> dict[str, Any]:
    """The result of a job at the benchmark's sizes."""
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    config = preset("demo", {"paths.data_root": str(root), **SIZES, **named})
    return execute(job, prepare(job, config, {**inputs, **start_inputs(Layout(root), job, config)}))


def tokens_of(root: Path, name: str, networks: Mapping[str, str]) -> dict[str, str]:
    """A training set of pairs in the tokens of the base: the transformer's inputs."""
    tokenizer, dvae = BpeTokenizer.load(root / networks["tokenizer"]), load_dvae(root / networks["dvae"])
    rows = []
    for split in ("train", "validation"):
        for batch in ImageBatches(root / "pairs" / name, split, SIDE).in_order(64):
            image_tokens = dvae.tokenize(as_floats(as_tensor(batch.images))).tolist()
            for i, (caption, tokens) in enumerate(zip(batch.captions, image_tokens, strict=True)):
                text = tokenizer.encode([caption])[0][: tokenizer.max_text_tokens]
                rows.append(
                    {
                        "pair_id": int(batch.pair_ids[i]), "crop": 0, "split": split, "caption": caption, "source": name, "page_url": "",
                        "text_tokens": text, "image_tokens": tokens,
                    }
                )  # fmt: skip
    folder = f"training_sets/{name}"
    write_parts(root / folder, pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET, 1_000, 250)
    ids = {key: networks[key] for key in ("tokenizer_id", "dvae_id")}
    (root / folder / "manifest.json").write_text(json.dumps(ids))
    return {**networks, "training_set": folder, "training_set_id": name}


def interval(values: list[float]) -> str:
    """Mean and half of the 95% interval."""
    if len(values) not in T_95:
        return f"{statistics.mean(values):+.3f}"
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.3f} ± {half:.3f}"


def main() -> None:
    """Train the base, then every arm; print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, help="Parquet files with concept, style and image; demo scenes if not given")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--updates", type=int, nargs="*", default=[30, 120], help="of the transformer")
    parser.add_argument("--clip-updates", type=int, nargs="*", default=[20])
    parser.add_argument("--root", type=Path, help="data root to keep; runs that are there are not made again")
    parser.add_argument("--pairs", type=int, nargs=2, default=[2_400, 720], metavar=("BASE", "NEW"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = asked.root or Path(folder)
        base, new = pictures(asked.packs, *asked.pairs)
        of_base, of_new = write_pairs(root, "base", base), write_pairs(root, "new", new)
        bpe, dvae = run("train_bpe", root, of_base), run("train_dvae", root, of_base)
        networks = {
            "tokenizer": bpe["tokenizer"], "tokenizer_id": bpe["tokenizer_id"], "dvae": dvae["checkpoint"], "dvae_id": dvae["dvae_id"],
        }  # fmt: skip
        looked = run("train_dvae", root, of_new, start__dvae=dvae["dvae_id"])
        words = run("train_bpe", root, of_new, start__tokenizer=bpe["tokenizer_id"])
        clip = run("train_clip", root, {**of_base, **networks})
        transformer = run("train_transformer", root, tokens_of(root, "base", networks))
        print(f"{len(base):,} base pairs, {len(new):,} new ones; base model {cpu_s():.0f} CPU s")
        known = f"{words['known_words_share']:.0%} of the words of the new captions are one token"
        print(f"dVAE: {dvae['psnr']:.1f} dB on the base, {looked['psnr']:.1f} on the new; {known}")
        start = {f"start__{kind}": networks[f"{kind}_id"] for kind in ("tokenizer", "dvae")}
        print("\n| network, updates | anew | begun from the base | begun, half the step size | begun - anew | half - anew |")
        print("| --- | --- | --- | --- | --- | --- |")
        begun_transformer, begun_clip = (
            {**start, f"start__{kind}": made[f"{kind}_id"]} for kind, made in (("transformer", transformer), ("clip", clip))
        )
        of_set = tokens_of(root, "new", networks)
        rows = of_transformer(root, of_set, begun_transformer, asked)
        for name, anew, begun, half in itertools.chain(rows, of_clip(root, {**of_new, **networks}, begun_clip, asked)):
            means = " | ".join(f"{statistics.mean(values):.3f}" for values in (anew, begun, half))
            differences = " | ".join(interval([b - a for a, b in zip(anew, arm, strict=True)]) for arm in (begun, half))
            print(f"| {name} | {means} | {differences} |", flush=True)
        print(f"\n{asked.seeds} seeds, {cpu_s():.0f} CPU s in all")


Row = tuple[str, list[float], list[float], list[float]]


def of_transformer(root: Path, inputs: Mapping[str, str], start: Mapping[str, Any], asked: argparse.Namespace) -> Iterator[Row]:
    """Validation image loss, nats per token, for every number of updates."""

    def losses(updates: int, **how: Any) -> list[float]:
        counted = {
            "train_transformer__max_steps": updates, "train_transformer__warmup_steps": updates // 10,
            "train_transformer__validate_every": max(1, updates // 4), "train_transformer__patience": 0,
            "train_transformer__checkpoint_every": 10_000,
        }  # fmt: skip
        results = [run("train_transformer", root, inputs, seed=seed, **counted, **how) for seed in range(asked.seeds)]
        return [float(result["validation_image_loss"]) for result in results]

    half = {"train_transformer__learning_rate": 1e-3, **start}
    for n in asked.updates:
        yield f"transformer, {n}", losses(n), losses(n, **start), losses(n, **half)


def of_clip(root: Path, inputs: Mapping[str, str], start: Mapping[str, Any], asked: argparse.Namespace) -> Iterator[Row]:
    """Validation contrastive loss, nats, for every number of updates."""

    def losses(updates: int, **how: Any) -> list[float]:
        counted = {
            "train_clip__max_steps": updates, "train_clip__warmup_steps": updates // 10,
            "train_clip__validate_every": max(1, updates // 4), "train_clip__patience": 0,
        }  # fmt: skip
        results = [run("train_clip", root, inputs, seed=seed, **counted, **how) for seed in range(asked.seeds)]
        return [float(result["validation_loss"]) for result in results]

    half = {"train_clip__learning_rate": 5e-4, **start}
    for n in asked.clip_updates:
        yield f"CLIP, {n}", losses(n), losses(n, **start), losses(n, **half)


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
