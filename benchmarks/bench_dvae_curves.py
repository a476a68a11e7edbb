"""How the dVAE's codebook fares while it trains: `python benchmarks/bench_dvae_curves.py [--rows TEXT] [--keep FOLDER]`.

Each row is one training by the job `train_dvae` on 3,000 scenes, 300 of which validate: the demo's start from k-means, the paper's
from random weights with the paper's objective, and a decoder alone that learns to undo fixed k-means tokens.
Prints what every look at the validation split saw, and keeps its pictures.
"""

import argparse
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_dvae_objective import write_pairs

from dalle_model.config.presets import preset
from dalle_model.jobs import train_dvae
from dalle_model.running.run_dir import execute, prepare

PAPER = {
    "dvae.codebook_init": "random",
    "train_dvae.gumbel_temperature_start": 1.0,
    "train_dvae.gumbel_temperature_end": 1 / 16,
    "train_dvae.kl_weight": 6.6,
    "train_dvae.min_log_scale": None,
    "train_dvae.warmup_steps": 0,
    "train_dvae.beta2": 0.999,
    "train_dvae.clip_norm": 0.0,
    "train_dvae.ema_decay": 0.999,
}
"""The paper's start, objective and optimiser (Appendix A.2); schedules and step sizes are each row's, batches the demo's: 16 for 512."""


def random_start(num_steps: int, learning_rate: float, **changes: Any) -> dict[str, Any]:
    """A training from random weights whose schedules have the paper's proportions."""
    return PAPER | {
        "train_dvae.max_steps": num_steps,
        "train_dvae.gumbel_anneal_steps": num_steps,
        "train_dvae.kl_warmup_steps": num_steps // 10,
        "train_dvae.learning_rate": learning_rate,
        "train_dvae.final_learning_rate": learning_rate / 80,
        "train_dvae.validate_every": num_steps // 8,
        "train_dvae.checkpoint_every": num_steps,
        **{f"train_dvae.{name}": value for name, value in changes.items()},
    }


ROWS: dict[str, dict[str, Any]] = {
    "k-means start, the demo's preset": {"train_dvae.validate_every": 100},
    "random start, the paper's objective": random_start(5_000, 1e-3),
    "random start, a third of the step size": random_start(5_000, 3e-4),
    "fixed patches": {
        "dvae.codebook_init": "fixed_patches",
        "dvae.hidden_width": 128,
        "dvae.stem_patch_size": 4,
        "dvae.num_groups": 1,
        "dvae.blocks_per_group": 2,
        "train_dvae.max_steps": 1_500,
        "train_dvae.validate_every": 250,
        "train_dvae.checkpoint_every": 1_500,
    },
}
COLUMNS = {
    "psnr": ".2f", "perplexity": ".1f", "codes_used": ".0f", "codes_dead": ".0f", "top_code_share": ".2f", "kl_nats": ".2f",
    "reconstruction_loss": ".3f",
}  # fmt: skip


def measure(root: Path, inputs: Mapping[str, str], changes: Mapping[str, Any], keep: Path | None) -> tuple[list[dict[str, Any]], float]:
    """One training: its looks at the validation split, and CPU seconds."""
    run_dir = prepare("train_dvae", preset("demo", {"paths.data_root": str(root), **changes}), inputs)
    started = time.process_time()
    with patch.object(train_dvae, "report_progress", lambda *_, **__: None):
        execute("train_dvae", run_dir)
    if keep is not None:
        shutil.copytree(run_dir / "looks", keep, dirs_exist_ok=True)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == "validation"], time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains this text")
    parser.add_argument("--keep", type=Path, help="folder for the pictures of every look")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # an early look at random weights has few tokens
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_pairs(Path(folder))
        for i, (name, changes) in enumerate(ROWS.items()):
            if arguments.rows not in name:
                continue
            looks, seconds = measure(Path(folder), inputs, changes, arguments.keep and arguments.keep / str(i))
            print(f"\n{name} ({seconds:.0f} CPU s)\n\n| update | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}")
            for look in looks:
                print(f"| {look['step']:,} | {' | '.join(format(look[column], form) for column, form in COLUMNS.items())} |", flush=True)


if __name__ == "__main__":
    main()
