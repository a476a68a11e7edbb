"""What each part of the dVAE's objective does on the demo's corpus: `python benchmarks/bench_dvae_objective.py [--rows TEXT]`.

Every row is the job `train_dvae` at the demo preset and `BASE`, on 3,000 scenes of which one in ten validates, with one thing
changed from the row that its group starts with. Straight-through samples (one-hot forward, soft backward) exist in this file only.
"""

import argparse
import hashlib
import io
import json
import logging
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene, draw_scene
from dalle_datasets.store.ids import pair_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS
from dalle_model.config.presets import preset
from dalle_model.dvae.relaxation import gumbel_softmax
from dalle_model.jobs import train_dvae
from dalle_model.running.run_dir import execute, prepare

NUM_SCENES = 3_000
STRAIGHT_THROUGH = "straight_through"

BASE = {
    "dvae.codebook_size": 256,
    "train_dvae.max_steps": 300,
    "train_dvae.gumbel_anneal_steps": 270,
    "train_dvae.kl_weight": 6.6,
    "train_dvae.min_log_scale": 0.0,
}
"""What the demo's preset was when the table in RESULTS.md was made; the KL weight is the paper's."""
RANDOM = {
    "dvae.codebook_init": "random",
    "train_dvae.max_steps": 1_000,
    "train_dvae.gumbel_anneal_steps": 900,
    "train_dvae.checkpoint_every": 1_000,
    "train_dvae.validate_every": 200,
}
WARM = RANDOM | {"train_dvae.gumbel_temperature_start": 1.0}
LONG = WARM | {"train_dvae.max_steps": 3_000, "train_dvae.gumbel_anneal_steps": 2_700}
ROWS: dict[str, dict[str, Any]] = {
    "k-means start, 300 updates": {},
    "k-means start, seed 1": {"seed": 1},
    "k-means start, seed 2": {"seed": 2},
    "no KL": {"train_dvae.kl_weight": 0.0},
    "KL at full weight from the first update": {"train_dvae.kl_warmup_steps": 0},
    "straight-through": {STRAIGHT_THROUGH: True},
    "temperature 1 -> 1/16, the paper's": {"train_dvae.gumbel_temperature_start": 1.0},
    "temperature 1, held": {"train_dvae.gumbel_temperature_start": 1.0, "train_dvae.gumbel_temperature_end": 1.0},
    "temperature 0.5, held": {"train_dvae.gumbel_temperature_end": 0.5},
    "temperature 1/16, held": {"train_dvae.gumbel_temperature_start": 1 / 16},
    "no floor of ln b, the paper's": {"train_dvae.min_log_scale": None},
    "random start, 1,000 updates": RANDOM,
    "random, no KL": RANDOM | {"train_dvae.kl_weight": 0.0},
    "random, straight-through": RANDOM | {STRAIGHT_THROUGH: True},
    "random, no floor of ln b": RANDOM | {"train_dvae.min_log_scale": None},
    "random start, temperature 1 -> 1/16": WARM,
    "warm random, no KL": WARM | {"train_dvae.kl_weight": 0.0},
    "warm random, straight-through": WARM | {STRAIGHT_THROUGH: True},
    "warm random, no floor of ln b": WARM | {"train_dvae.min_log_scale": None},
    "warm random, step size 1e-3": WARM | {"train_dvae.learning_rate": 1e-3},
    "the same start and temperature, 3,000 updates": LONG,
    "long, step size 1e-3": LONG | {"train_dvae.learning_rate": 1e-3},
}


def straight_through(logits_BKhw: Tensor, temperature: float) -> Tensor:
    """One-hot samples whose gradient is that of the soft ones."""
    soft = gumbel_softmax(logits_BKhw, temperature)
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


def write_pairs(root: Path) -> dict[str, str]:
    """The demo's scenes as pairs under a data root; returns the job's inputs."""
    rows = []
    for i, scene in enumerate(random.Random(0).sample(all_scenes(), NUM_SCENES)):
        file = io.BytesIO()
        Image.fromarray(draw_scene(scene, 64)).save(file, "PNG")
        caption, sha256 = caption_scene(scene, random.Random(i)), hashlib.sha256(file.getvalue()).hexdigest()
        row: dict[str, Any] = dict.fromkeys(PAIRS.names)
        row |= {"pair_id": pair_id(sha256, caption), "caption": caption, "image": file.getvalue(), "width": 64, "height": 64}
        row |= {"sha256": sha256, "pixel_sha256": sha256, "split": "validation" if i % 10 == 9 else "train", "candidate_id": f"{i:016x}"}
        row |= {"num_caption_words": len(caption.split()), "aspect_ratio": 1.0, "language": "en", "source": "scenes"}
        rows.append(row | {"page_url": "http://127.0.0.1/", "image_url": f"http://127.0.0.1/{i}.png"})
    table = pa.Table.from_pylist(rows, schema=PAIRS.with_metadata(None))
    write_parts(Layout(root).pairs("scenes"), table, PAIRS, rows_per_part=1_000, row_group_size=250)
    return {"pairs": "pairs/scenes", "pairs_id": "scenes"}


def measure(root: Path, inputs: Mapping[str, str], changes: Mapping[str, Any]) -> list[str]:
    """One training; the cells of its row."""
    settings = BASE | {name: value for name, value in changes.items() if name != STRAIGHT_THROUGH}
    sample = straight_through if changes.get(STRAIGHT_THROUGH) else gumbel_softmax
    config = preset("demo", {"paths.data_root": str(root), **settings})
    run_dir = prepare("train_dvae", config, {**inputs, "variant": sample.__name__})
    started = time.process_time()
    with patch("dalle_model.dvae.loss.gumbel_softmax", sample), patch.object(train_dvae, "report_progress", lambda *_, **__: None):
        result = execute("train_dvae", run_dir)
    seconds = time.process_time() - started
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    soft = [line["reconstruction_loss"] for line in lines if line["split"] == "train"][-1]
    start = next(line["psnr"] for line in lines if line["split"] == "validation")
    return [
        f"{start:.1f} -> {result['psnr']:.2f}",
        f"{result['codes_used']:.0f}",
        f"{result['perplexity']:.1f}",
        f"{result['kl_nats']:.2f}",
        f"{soft:.3f}",
        f"{result['reconstruction_loss']:.3f}",
        f"{seconds:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains this text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # collapsing is what some rows are here to show
    print("| row | PSNR | codes | perplexity | KL | loss, soft train | loss, hard validation | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_pairs(Path(folder))
        for name, changes in ROWS.items():
            if arguments.rows in name:
                print(f"| {name} | {' | '.join(measure(Path(folder), inputs, changes))} |", flush=True)


if __name__ == "__main__":
    main()
