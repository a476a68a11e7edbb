"""Training in several processes: the same weights on any number of them, however they share them, and a quick end when one dies."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import TRAINING_SET
from dalle_model.config.model import TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.dvae import load_dvae
from dalle_model.running.run_dir import execute, has_crashed, prepare, write_json
from dalle_model.text import BpeTokenizer
from dalle_model.training.checkpoints import list_training_states
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
        "train_transformer.caption_dropout": 0.1, "train_transformer.ema_decay": 0.9, "train_transformer.clip_norm": 0.5,
        # The gradient of a key's bias is 0 but for rounding, which AdamW would blow up to a step of full size.
        "train_transformer.epsilon": 1e-6,
    }  # fmt: skip
    inputs = {
        "training_set": "training_sets/t1", "training_set_id": "t1", "dvae_id": "d1",
        "tokenizer": f"tokenizers/{tokenizer_id}", "tokenizer_id": tokenizer_id,
    }  # fmt: skip
    return prepare("train_transformer", preset("demo", settings | (overrides or {})), inputs)


def torchrun(num_processes: int, program: list[str]) -> subprocess.CompletedProcess[str]:
    return run(["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", *program])


def forked(num_processes: int, program: list[str]) -> subprocess.CompletedProcess[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return run(["-c", FORKED, str(num_processes), str(port), *program])


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=400, check=False, env=environment)


# As torchrun, but the processes share what one of them has imported, which takes most of the time of small trainings.
FORKED = """
import os, runpy, sys
import torch._dynamo
from dalle_model.jobs import train_dvae, train_transformer
num_processes, port, script = int(sys.argv[1]), sys.argv[2], sys.argv[3]
children = []
for rank in range(num_processes):
    children.append(os.fork())
    if not children[-1]:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(num_processes), LOCAL_WORLD_SIZE=str(num_processes),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        sys.argv = sys.argv[3:]
        runpy.run_path(script, run_name="__main__")
        sys.exit()
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""

# Process 1 dies, as by a machine that fails, while the checkpoint after the eighth update is written.
DIES_AT_8 = """
import os, signal, sys
from dalle_model.jobs.__main__ import main, set_up_process
from dalle_model.training import checkpoints
save = checkpoints.save
def fatal_save(tensors, storage_writer, **options):
    if os.environ["RANK"] == "1" and "step-000008" in str(storage_writer.path):
        os.kill(os.getpid(), signal.SIGKILL)
    save(tensors, storage_writer=storage_writer, **options)
checkpoints.save = fatal_save
set_up_process()
sys.exit(main(sys.argv[1:]))
"""

# Process 1 alone is told to end, in the first update that it makes, the fifth; then the same training is started again.
TOLD_TO_END = """
import os, signal, sys
from dalle_model.jobs import train_transformer
from dalle_model.jobs.__main__ import main, set_up_process
weighted_loss, updates = train_transformer.weighted_loss, []
def interrupted_loss(model, *arguments):
    updates.extend([1] * model.training)
    if updates == [1] and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return weighted_loss(model, *arguments)
train_transformer.weighted_loss = interrupted_loss
set_up_process()
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert (ended.code, len(updates)) == (143, 1)
    status = main(sys.argv[1:])
    assert len(updates) == 1 + 12 - 5
    sys.exit(status)
"""

# One training after the other in the same processes. The last of them is interrupted in its tenth update, and resumed.
SEVERAL = """
import sys
from pathlib import Path
from dalle_model.jobs import train_transformer
from dalle_model.running.run_dir import execute
weighted_loss, updates = train_transformer.weighted_loss, []
def interrupted_loss(model, *arguments):
    updates.extend([1] * model.training)
    if len(updates) == 10:
        raise KeyboardInterrupt
    return weighted_loss(model, *arguments)
for run_dir in sys.argv[1:-1]:
    execute(Path(run_dir).name.rsplit("-", 1)[0].replace("-", "_"), Path(run_dir))
train_transformer.weighted_loss = interrupted_loss
try:
    execute("train_transformer", Path(sys.argv[-1]))
except KeyboardInterrupt:
    pass
assert len(updates) == 10
execute("train_transformer", Path(sys.argv[-1]))
assert len(updates) == 10 + 4
"""


def weights_of(run_dir: Path) -> dict[str, Tensor]:
    return load_transformer(run_dir / "transformer").state_dict()


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-3, atol: float = 1e-5) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_curves(found: Path, expected: Path, tolerance: float = 1e-4) -> None:
    lines, others = (read_metrics(run_dir / "metrics.jsonl") for run_dir in (found, expected))
    assert [(line.pop("split"), *line) for line in lines] == [(line.pop("split"), *line) for line in others]
    for line, other in zip(lines, others, strict=True):
        assert line == pytest.approx(other, rel=tolerance, abs=tolerance), other


