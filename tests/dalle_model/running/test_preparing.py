"""A run without flows: prepared, carried, trained, interrupted and continued where only `open-dalle[train]` is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from dalle_datasets.store.parquet import read_parquet, write_parts
from dalle_datasets.store.schemas import GENERATIONS, TRAINING_SET
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.jobs.__main__ import main
from dalle_model.running.run_dir import prepare, read_result
from dalle_model.text import BpeTokenizer

ROOT = Path(__file__).resolve().parents[3]
ABSENT = ["prefect", "duckdb", "img2dataset", "dall_e", "flows"]
BLOCKER = f"""
import sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent)
"""
CAPTIONS = ["a red apple", "two blue cats", "a small owl"]
SETTINGS = {
    "tokenizer.vocab_size": 270, "tokenizer.max_text_tokens": 8,
    "dvae.image_size": 16, "dvae.codebook_size": 12, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.image_size": 16, "clip.patch_size": 8, "clip.embed_width": 16, "clip.width": 16, "clip.head_width": 8, "clip.vision_layers": 1,
    "clip.text_layers": 1, "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16,
    "transformer.conv_kernel_size": 3, "train_transformer.max_steps": 6, "train_transformer.batch_size": 8,
    "train_transformer.checkpoint_every": 2, "train_transformer.validate_every": 3, "sampling.num_images": 2,
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with what was made elsewhere: a vocabulary, a dVAE, a CLIP and a training set."""
    data, config = tmp_path / "data", preset("demo", SETTINGS)
    torch.manual_seed(0)
    tokenizer = BpeTokenizer.train(CAPTIONS, config.tokenizer)
    tokenizer.save(data / "tokenizers" / tokenizer.id)
    dvae_id = save_dvae(data / "runs/train-dvae-1/dvae", DVAE(config.dvae))
    clip_id = save_clip(data / "runs/train-clip-1/clip", build_clip(config.clip, tokenizer))
    results: dict[str, dict[str, Any]] = {
        "train-bpe-1": {"tokenizer": f"tokenizers/{tokenizer.id}", "tokenizer_id": tokenizer.id},
        "train-dvae-1": {"checkpoint": "runs/train-dvae-1/dvae", "dvae_id": dvae_id},
        "train-clip-1": {"checkpoint": "runs/train-clip-1/clip", "clip_id": clip_id},
    }
    for run_id, result in results.items():
        (data / "runs" / run_id).mkdir(exist_ok=True, parents=True)
        (data / "runs" / run_id / "result.json").write_text(json.dumps(result))
    rows = [
        {
            "pair_id": i, "crop": 0, "split": "validation" if i % 8 == 0 else "train", "caption": CAPTIONS[i % 3], "source": "test",
            "page_url": "", "text_tokens": tokenizer.encode([CAPTIONS[i % 3]])[0][:8], "image_tokens": [(i + j) % 12 for j in range(16)],
        }
        for i in range(40)
    ]  # fmt: skip
    write_parts(data / "training_sets/t1", pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET, 20, 10)
    manifest = {"training_set_id": "t1", "tokenizer_id": tokenizer.id, "dvae_id": dvae_id}
    (data / "training_sets/t1/manifest.json").write_text(json.dumps(manifest))
    return data


