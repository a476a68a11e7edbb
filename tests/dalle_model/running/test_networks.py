"""Which network serves: registered by trainings, switched by policy or by hand, and never mixed between settings."""

import json
import threading
from pathlib import Path

import pytest

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit, invalidate
from dalle_model.config.networks import METRICS, ROLES
from dalle_model.config.presets import preset
from dalle_model.jobs import train_bpe
from dalle_model.running.networks import choose, current, history, register
from dalle_model.running.registry import MADE_BY
from dalle_model.running.run_dir import execute, prepare, write_json


def settings(root: Path, **overrides):
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return preset("demo", {"paths.data_root": str(root), **named})


def collect(root: Path, pairs_id: str, num_pairs: int) -> None:
    folder = Layout(root).pairs("emoji_scenes")
    invalidate(folder)
    commit(folder, pairs_id, {"pairs_id": pairs_id, "num_pairs": num_pairs})


def train(config, role: str, network_id: str, pairs_id: str = "pairs0", registers: bool = True, **figures):
    """A finished training of a role on some pairs, as the job leaves it."""
    job, path_key = MADE_BY[role]
    read = {"pairs": "pairs/emoji_scenes", "pairs_id": pairs_id, "dvae_id": "vae0", "tokenizer_id": "bpe0"}
    inputs = {name: value for name, value in read.items() if name != f"{role}_id"}
    run_dir = prepare(job, config, inputs)
    path = run_dir / role
    path.mkdir()
    layout = Layout(run_dir.parent.parent)
    made = {f"{role}_id": network_id, path_key: layout.relative(path), **figures}
    if registers:
        register(layout, job, config, inputs, run_dir.name, made)
    write_json(run_dir / "result.json", {**made, "run_id": run_dir.name, "started_at": 1e9 + len(pairs_id), "duration_s": 1.0})
    return run_dir


def serves(config, role: str = "dvae") -> str | None:
    found = current(Layout(Path(config.paths.data_root)), role, config)
    return found.network_id if found else None


def test_the_first_network_serves_and_goes_on_when_the_pairs_have_grown(tmp_path):
    config = settings(tmp_path)
    collect(tmp_path, "pairs0", 100)
    assert serves(config) is None
    train(config, "dvae", "vae0", psnr=20.0)
    collect(tmp_path, "pairs1", 160)
    (registered,) = history(Layout(tmp_path), "dvae")
    assert serves(config) == "vae0"
    assert (registered.pairs_id, registered.num_pairs, registered.metrics) == ("pairs0", 100, {"psnr": 20.0})
    assert registered.why == "the first with these settings"


@pytest.mark.parametrize(("policy", "psnr", "now"), [
    ("always", 10.0, "vae1"), ("manual", 30.0, "vae0"), ("if_better", 30.0, "vae1"), ("if_better", 20.0, "vae0"),
])  # fmt: skip
def test_a_retrained_network_takes_over_as_the_policy_says(tmp_path, policy, psnr, now):
    config = settings(tmp_path, networks__policy=policy)
    train(config, "dvae", "vae0", psnr=20.0)
    train(config, "dvae", "vae1", "pairs1", psnr=psnr)
    assert serves(config) == now
    assert [known.network_id for known in history(Layout(tmp_path), "dvae")] == ["vae0", "vae1"]


def test_of_losses_the_lower_is_better_and_without_figures_nothing_changes(tmp_path):
    config = settings(tmp_path, networks__policy="if_better")
    train(config, "clip", "clip0", validation_loss=2.0)
    train(config, "clip", "clip1", "pairs1", validation_loss=None)
    assert history(Layout(tmp_path), "clip")[-1].why == "validation_loss is not known of clip1"
    train(config, "clip", "clip2", "pairs2", validation_loss=1.5)
    assert serves(config, "clip") == "clip2"
    assert history(Layout(tmp_path), "clip")[-1].why == "validation_loss 1.5, better than 2 of clip0, on the validation pairs of then"
    same_pairs = {"pairs": "pairs/emoji_scenes", "pairs_id": "pairs2"}
    register(Layout(tmp_path), "train_clip", config, same_pairs, "by hand", {"clip_id": "clip3", "checkpoint": "x", "validation_loss": 1.6})
    assert history(Layout(tmp_path), "clip")[-1].why == "validation_loss 1.6, not better than 1.5 of clip2"


def test_losses_on_other_tokens_are_not_compared(tmp_path):
    config = settings(tmp_path, networks__policy="if_better")
    first = train(config, "transformer", "t0", validation_image_loss=3.0)
    second = train(config, "transformer", "t1", "pairs1", registers=False, validation_image_loss=2.0)
    saved = json.loads((second / "config.json").read_text())
    saved["inputs"]["dvae_id"] = "vae1"
    write_json(second / "config.json", saved)
    made = json.loads((second / "result.json").read_text())
    register(Layout(tmp_path), "train_transformer", config, saved["inputs"], second.name, made)
    assert serves(config, "transformer") == "t0"
    assert "trained on other tokens than t0" in history(Layout(tmp_path), "transformer")[-1].why
    assert first.exists()


def test_settings_never_get_the_network_of_others(tmp_path):
    config, other = settings(tmp_path), settings(tmp_path, train_dvae__max_steps=7)
    train(config, "dvae", "vae0")
    assert serves(other) is None
    train(other, "dvae", "vae7", "pairs1")
    assert (serves(config), serves(other)) == ("vae0", "vae7")
    assert serves(settings(tmp_path, source__name="elsewhere")) is None
    assert serves(settings(tmp_path, sampling__temperature=0.5, filter__min_side=64)) == "vae0", "neither decides what a dVAE is"