@pytest.mark.slow
def test_four_processes_one_of_which_dies_and_two_or_one_that_go_on_train_as_one_process_does(root: Path, tmp_path: Path) -> None:
    alone = prepared(shutil.copytree(root, tmp_path / "alone"))
    execute("train_transformer", alone)

    run_dir = prepared(root, {"train_transformer.sharding": "full"})
    (tmp_path / "job.py").write_text(DIES_AT_8)
    died = torchrun(4, [str(tmp_path / "job.py"), "train_transformer", str(run_dir)])
    assert died.returncode == 1
    assert "SIGKILL" in died.stderr
    assert "another process of this training ended" in died.stderr
    assert has_crashed(run_dir)
    assert [path.name for path in list_training_states(run_dir)] == ["step-000004"]

    continued = shutil.copytree(root, tmp_path / "continued") / "runs" / run_dir.name
    config = json.loads((continued / "config.json").read_text())
    config["config"]["paths"]["data_root"] = str(tmp_path / "continued")
    write_json(continued / "config.json", config)
    execute("train_transformer", continued)
    (tmp_path / "job.py").write_text(TOLD_TO_END)
    finished = forked(2, [str(tmp_path / "job.py"), "train_transformer", str(run_dir)])
    assert "told to end by a signal to another process: the state of step 5 is saved" in finished.stderr
    assert finished.returncode == 0, finished.stderr[-2_000:]
    for found in (continued, run_dir):
        assert_alike(weights_of(found), weights_of(alone))
        assert_same_curves(found, alone)


@pytest.mark.slow
def test_all_ways_to_share_a_training_compute_the_same(
    root: Path, tmp_path: Path, pairs: dict[str, str], make_config: Callable[..., Config]
) -> None:
    parts = {"train_transformer.microbatch_size": 4, "train_transformer.activation_checkpointing": True}
    hybrid = {**parts, "train_transformer.sharding": "hybrid", "train_transformer.shard_group": 2}
    half = {"train_transformer.precision": "fp16"}
    compressed = {"train_transformer.powersgd_rank": 2, "train_transformer.powersgd_start_step": 3}
    dvae = {"train_dvae.max_steps": 4, "train_dvae.batch_size": 8, "train_dvae.validate_every": 2, "train_dvae.ema_decay": 0.9}
    together = {
        "replicated": prepared(root, parts),
        "hybrid": prepared(root, hybrid),
        "fp16": prepared(root, {**half, "train_transformer.sharding": "full"}),
        "compressed": prepared(root, compressed),
        "dvae": prepare("train_dvae", make_config(dvae), pairs),
        "dvae, full": prepare("train_dvae", make_config({**dvae, "train_dvae.sharding": "full"}), pairs),
        "interrupted": prepared(shutil.copytree(root, tmp_path / "interrupted"), compressed),
    }
    alone, alone_fp16 = (prepared(shutil.copytree(root, tmp_path / "alone", dirs_exist_ok=True), more) for more in ({}, half))
    for run_dir in (alone, alone_fp16):
        execute("train_transformer", run_dir)
    (tmp_path / "several.py").write_text(SEVERAL)
    finished = forked(4, [str(tmp_path / "several.py"), *map(str, together.values())])
    assert finished.returncode == 0, finished.stderr[-4_000:]

    for name in ("replicated", "hybrid"):
        assert_alike(weights_of(together[name]), weights_of(alone))
        assert_same_curves(together[name], alone)
    assert_same_curves(together["fp16"], alone_fp16, tolerance=2e-3)
    assert_same_curves(together["dvae, full"], together["dvae"])
    assert_alike(load_dvae(together["dvae, full"] / "dvae").state_dict(), load_dvae(together["dvae"] / "dvae").state_dict())
    # Compression changes the weights, but hardly the losses; an interruption changes neither.
    assert_alike(weights_of(together["interrupted"]), weights_of(together["compressed"]))
    assert_same_curves(together["interrupted"], together["compressed"])
    losses, uncompressed = (
        [line.get("loss") for line in read_metrics(run_dir / "metrics.jsonl")] for run_dir in (together["compressed"], alone)
    )
    assert losses == pytest.approx(uncompressed, abs=0.02)
    with pytest.raises(AssertionError, match="not close"):
        assert_alike(weights_of(together["compressed"]), weights_of(alone))
