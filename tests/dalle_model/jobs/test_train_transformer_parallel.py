"""Training the transformer in several processes: the same weights, on any number of them, and a quick end when one dies."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from dalle_datasets.parquet import write_parts
from dalle_datasets.schemas import TRAINING_SET
from dalle_model.config.model import TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.jobs.contract import execute, prepare, write_json
from dalle_model.text import BpeTokenizer
from dalle_model.training.checkpoint import list_training_states
from dalle_model.training.metrics import read_metrics
from dalle_model.transformer import load_transformer

# Very different lengths, so that a mean over a process's own captions would be another gradient.
CAPTIONS = ["owl", "a red apple on a pink background", "two blue cats and a small green owl on the left side on white"]
NUM_PAIRS = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    tokenizer = BpeTokenizer.train(CAPTIONS, TokenizerConfig(vocab_size=270, max_text_tokens=24))
    tokenizer.save(root / "tokenizers" / tokenizer.id)
    rng = np.random.default_rng(0)
    rows = [
        {
            "pair_id": i, "crop": 0, "split": "validation" if i % 8 == 0 else "train", "caption": CAPTIONS[i % 3], "source": "test",
            "page_url": "", "text_tokens": tokenizer.encode([CAPTIONS[i % 3]])[0][:24], "image_tokens": rng.integers(0, 12, 16).tolist(),
        }
        for i in range(NUM_PAIRS)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None))
    write_parts(root / "training_sets/t1", table, TRAINING_SET, rows_per_part=20, row_group_size=10)
    write_json(root / "training_sets/t1/manifest.json", {"tokenizer_id": tokenizer.id, "dvae_id": "d1"})
    return root


def prepared(root: Path, overrides: dict[str, Any] | None = None) -> Path:
    tokenizer_id = next((root / "tokenizers").iterdir()).name
    settings = {
        "paths.data_root": str(root),
        "tokenizer.max_text_tokens": 24, "tokenizer.bpe_dropout": 0.1,
        "dvae.image_size": 16, "dvae.codebook_size": 12, "clip.image_size": 16,
        "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16, "transformer.conv_kernel_size": 3,
        "train_transformer.max_steps": 12, "train_transformer.batch_size": 8, "train_transformer.warmup_steps": 5,
        "train_transformer.log_every": 1, "train_transformer.validate_every": 6, "train_transformer.checkpoint_every": 4,
        "train_transformer.caption_dropout": 0.1, "train_transformer.ema_decay": 0.9,
        # The gradient of a key's bias is 0 but for rounding, which AdamW would blow up to a step of full size.
        "train_transformer.epsilon": 1e-6,
    }  # fmt: skip
    inputs = {
        "training_set": "training_sets/t1", "training_set_id": "t1", "dvae_id": "d1",
        "tokenizer": f"tokenizers/{tokenizer_id}", "tokenizer_id": tokenizer_id,
    }  # fmt: skip
    return prepare("train_transformer", preset("demo", settings | (overrides or {})), inputs)


def torchrun(num_processes: int, program: list[str], run_dir: Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [*launcher, *program, "train_transformer", str(run_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})


JOB = ["-m", "dalle_model.jobs"]

# Process 1 dies, as by a machine that fails, in its ninth update. All have the ninth batch's count of tokens then, so the
# first one has written the checkpoint after the eighth.
DIES_AT_9 = """
import os, signal, sys
from dalle_model.jobs import train_transformer
from dalle_model.jobs.__main__ import main, set_up_process
weighted_loss, updates = train_transformer.weighted_loss, []
def fatal_loss(model, *arguments):
    updates.extend([1] * model.training)
    if os.environ["RANK"] == "1" and len(updates) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return weighted_loss(model, *arguments)
train_transformer.weighted_loss = fatal_loss
set_up_process()
sys.exit(main(sys.argv[1:]))
"""


def weights_of(run_dir: Path) -> dict[str, Tensor]:
    return load_transformer(run_dir / "transformer").state_dict()


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_four_processes_one_of_which_dies_and_two_or_one_that_go_on_train_as_one_process_does(root: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(root, tmp_path / "alone")
    execute("train_transformer", prepared(alone))
    expected, lines = weights_of(next((alone / "runs").iterdir())), read_metrics(next((alone / "runs").iterdir()) / "metrics.jsonl")

    run_dir = prepared(root)
    (tmp_path / "job.py").write_text(DIES_AT_9)
    started = time.monotonic()
    died = torchrun(4, [str(tmp_path / "job.py")], run_dir)
    assert died.returncode == 1
    assert time.monotonic() - started < 60
    assert "SIGKILL" in died.stderr
    assert (run_dir / "status").read_text() == "failed"
    assert [path.name for path in list_training_states(run_dir)] == ["step-000004", "step-000008"]

    continued = shutil.copytree(root, tmp_path / "continued")
    execute("train_transformer", prepared(continued))
    assert_alike(weights_of(next((continued / "runs").iterdir())), expected)

    finished = torchrun(2, JOB, run_dir)
    assert finished.returncode == 0, finished.stderr[-2_000:]
    assert_alike(weights_of(run_dir), expected)
    found = read_metrics(run_dir / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in found] == [(line["step"], line["split"]) for line in lines]
    for line, other in zip(found, lines, strict=True):
        for name in ("loss", "text_loss", "image_loss"):
            assert line[name] == pytest.approx(other[name], abs=1e-4)


@pytest.mark.slow
def test_an_error_in_one_process_is_what_the_job_says(root: Path) -> None:
    run_dir = prepared(root, {"train_transformer.batch_size": 9})
    failed = torchrun(2, JOB, run_dir)
    assert failed.returncode == 1
    assert "batch_size=9 does not split evenly over 2 processes; choose a multiple" in failed.stderr
