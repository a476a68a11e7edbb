"""Faults planted in real trainings of tiny networks are named by `dalle diagnose`, and healthy ones are called healthy."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dalle_datasets.demo.emoji_scenes import all_scenes
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS, TRAINING_SET
from dalle_model.config.model import TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import execute, prepare
from dalle_model.text import BpeTokenizer
from flows.cli.main import main
from tests.dalle_model.jobs.conftest import TINY, pairs_table

COLORS = ("red", "green", "blue", "black", "white", "yellow", "pink", "grey")
THINGS = ("apple", "boat", "cat", "dog", "egg", "fish", "goat", "hat")
TRANSFORMER = {
    "tokenizer.vocab_size": 300, "tokenizer.max_text_tokens": 8, "dvae.image_size": 16, "dvae.codebook_size": 32, "clip.image_size": 16,
    "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 32, "transformer.conv_kernel_size": 3,
    "train_transformer.max_steps": 60, "train_transformer.batch_size": 16, "train_transformer.warmup_steps": 10,
    "train_transformer.learning_rate": 5e-3, "train_transformer.validate_every": 30, "train_transformer.checkpoint_every": 1_000,
}  # fmt: skip
DVAE = {
    **TINY, "dvae.codebook_init": "patch_kmeans", "dvae.codebook_size": 64, "train_dvae.max_steps": 50, "train_dvae.warmup_steps": 10,
    "train_dvae.validate_every": 25, "train_dvae.log_every": 5, "train_dvae.kl_warmup_steps": 20, "train_dvae.gumbel_anneal_steps": 40,
}  # fmt: skip


def drawings(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """Pairs whose 16 image tokens say colour and thing in turn, each in one of two ways; every tenth is kept apart."""
    rows = []
    for i in range(number):
        color, thing = rng.randrange(8), rng.randrange(8)
        tokens = [(16 + 2 * thing if place % 2 else 2 * color) + rng.randrange(2) for place in range(16)]
        split = "validation" if i % 10 == 9 else "train"
        caption = f"a {COLORS[color]} {THINGS[thing]}"
        rows.append({"pair_id": i, "crop": 0, "split": split, "caption": caption, "source": "x", "page_url": "", "image_tokens": tokens})
    return rows


def train_transformer(root: Path, rows: list[dict[str, Any]], overrides: Mapping[str, Any]) -> str:
    """Train on the rows; returns the run's id."""
    tokenizer = BpeTokenizer.train([f"a {c} {t}" for c in COLORS for t in THINGS], TokenizerConfig(vocab_size=300, max_text_tokens=8))
    tokenizer.save(root / "tokenizers" / tokenizer.id)
    for row in rows:
        row["text_tokens"] = tokenizer.encode([row["caption"]])[0][:8]
    folder = root / "training_sets/t"
    write_parts(folder, pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET, rows_per_part=500, row_group_size=200)
    (folder / "manifest.json").write_text(json.dumps({"tokenizer_id": tokenizer.id, "dvae_id": "d"}))
    inputs = {
        "training_set": "training_sets/t", "training_set_id": "t", "dvae_id": "d",
        "tokenizer": f"tokenizers/{tokenizer.id}", "tokenizer_id": tokenizer.id,
    }  # fmt: skip
    config = preset("demo", {"paths.data_root": str(root), **TRANSFORMER, **overrides})
    return str(execute("train_transformer", prepare("train_transformer", config, inputs))["run_id"])


def train_dvae(root: Path, overrides: Mapping[str, Any]) -> str:
    """Train on 80 scenes, one in five kept apart; returns the run's id."""
    rows = pairs_table(random.Random(0).sample(all_scenes(), 80)).to_pylist()
    for i, row in enumerate(rows):
        row["split"] = "validation" if i % 5 == 4 else "train"
    table = pa.Table.from_pylist(rows, PAIRS.with_metadata(None))
    write_parts(Layout(root).pairs("emoji"), table, PAIRS, rows_per_part=80, row_group_size=40)
    config = preset("demo", {"paths.data_root": str(root), **DVAE, **overrides})
    return str(execute("train_dvae", prepare("train_dvae", config, {"pairs": "pairs/emoji", "pairs_id": "p"}))["run_id"])