def test_a_network_is_chosen_by_hand_and_switching_back_is_remembered(tmp_path):
    config, other = settings(tmp_path), settings(tmp_path, train_dvae__max_steps=7)
    train(config, "dvae", "vae0")
    train(other, "dvae", "vae7")
    layout = Layout(tmp_path)
    assert choose(layout, "dvae", "vae7", config).why == "chosen by hand"
    assert choose(layout, "dvae", "vae7", config) == history(layout, "dvae")[-1], "asked twice it is written once"
    assert serves(config) == "vae7"
    choose(layout, "dvae", "vae0", config)
    assert serves(config) == "vae0"
    assert serves(settings(tmp_path, networks__use="dvae=vae7")) == "vae7"
    assert [known.network_id for known in history(layout, "dvae")] == ["vae0", "vae7", "vae7", "vae0"]


def test_wrong_choices_are_a_sentence_and_change_nothing(tmp_path):
    config = settings(tmp_path)
    layout = Layout(tmp_path)
    train(config, "dvae", "vae0")
    train(settings(tmp_path, dvae__codebook_size=64), "dvae", "small")
    run_dir = train(settings(tmp_path, train_dvae__max_steps=9), "dvae", "gone")
    (run_dir / "dvae").rmdir()
    before = layout.networks("dvae").read_bytes()
    for role, network_id, said in (
        ("vae", "vae0", "role 'vae' does not exist; choose one of tokenizer, dvae, clip, transformer"),
        ("dvae", "vae9", "dvae vae9 is not registered in .*; the dvaes there are: vae0, small, gone"),
        ("dvae", "small", "dvae small has another shape than these settings: dvae.codebook_size=64, not 1024; give the settings"),
        ("dvae", "gone", "dvae gone is gone: .* does not exist; choose another or train it again"),
        ("clip", "clip0", "the clips there are: none yet"),
    ):
        with pytest.raises(ValueError, match=said):
            choose(layout, role, network_id, config)
    with pytest.raises(ValueError, match="dvae small has another shape"):
        serves(settings(tmp_path, networks__use="dvae=small"))
    assert layout.networks("dvae").read_bytes() == before


@pytest.mark.parametrize(("name", "value", "said"), [
    ("metrics", "dvae.sharpness", r"networks.metrics has 'dvae.sharpness', which no training reports; choose from tokenizer"),
    ("metrics", "dvae.psnr,dvae.perplexity", "two metrics of one role"),
    ("use", "dvae", "networks.use has 'dvae'; say ROLE=ID"),
    ("use", "vae=1", "say ROLE=ID with a role of tokenizer, dvae"),
    ("retrain", "dvea", "networks.retrain has 'dvea'; the roles are"),
    ("retrain_growth", "-1", "networks.retrain_growth=-1.0 must be at least 0"),
    ("policy", "sometimes", "networks.policy: 'sometimes' is not one of 'manual', 'if_better', 'always'"),
])  # fmt: skip
def test_policies_that_make_no_sense_are_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        preset("demo", {f"networks.{name}": value})


def test_every_metric_belongs_to_a_role():
    assert {name.partition(".")[0] for name in METRICS} == set(ROLES)


def test_a_data_root_without_a_registry_keeps_its_networks(tmp_path):
    config, other = settings(tmp_path), settings(tmp_path, train_dvae__max_steps=7)
    train(config, "dvae", "vae0", "p", registers=False)
    train(config, "dvae", "vae1", "later", registers=False)
    train(other, "dvae", "vae7", "p", registers=False)
    assert (serves(config), serves(other)) == ("vae1", "vae7")
    assert not (tmp_path / "networks").exists(), "looking writes nothing"
    train(settings(tmp_path, networks__policy="manual"), "dvae", "vae2", "new pairs")
    assert serves(config) == "vae1"
    assert {known.network_id for known in history(Layout(tmp_path), "dvae")} == {"vae0", "vae7", "vae1", "vae2"}


def test_a_damaged_registry_says_what_to_do(tmp_path):
    config = settings(tmp_path)
    train(config, "dvae", "vae0")
    path = Layout(tmp_path).networks("dvae")
    path.write_text(path.read_text() + "{")
    with pytest.raises(ValueError, match=r"dvae.jsonl is damaged .*; remove the bad line, or the file to start from the finished"):
        serves(config)


def test_trainings_that_end_together_are_all_registered(tmp_path):
    configs = [settings(tmp_path, seed=seed) for seed in range(8)]
    threads = [threading.Thread(target=train, args=(config, "dvae", f"vae{config.seed}")) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [serves(config) for config in configs] == [f"vae{seed}" for seed in range(8)]
    assert len(history(Layout(tmp_path), "dvae")) == 8


def test_a_training_registers_what_it_made_before_it_says_that_it_is_done(tmp_path, monkeypatch):
    config = settings(tmp_path)
    run_dir = prepare("train_bpe", config, {"pairs": "pairs/emoji_scenes", "pairs_id": "pairs0"})
    (tmp_path / "tokenizers" / "bpe0").mkdir(parents=True)
    monkeypatch.setattr(train_bpe, "run", lambda run: {"tokenizer_id": "bpe0", "tokenizer": "tokenizers/bpe0", "truncated_share": 0.0})
    execute("train_bpe", run_dir)
    assert serves(config, "tokenizer") == "bpe0"
    execute("train_bpe", run_dir)
    assert len(history(Layout(tmp_path), "tokenizer")) == 1
