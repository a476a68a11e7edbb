"""The dVAE trains from pairs, resumes exactly, does so in several processes too, and says when its codebook collapses."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_datasets.loading.image_batches import ImageBatches
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.codebook import initialize_codebook
from dalle_model.jobs import train_dvae
from dalle_model.running.run_dir import prepare

TINY = {
    "dvae.codebook_init": "patch_kmeans", "dvae.codebook_size": 64, "train_dvae.max_steps": 6, "train_dvae.batch_size": 4,
    "train_dvae.log_every": 2, "train_dvae.validate_every": 3, "train_dvae.checkpoint_every": 2,
}  # fmt: skip


def test_training_publishes_a_checkpoint_its_figures_and_reconstructions(make_config, pairs, run_job, tmp_path):
    result = run_job("train_dvae", make_config(TINY), pairs)
    model = load_dvae(tmp_path / result["checkpoint"])
    assert model.config.codebook_size == 64
    assert json.loads((tmp_path / result["checkpoint"] / "config.json").read_text())["id"] == result["dvae_id"]
    assert 1 <= result["perplexity"] <= result["codes_used"] <= 64
    assert 10 < result["psnr"] < 40, "the k-means start alone rebuilds the pictures roughly"
    assert Image.open(tmp_path / result["reconstructions"]).size == (6 * 32, 2 * 32)
    lines = [json.loads(line) for line in (tmp_path / "runs" / result["run_id"] / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines if line["split"] == "validation"][-1] == (6, "validation")
    assert {"loss", "reconstruction_loss", "kl_nats", "gumbel_temperature", "kl_weight"} <= next(
        line for line in lines if line["split"] == "train"
    ).keys()


def test_a_killed_training_continues_to_the_same_weights(make_config, pairs, run_job, monkeypatch, tmp_path):
    undisturbed = run_job("train_dvae", make_config({**TINY, "paths.data_root": str(tmp_path)}), pairs)
    again = make_config({**TINY, "train_dvae.keep_checkpoints": 3})
    loss, calls = train_dvae.dvae_loss, []

    def dies_in_the_fifth_update(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*args, **kwargs)

    monkeypatch.setattr(train_dvae, "dvae_loss", dies_in_the_fifth_update)
    with pytest.raises(KeyboardInterrupt):
        run_job("train_dvae", again, pairs)
    monkeypatch.undo()
    assert run_job("train_dvae", again, pairs)["dvae_id"] == undisturbed["dvae_id"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_short_types_train_as_fp32_does_and_resume_exactly(make_config, pairs, run_job, monkeypatch, tmp_path, precision):
    full = run_job("train_dvae", make_config(TINY), pairs)
    settings = {**TINY, "train_dvae.precision": precision}
    half = run_job("train_dvae", make_config(settings), pairs)
    assert half["psnr"] == pytest.approx(full["psnr"], abs=0.3)
    assert half["dvae_id"] != full["dvae_id"]
    again, loss, calls = make_config({**settings, "train_dvae.keep_checkpoints": 3}), train_dvae.dvae_loss, []

    def dies_in_the_fifth_update(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*args, **kwargs)

    monkeypatch.setattr(train_dvae, "dvae_loss", dies_in_the_fifth_update)
    with pytest.raises(KeyboardInterrupt):
        run_job("train_dvae", again, pairs)
    monkeypatch.undo()
    assert run_job("train_dvae", again, pairs)["dvae_id"] == half["dvae_id"], "with the scale of the loss it had"


def test_the_start_of_the_codebook_looks_at_a_bounded_number_of_patches(make_config, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train_dvae, "INITIALISATION_PATCHES", 5 * 64)
    assert train_dvae.initialization_pictures(tmp_path / pairs["pairs"], make_config(TINY)).shape == (5, 3, 32, 32)


def test_schedules_reach_the_objective(make_config, pairs):
    settings = make_config(
        {**TINY, "train_dvae.kl_weight": 4.0, "train_dvae.kl_warmup_steps": 10, "train_dvae.gumbel_anneal_steps": 10}
    ).train_dvae
    model = DVAE(make_config(TINY).dvae)
    batch = {"images": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)}
    at = [train_dvae.relaxed_loss(model, batch, step, settings) for step in (0, 5, 10)]
    assert [float(losses["kl_weight"]) for losses in at] == pytest.approx([0, 2, 4])
    start, end = settings.gumbel_temperature_start, settings.gumbel_temperature_end
    assert [float(losses["gumbel_temperature"]) for losses in at] == pytest.approx([start, (start + end) / 2, end])


def test_a_collapsed_codebook_raises_the_alarm(make_config, pairs, tmp_path, caplog):
    config = make_config(TINY)
    model = DVAE(config.dvae)
    with torch.no_grad():
        model.encoder.output.bias[3] = 1e6
    pictures = ImageBatches(tmp_path / pairs["pairs"], "validation", 32)
    validation = train_dvae.Validation(pictures, config.train_dvae, tmp_path / "looks")
    with caplog.at_level(logging.WARNING):
        metrics = validation.validate(model)
    assert metrics["codes_used"] == 1
    assert metrics["perplexity"] == pytest.approx(1)
    assert metrics["is_collapsed"] == 1
    assert (metrics["codes_dead"], metrics["top_code_share"]) == (63, 1)
    assert "the codebook is collapsing: perplexity 1.0 of 64 tokens; raise train_dvae.kl_warmup_steps" in caplog.text


@pytest.mark.parametrize(
    ("counts", "is_collapsed"),
    [
        ([1_000] * 256, False),
        ([1_000] * 30 + [1] * 226, False),
        ([1_000] * 7 + [0] * 249, True),
        ([100_000, *[1] * 255], True),
        ([3] * 20 + [0] * 236, False),
    ],
    ids=["even", "uneven", "few share the work", "one does the work", "too few pictures to know"],
)
def test_a_collapse_is_few_tokens_or_little_entropy(counts, is_collapsed):
    assert train_dvae.is_collapsing(torch.tensor(counts)) == is_collapsed


def test_every_look_leaves_figures_and_pictures(make_config, pairs, run_job, tmp_path):
    result = run_job("train_dvae", make_config(TINY), pairs)
    looks = tmp_path / result["looks"]
    assert sorted(path.name for path in looks.iterdir()) == [
        f"step-{step:06d}-{picture}.png" for step in (0, 3, 6) for picture in ("reconstructions", "usage")
    ]
    last = np.asarray(Image.open(looks / "step-000006-reconstructions.png"))
    assert (last == np.asarray(Image.open(tmp_path / result["reconstructions"]))).all(), "the last look shows the weights that are kept"
    lines = [json.loads(line) for line in (tmp_path / "runs" / result["run_id"] / "metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if line["split"] == "validation"):
        assert {"psnr", "perplexity", "codes_used", "codes_dead", "top_code_share", "kl_nats", "reconstruction_loss"} <= line.keys()
        assert line["codes_used"] + line["codes_dead"] == 64


def test_the_usage_chart_is_blank_where_tokens_are_dead(tmp_path):
    train_dvae.draw_usage(tmp_path / "usage.png", torch.tensor([0, 1, 100, 0]))
    chart = np.asarray(Image.open(tmp_path / "usage.png")) < 255
    heights = chart[..., 0].sum(0)
    assert heights[0] == train_dvae.CHART_HEIGHT
    assert 0 < heights[200] < heights[0]
    assert (heights[256:] == 0).all()


OPENAI = {
    "dvae.codebook_init": "random", "dvae.downsample": 8, "dvae.codebook_size": 32, "dvae.num_groups": 4, "dvae.blocks_per_group": 2,
    "dvae.codebook_width": 12, "dvae.stem_patch_size": 1, "transformer.conv_kernel_size": 3,
}  # fmt: skip


def test_imported_weights_are_looked_at_and_used_as_they_are(make_config, pairs, run_job, published, tmp_path):
    taken = run_job("import_weights", make_config(OPENAI), {"encoder": "encoder.pkl", "decoder": "decoder.pkl"})
    result = run_job("train_dvae", make_config({**OPENAI, "train_dvae.imported": taken["run_id"]}), pairs)
    assert result["dvae_id"] == taken["dvae_id"]
    assert result["num_steps"] == 0
    assert 0 < result["psnr"] < 20, "random weights"
    assert result["alarm"].startswith("the codebook is collapsing") if result["is_collapsed"] else result["alarm"] == ""
    (line,) = (tmp_path / "runs" / result["run_id"] / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["psnr"] == result["psnr"]
    assert len(list((tmp_path / result["looks"]).iterdir())) == 2
    assert load_dvae(tmp_path / result["checkpoint"]).config.codebook_size == 32


def test_imported_weights_that_are_missing_or_of_other_sizes_are_refused(make_config, pairs, run_job, published):
    with pytest.raises(
        ValueError, match=r"train_dvae\.imported=import-weights-0: .* does not exist; use the run_id that `dalle import-weights`"
    ):
        run_job("train_dvae", make_config({**OPENAI, "train_dvae.imported": "import-weights-0"}), pairs)
    taken = run_job("import_weights", make_config(OPENAI), {"encoder": "encoder.pkl", "decoder": "decoder.pkl"})
    wider = {**OPENAI, "dvae.codebook_width": 24, "train_dvae.imported": taken["run_id"]}
    with pytest.raises(
        ValueError, match=r"do not fit: dvae\.codebook_width=24 \(the files have 12\); set these as they were for the import"
    ):
        run_job("train_dvae", make_config(wider), pairs)


WITHOUT_NOISE = """
import sys, torch
from dalle_model.dvae import loss
from dalle_model.jobs.__main__ import main
loss.gumbel_softmax = lambda logits, temperature: torch.softmax(logits.float() / temperature, 1)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_two_processes_with_half_the_batch_train_as_one_with_all_of_it(make_config, pairs, tmp_path):
    # Each process draws its own noise, so the comparison is made without.
    (tmp_path / "job.py").write_text(WITHOUT_NOISE)
    launchers = {1: [], 2: ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]}
    models, lines = {}, {}
    for size, launcher in launchers.items():
        run_dir = prepare("train_dvae", make_config({**TINY, "train_dvae.ema_decay": 0.9}), {**pairs, "size": str(size)})
        command = [sys.executable, *launcher, str(tmp_path / "job.py"), "train_dvae", str(run_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2_000:]
        models[size] = load_dvae(run_dir / "dvae").state_dict()
        lines[size] = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for name, value in models[1].items():
        torch.testing.assert_close(models[2][name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for one, two in zip(lines[1], lines[2], strict=True):
        assert two.pop("split") == one.pop("split")
        assert two == pytest.approx(one, rel=1e-3)


def test_the_run_depends_on_the_dvae_and_its_training_only(make_config, pairs):
    first = prepare("train_dvae", make_config(TINY), pairs)
    assert prepare("train_dvae", make_config({**TINY, "transformer.num_layers": 2}), pairs) == first
    assert prepare("train_dvae", make_config({**TINY, "train_dvae.kl_weight": 0.5}), pairs) != first


FIXED = {
    **TINY, "dvae.codebook_init": "fixed_patches", "dvae.hidden_width": 32, "dvae.codebook_width": 48, "train_dvae.max_steps": 100,
    "train_dvae.batch_size": 16, "train_dvae.warmup_steps": 10, "train_dvae.validate_every": 100, "train_dvae.checkpoint_every": 100,
}  # fmt: skip


def test_fixed_patches_keep_their_tokens_and_the_decoder_gains(make_config, pairs, run_job, tmp_path):
    result = run_job("train_dvae", make_config(FIXED), pairs)
    start = DVAE(make_config(FIXED).dvae)
    initialize_codebook(start, train_dvae.initialization_pictures(tmp_path / pairs["pairs"], make_config(FIXED)), seed=0)
    model = load_dvae(tmp_path / result["checkpoint"])
    assert torch.equal(model.encoder.patch_logits.weight, start.encoder.patch_logits.weight)
    lines = [json.loads(line) for line in (tmp_path / "runs" / result["run_id"] / "metrics.jsonl").read_text().splitlines()]
    looks = [line for line in lines if line["split"] == "validation"]
    assert looks[0]["step"] == 0
    assert looks[-1]["psnr"] > looks[0]["psnr"] + 0.1
    assert looks[-1]["loss"] < looks[0]["loss"]
    assert looks[-1]["codes_used"] == looks[0]["codes_used"]


def test_a_killed_training_of_fixed_patches_continues_to_the_same_weights(make_config, pairs, run_job, monkeypatch, tmp_path):
    settings = {**FIXED, "train_dvae.max_steps": 6, "train_dvae.validate_every": 3}
    undisturbed = run_job("train_dvae", make_config(settings), pairs)
    again, loss, calls = make_config({**settings, "train_dvae.keep_checkpoints": 3}), train_dvae.hard_token_loss, []

    def dies_in_the_fifth_update(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(train_dvae, "hard_token_loss", dies_in_the_fifth_update)
    with pytest.raises(KeyboardInterrupt):
        run_job("train_dvae", again, pairs)
    monkeypatch.undo()
    assert run_job("train_dvae", again, pairs)["dvae_id"] == undisturbed["dvae_id"]