def options(root: Path, *more: str) -> list[str]:
    settings = {"paths.data_root": root, **SETTINGS}
    return [*more, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def prepared(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Path:
    assert main(["prepare", *options(root, *arguments)]) == 0
    return Path(capsys.readouterr().out.strip())


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has nothing but `open-dalle[train]`: what it lacks cannot be imported."""
    blocker = tmp_path / "bare"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (blocker, ROOT, ROOT / "datasets"))), "PATH": path, "PROCESSES": "1"}


def start(run_dir: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "start.sh"], cwd=run_dir, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_train_resume_and_generate_on_a_machine_with_torch_alone(
    root: Path, tmp_path: Path, bare: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "cluster"
    run_dir = prepared(root, capsys, "train_transformer", "--to", str(cluster))
    assert run_dir.is_relative_to(cluster)
    root.rename(tmp_path / "far away")  # nothing of it is needed any more
    done = start(run_dir, bare)
    assert done.returncode == 0, done.stderr
    result = read_result(run_dir)
    assert result is not None
    assert result["num_steps"] == 6
    (run_dir / "result.json").unlink()  # as if it had been killed after its last checkpoint
    assert sorted(path.name for path in (run_dir / "checkpoints").glob("step-*")) == ["step-000002", "step-000004"]
    assert start(run_dir, bare).returncode == 0
    again = read_result(run_dir)
    assert again is not None
    assert again["transformer_id"] == result["transformer_id"]
    for made_elsewhere in ("train-clip-1", "train-bpe-1", "train-dvae-1"):
        shutil.copytree(tmp_path / "far away/runs" / made_elsewhere, cluster / "runs" / made_elsewhere, dirs_exist_ok=True)
    (tmp_path / "prompts.txt").write_text("a red owl\ntwo cats\n")
    asked = options(cluster, "generate_images", "--prompts", str(tmp_path / "prompts.txt"))
    command = [sys.executable, "-m", "dalle_model.jobs", "prepare", *asked]
    made = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    done = start(Path(made.stdout.strip()), bare)
    assert done.returncode == 0, done.stderr
    found = read_result(Path(made.stdout.strip()))
    assert found is not None
    assert read_parquet(cluster / found["generations"], GENERATIONS).num_rows == 4


def test_the_run_is_the_one_that_a_flow_would_start(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = prepared(root, capsys, "train_transformer"), prepared(root, capsys, "train_transformer", "--to", str(tmp_path / "there"))
    assert (here.name, here.parent) == (there.name, root / "runs")
    inputs = json.loads((there / "config.json").read_text())["inputs"]
    config = preset("demo", {"paths.data_root": str(root), **SETTINGS})
    assert prepare("train_transformer", config, inputs) == here
    (here / "status").write_text("running")
    assert prepared(root, capsys, "train_transformer", "--to", str(tmp_path / "there")) == there
    assert not (there / "status").exists(), "what is there stays"
    (tmp_path / "there/training_sets/t1/manifest.json").write_text(json.dumps({"training_set_id": "t2"}))
    assert main(["prepare", *options(root, "train_transformer", "--to", str(tmp_path / "there"))]) == 2
    assert "was there and is training_set t2, not t1; delete it, or choose another folder" in capsys.readouterr().err


def test_under_slurm_each_node_starts_torchrun(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = prepared(root, capsys, "train_transformer")
    for name, says in {"srun": 'echo srun "$@"', "scontrol": "printf 'node7\\nnode8\\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{says}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "5", "PROCESSES": "8"}
    done = start(run_dir, {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.stdout.strip() == (
        "srun --ntasks-per-node=1 python -m torch.distributed.run --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d "
        f"--rdzv-id=5 --rdzv-endpoint=node7:29500 -m dalle_model.jobs train_transformer {run_dir}"
    )
    done = subprocess.run(["bash", run_dir / "start.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "start it in its run directory, which holds config.json" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train_transformer", "--input", "pairs=x"], "--input pairs: train_transformer reads training_set, dvae, tokenizer; correct"),
        (["train_transformer", "--input", "training_set=nowhere"], "is not readable as that of a training_set"),
        (["train_transformer", "--input", "dvae"], "--input dvae: needs the form NAME=VALUE"),
        (["score_pairs"], "input pairs: there is none under"),
        (["evaluate"], "evaluate is not prepared by hand"),
        (["generate_images"], "--prompts FILE belongs to generate_images"),
        (["train_transformer", "--set", "seeds=1"], "seeds: no such setting; did you mean 'seed'?"),
        (["train_gan"], "job 'train_gan' does not exist"),
    ],
)
def test_wrong_requests_end_with_a_sentence(root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["prepare", *options(root, *arguments)]) == 2
    assert said in capsys.readouterr().err


def test_two_of_a_kind_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(root / "training_sets/t1", root / "training_sets/t2")
    assert main(["prepare", *options(root, "train_transformer")]) == 2
    assert "there are 2: training_sets/t1, training_sets/t2 under" in capsys.readouterr().err
    prepared(root, capsys, "train_transformer", "--input", "training_set=training_sets/t1")
