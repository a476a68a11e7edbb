"""Rules judge figures: each verdict at its border, with cause and setting."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from dalle_model.diagnosis import rules
from dalle_model.diagnosis.evidence import CopyFacts, PairFacts, TokenFacts, Training, entropy, find_run, read_training
from dalle_model.diagnosis.reference import FOLDER, Reference, stored_reference, usual_learning_rate
from dalle_model.running.run_dir import prepare
from flows.cli.main import main

STEPS = (0, 100, 500, 1_000)
TOKENS = TokenFacts(num_train=3_000, num_validation=100, num_leaked=0, num_same_picture=2, image_nats=4.0, text_nats=3.0)
PAIRS = PairFacts(num_train=3_000, num_validation=100, num_leaked=0, num_known_captions=10)


def training(job="train_transformer", overrides=None, result=None, **curves):
    """A finished training of the demo whose validation curves, and those of `train_…`, take these values at `STEPS`."""
    named = {tuple(name.split("_", 1)) if name.startswith("train_") else ("validation", name): values for name, values in curves.items()}
    points = {key: list(zip(STEPS, values, strict=False)) for key, values in named.items()}
    config = preset("demo", overrides or {})
    return Training(job=job, run_id="run", config=config, state="done", curves=points, result=result or {})


TRANSFORMER = {
    "loss": (6.8, 1.6, 0.4, 0.24), "text_loss": (6.3, 1.2, 1.1, 1.1), "image_loss": (6.9, 1.7, 0.27, 0.12),
    "caption_gain": (0.0, 0.5, 2.0, 3.0), "caption_gain_error": (0.0, 0.1, 0.1, 0.1), "train_image_loss": (6.9, 1.7, 0.2, 0.01),
    "train_gradient_norm": (3.0, 0.5, 0.4, 0.2),
}  # fmt: skip


def judge(job="train_transformer", overrides=None, result=None, captions_fit=None, **curves):
    """The checks of a training, by what they are about."""
    made = training(job, overrides, result, **curves)
    return {check.what: check for check in rules.diagnose_training(made, stored_reference(made), PAIRS, TOKENS, captions_fit)}


@pytest.mark.parametrize("name", ["dvae", "clip", "transformer"])
def test_a_stored_curve_is_healthy_by_itself(name):
    saved = json.loads((FOLDER / f"demo-{name}.json").read_text())
    curves = {(split, curve): [tuple(p) for p in points] for split, found in saved["curves"].items() for curve, points in found.items()}
    made = Training(job=saved["job"], run_id="run", config=preset("demo"), state="done", curves=curves)
    reference = stored_reference(made)
    assert reference is not None
    found = rules.diagnose_training(made, reference, PAIRS, TOKENS)
    assert {check.verdict for check in found} <= {"healthy", "unknown"}
    assert any("demo at update" in check.reference for check in found)


def test_a_healthy_transformer_of_the_demo():
    assert {check.verdict for check in judge(**TRANSFORMER).values()} == {"healthy"}


@pytest.mark.parametrize(
    ("changed", "what", "verdict", "cause", "remedy"),
    [
        ({"image_loss": (6.9, 6.9, 6.8, 6.8)}, "bits per image token", "wrong", "dead image loss", "max_steps=2000"),
        ({"image_loss": (6.9, 5.0, 4.0, 3.99)}, "bits per image token", "wrong", "no more than how often", "max_steps"),
        ({"image_loss": (6.9, 5.0, 4.0, 3.0)}, "bits per image token", "look", "57% of what was learned there", "max_steps"),
        ({"text_loss": (6.3, 6.3, 6.3, 6.2)}, "bits per text token", "wrong", "dead text loss", "max_steps"),
        ({"text_loss": (0.0, 0.0, 0.0, 0.0)}, "bits per text token", "wrong", "captions have no tokens", "report collection"),
        (
            {"caption_gain": (0.0, 0.0, 0.1, 0.01), "caption_gain_error": (1e-3,) * 4},
            "worth of a picture's own caption", "look", "say little", "max_steps",
        ),
        ({"caption_gain": (0.0, 0.0, 0.1, 0.2)}, "worth of a picture's own caption", "wrong", "captions do not belong", "collect anew"),
        (
            {"train_image_loss": (6.9, 1.7, 0.2, 0.01), "image_loss": (6.9, 2.0, 1.3, 1.3)},
            "validation against training", "wrong", "by heart", "dropout=0.1",
        ),
        ({"loss": (6.8, 1.6, 2.5, 4.0)}, "validation loss", "look", "the weights of update 100 are kept", "more pairs"),
        ({"train_gradient_norm": (3.0, 0.5, 0.4, 90.0)}, "gradient norm", "wrong", "the step size is usual", "max_steps"),
        ({"train_gradient_norm": (3.0, 0.5, 0.4, 0.0)}, "gradient norm", "wrong", "no gradient reaches", ""),
    ],
)  # fmt: skip
def test_what_is_not_normal_is_named(changed, what, verdict, cause, remedy):
    found = judge(**{**TRANSFORMER, **changed})[what]
    assert found.verdict == verdict, found
    assert cause in found.cause
    assert remedy in found.remedy


def test_captions_that_clip_understands_are_not_called_shuffled():
    found = judge(captions_fit=True, **{**TRANSFORMER, "caption_gain": (0.0, 0.0, 0.1, 0.2)})["worth of a picture's own caption"]
    assert (found.verdict, found.remedy) == ("look", "--set train_transformer.max_steps=2000")


def test_a_step_size_is_wrong_when_it_did_harm_and_named_when_it_did_not():
    hasty = {"train_transformer.learning_rate": 2e-2}
    assert judge(overrides=hasty, **TRANSFORMER)["step size"].verdict == "look"
    found = judge(overrides=hasty, **{**TRANSFORMER, "image_loss": (6.9, 5.0, 4.0, 4.0)})
    assert found["step size"].verdict == "wrong"
    assert found["step size"].remedy == "--set train_transformer.learning_rate=0.002"
    assert "the step size is 10 times that of demo" in found["bits per image token"].cause
    slow = judge(overrides={"train_transformer.learning_rate": 1e-5, "train_transformer.final_learning_rate": 0}, **TRANSFORMER)[
        "step size"
    ]
    assert (slow.verdict, slow.cause) == ("look", "the step size is a 200th of that of demo")


def test_without_clipping_the_branches_say_how_large_the_gradient_is():
    curves = {("gradients", "mlp_00"): [(10, 3.0), (20, 6.0)], ("gradients", "mlp_01"): [(10, 4.0), (20, 8.0)]}
    made = Training(job="train_transformer", run_id="run", config=preset("demo"), state="running", curves=curves)
    assert made.gradient_norms() == [(10, 5.0), (20, 10.0)]


def test_without_a_stored_curve_the_nearest_preset_says_what_is_usual():
    made = training(overrides={"transformer.d_model": 480})
    assert stored_reference(made) is None
    assert usual_learning_rate(made, None) == (4.5e-4, "preset small")


def test_losses_of_other_data_are_not_compared():
    made = training(overrides={"source.kind": "image_folders", "source.inputs": "x", "source.name": "mine"}, **TRANSFORMER)
    reference = stored_reference(made)
    assert reference is not None
    found = {check.what: check for check in rules.diagnose_training(made, reference, PAIRS, TOKENS)}
    assert "demo" not in found["bits per image token"].reference
    assert "demo" in found["gradient norm"].reference


def test_few_updates_are_not_judged():
    found = judge(**{name: values[:1] for name, values in TRANSFORMER.items()})
    assert {check.verdict for check in found.values()} <= {"unknown", "healthy"}
    assert found["bits per image token"].cause == "0 updates are too few to tell"


def test_a_training_that_stopped_or_failed_is_not_called_healthy():
    for state, verdict, remedy in (("stopped", "look", "same command again"), ("failed", "wrong", "error.txt"), ("running", "healthy", "")):
        found = rules.progress(dataclasses.replace(training(**TRANSFORMER), state=state))
        assert (found.verdict, found.measured, found.reference) == (verdict, "1,000 of 1,000", state)
        assert remedy in found.remedy


def test_a_clip_that_guesses():
    curves = {"loss": (5.0, 4.9, 4.9, 4.9), "batch_accuracy": (0.01, 0.01, 0.01, 0.01), "chance_accuracy": (0.01,) * 4}
    found = judge("train_clip", train_batch_accuracy=(0.01, 0.2, 0.6, 0.9), **curves)["pictures found by caption"]
    assert (found.verdict, found.cause[:46]) == ("wrong", "it finds 90% of training pictures and no other")
    assert judge("train_clip", **curves)["pictures found by caption"].cause.startswith("captions do not belong to their pictures")


def test_a_dvae_that_goes_back():
    curves = {"codes_used": (750, 700, 400, 300), "perplexity": (32, 30, 20, 17), "psnr": (23.6, 23, 21, 20), "is_collapsed": (0, 0, 0, 0)}
    found = judge("train_dvae", **{**curves, "loss": (-0.5, -0.4, -0.3, -0.2)})
    assert found["codes in use"].cause == "half of the 750 codes that were in use have died"
    assert (found["PSNR of validation pictures"].verdict, found["validation loss"].verdict) == ("wrong", "wrong")


def test_a_codebook_that_the_kl_term_presses_flat():
    curves = {"codes_used": (750, 20, 2, 2), "perplexity": (32, 4, 2, 1.5), "is_collapsed": (0, 1, 1, 1)}
    found = judge("train_dvae", overrides={"train_dvae.kl_weight": 100.0}, **curves)["codes in use"]
    assert (found.verdict, found.remedy) == ("wrong", "--set train_dvae.kl_weight=6.6")
    assert "the KL term (weight 100; 6.6 in the paper)" in found.cause
    assert judge("train_dvae", **{name: values[:1] for name, values in curves.items()})["codes in use"].verdict == "healthy"


def test_a_dvae_that_still_anneals_may_get_worse():
    curves = {"codes_used": (750,) * 4, "perplexity": (32,) * 4, "psnr": (23.6, 25, 24, 20), "loss": (0.0, -1.0, -0.6, -0.5)}
    made = training("train_dvae", {"dvae.hidden_width": 32}, **curves)
    done, running = (
        {check.what: check.verdict for check in rules.diagnose_training(dataclasses.replace(made, state=state), None)}
        for state in ("done", "running")
    )
    assert (done["PSNR of validation pictures"], done["validation loss"]) == ("wrong", "wrong")
    assert (running["PSNR of validation pictures"], running.get("validation loss")) == ("look", None)


def test_a_leak_by_pixels_and_captions_that_all_repeat():
    leaked = dataclasses.replace(PAIRS, num_leaked=30, num_known_captions=100)
    pictures, captions = rules.diagnose_pairs("web", leaked)
    assert (pictures.verdict, pictures.cause[:12], captions.verdict) == ("wrong", "leaked split", "look")
    (found,) = rules.diagnose_pairs("web", dataclasses.replace(PAIRS, num_validation=0))
    assert (found.verdict, found.remedy) == ("look", "--set filter.validation_share=0.05")


def test_copies_beyond_what_pictures_kept_apart_show():
    facts = CopyFacts(run_id="gen", num_drawn=100, num_copies=40, num_kept_apart=100, num_kept_apart_alike=40)
    assert rules.diagnose_copies(facts).verdict == "healthy"
    assert rules.diagnose_copies(dataclasses.replace(facts, num_kept_apart_alike=2)).verdict == "look"
    assert rules.diagnose_copies(dataclasses.replace(facts, num_copies=95, num_kept_apart_alike=2)).verdict == "wrong"


def test_entropies():
    import numpy as np

    assert entropy(np.array([5, 5, 0, 0])) == pytest.approx(math.log(2))
    assert entropy(np.zeros(4, np.int64)) == 0


def test_a_reference_between_its_points_and_outside():
    curves = {"train": {"loss": [(0, 9.0), (10, 4.0), (20, 2.0)]}}
    reference = Reference(name="r", job="train_clip", size={}, data={}, learning_rate=1, batch_size=1, curves=curves)
    assert [reference.at("loss", step, "train") for step in (0, 5, 10, 15, 20, 21)] == [9.0, None, 4.0, 3.0, 2.0, None]
    assert reference.at("loss", 10) is None


def test_a_run_that_is_going_on_is_read_and_one_that_is_none_is_refused(tmp_path: Path, capsys):
    layout = Layout(tmp_path)
    run_dir = prepare("train_clip", preset("demo", {"paths.data_root": str(tmp_path)}), {"pairs": "pairs/x", "pairs_id": "p"})
    log = run_dir / "metrics.jsonl"
    log.write_text('{"step": 10, "split": "train", "loss": 4.9, "gradient_norm": null}\n{"step": 20, "spl')
    found = read_training(layout, find_run(layout, "train-clip"))
    assert (found.state, found.num_steps, found.points("loss", "train")) == ("stopped", 10, [(10, 4.9)])
    assert found.points("gradient_norm", "train") == ()
    log.rename(run_dir / "away")
    other = prepare("train_bpe", preset("demo", {"paths.data_root": str(tmp_path)}), {"pairs": "pairs/x", "pairs_id": "p"})
    for words, message in (
        (["train-"], "run 'train-' is the beginning of 2 runs"),
        (["nothing"], "run 'nothing' does not exist in"),
        ([other.name], f"{other.name} is a run of train_bpe, which trains nothing"),
        (["--against", "x"], "--against compares one run; name it"),
        ([], "holds no pairs of emoji_scenes and no training with these settings"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["diagnose", *words, "--set", f"paths.data_root={tmp_path}"])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    (run_dir / "away").rename(log)
    for words in ([run_dir.name], []):  # where nothing is current, the newest training is
        with pytest.raises(SystemExit) as ended:
            main(["diagnose", *words, "--set", f"paths.data_root={tmp_path}"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"{run_dir.name}\n")
        assert "healthy  step size: 0.001 at its peak; 0.001 of demo" in printed