@pytest.fixture
def diagnose(tmp_path, capsys):
    """Asks the command about a run: its exit status, its verdict, and its checks by what they are about."""

    def ask(*words: str) -> tuple[int, str, dict[str, dict[str, str]]]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["diagnose", *words, "--json", "--set", f"paths.data_root={tmp_path}"])
        said = json.loads(capsys.readouterr().out)
        return int(ended.value.code or 0), said["verdict"], {check["what"]: check for check in said["checks"]}

    return ask


def test_a_healthy_transformer_is_healthy_and_ten_times_its_step_size_is_named(tmp_path, diagnose):
    rows, steady = drawings(random.Random(0), 220), {"train_transformer.schedule": "constant"}  # a falling step size heals this in the end
    healthy = train_transformer(tmp_path, rows, steady)
    status, verdict, checks = diagnose(healthy)
    assert (status, verdict) == (0, "healthy"), checks
    hasty = train_transformer(tmp_path, rows, {**steady, "train_transformer.learning_rate": 5e-2})
    status, verdict, checks = diagnose(hasty, "--against", healthy)
    assert (status, verdict, checks["step size"]["verdict"]) == (1, "wrong", "wrong"), checks
    assert checks["step size"]["cause"] == f"the step size is 10 times that of {healthy}"
    assert checks["step size"]["remedy"] == "--set train_transformer.learning_rate=0.005"


def test_shuffled_captions_are_named(tmp_path, diagnose):
    rows = drawings(random.Random(0), 440)
    captions = [row["caption"] for row in rows]
    random.Random(1).shuffle(captions)
    mixed = [row | {"caption": caption} for row, caption in zip(rows, captions, strict=True)]
    run = train_transformer(tmp_path, mixed, {"train_transformer.max_steps": 100})
    status, verdict, checks = diagnose(run)
    wrong = [what for what, check in checks.items() if check["verdict"] == "wrong"]
    assert (status, verdict, wrong) == (1, "wrong", ["worth of a picture's own caption"])
    assert checks[wrong[0]]["cause"].startswith("captions do not belong to their pictures (shuffled")


def test_a_dead_text_loss_and_a_leaked_split_are_named(tmp_path, diagnose):
    rows = drawings(random.Random(0), 220)
    trained_on = [row for row in rows if row["split"] == "train"]
    leaked = [row | {"split": "validation", "pair_id": 1_000 + i} for i, row in enumerate(trained_on[:22])]
    run = train_transformer(tmp_path, [*trained_on, *leaked], {"train_transformer.text_loss_weight": 0.0})
    status, verdict, checks = diagnose(run)
    wrong = {what: (check["cause"], check["remedy"]) for what, check in checks.items() if check["verdict"] == "wrong"}
    assert (status, verdict, sorted(wrong)) == (1, "wrong", ["bits per text token", "pairs kept apart"])
    assert wrong["bits per text token"][0].startswith("dead text loss: its weight is 0")
    assert wrong["bits per text token"][1] == "--set train_transformer.text_loss_weight=0.125"
    assert wrong["pairs kept apart"][0].startswith("leaked split")
    assert checks["pairs kept apart"]["measured"].startswith("22 of 22 are training pairs")


def test_a_collapsed_codebook_is_named_and_a_healthy_one_is_not(tmp_path, diagnose):
    status, verdict, checks = diagnose(train_dvae(tmp_path, {}))
    assert (status, verdict) == (0, "healthy"), checks
    status, verdict, checks = diagnose(train_dvae(tmp_path, {"dvae.codebook_init": "random"}))
    assert (status, verdict, checks["codes in use"]["verdict"]) == (1, "wrong", "wrong")
    assert checks["codes in use"]["cause"] == "the codebook is collapsing: few codes do all the work, and the others get no gradient"
    assert checks["codes in use"]["remedy"] == "--set dvae.codebook_init=patch_kmeans"
