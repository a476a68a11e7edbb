"""`--from`: sizes and ids of a model folder become settings, and folders that are no good are refused before anything is trained."""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dalle_datasets.store.layout import Layout
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.parsing import with_overrides
from dalle_model.config.presets import preset
from dalle_model.config.settings_file import read_settings, write_settings
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.model_folder import write_model_folder
from dalle_model.planning import Look, Machine, Times, choose_plan
from dalle_model.running.networks import settings_id
from dalle_model.running.run_dir import execute, prepare
from dalle_model.text import BpeTokenizer
from dalle_model.transformer import DALLETransformer, save_transformer
from flows.cli import demo
from flows.cli.main import main
from flows.runtime import starting
from flows.runtime.pipeline_result import pipeline_id
from flows.runtime.starting import describe_start, start_settings

TINY = {
    "tokenizer.vocab_size": 270, "tokenizer.max_text_tokens": 16,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.patch_size": 8, "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16, "transformer.conv_kernel_size": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model folder of untrained networks."""
    root, config = tmp_path_factory.mktemp("base"), preset("demo", TINY)
    torch.manual_seed(0)
    tokenizer = BpeTokenizer.train(["a red apple", "an owl"], config.tokenizer)
    tokenizer.save(root / "tokenizer")
    ids = {"tokenizer_id": tokenizer.id, "dvae_id": save_dvae(root / "dvae", DVAE(config.dvae))}
    ids["clip_id"] = save_clip(root / "clip", build_clip(config.clip, tokenizer))
    transformer = DALLETransformer(config.transformer, replace(config.stream, text_vocab_size=tokenizer.vocab_size))
    ids["transformer_id"] = save_transformer(root / "transformer", transformer, dict(list(ids.items())[:2]))
    paths = {kind: root / kind for kind in ("tokenizer", "dvae", "clip", "transformer")}
    return write_model_folder(root / "folder", paths, ids, config.sampling, 0, "# base\n")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The demo's settings in a data root, where imports run in this process and are not catalogued."""

    def execute_here(job, config, inputs):
        return execute(job, prepare(job, config, inputs))

    monkeypatch.setattr(starting, "execute_job", execute_here)
    monkeypatch.setattr(starting, "catalogue", lambda config, made: None)
    return preset("demo", {"paths.data_root": str(tmp_path / "root")})


def test_a_folder_gives_ids_and_sizes_that_are_settings(base, config, tmp_path):
    begun = with_overrides(config, start_settings(str(base.folder), config, {}))
    assert {f"{role}_id": getattr(begun.start, role) for role in ("tokenizer", "dvae", "clip", "transformer")} == base.ids
    assert (begun.dvae, begun.clip, begun.transformer) == tuple(
        getattr(preset("demo", TINY), name) for name in ("dvae", "clip", "transformer")
    )
    assert (begun.tokenizer.max_text_tokens, begun.start.frozen) == (16, ("dvae",))
    assert describe_start(begun) == (
        f"begins from tokenizer {base.ids['tokenizer_id']} (as it is), dvae {base.ids['dvae_id']} (as it is), "
        f"clip {base.ids['clip_id']} (trained on), transformer {base.ids['transformer_id']} (trained on)"
    )
    write_settings(tmp_path / "settings.toml", begun)
    assert replace(read_settings(tmp_path / "settings.toml"), paths=begun.paths) == begun, "a flow or a site begins from a file"
    assert pipeline_id(begun) != pipeline_id(with_overrides(begun, {"start.frozen": ""})) != pipeline_id(config)
    assert settings_id("transformer", begun) != settings_id("transformer", with_overrides(begun, {"start.transformer": ""}))
    anew = with_overrides(begun, start_settings("none", begun, {}))
    assert describe_start(anew) == ""


def test_what_is_asked_for_wins_and_a_run_of_the_data_root_is_a_start_too(base, config):
    asked = {"start.new_tokens": "add", "start.frozen": "clip"}
    begun = with_overrides(config, start_settings(str(base.folder), config, asked))
    assert begun.tokenizer.vocab_size > 270
    assert (begun.train_dvae.gumbel_temperature_start, begun.train_dvae.kl_warmup_steps) == (1 / 16, 0)
    assert "tokenizer " in describe_start(begun)
    assert "(with new tokens)" in describe_start(begun)
    (run,) = Layout(Path(config.paths.data_root)).runs.glob("import-model-*")
    again = start_settings(run.name, config, {})
    assert again == start_settings(str(base.folder), config, {})
    (run / "result.json").write_text(
        json.dumps({"job": "import_weights", "dvae_id": base.ids["dvae_id"], "checkpoint": f"runs/{run.name}/dvae"})
    )
    published = with_overrides(config, start_settings(run.name, config, {}))
    assert describe_start(published) == f"begins from dvae {base.ids['dvae_id']} (as it is)"
    for wrong in ("nowhere", "../root/runs/x"):
        with pytest.raises(ValueError, match="neither a model folder nor a finished run of"):
            start_settings(wrong, config, {})


def forge(folder, part, **changes):
    """Change a network's config.json, and make every hash fit."""
    about = json.loads((folder / part / "config.json").read_text())
    sha256 = hashlib.sha256((folder / part / "model.safetensors").read_bytes()).hexdigest()
    (folder / part / "config.json").write_text(json.dumps({**about, "weights_sha256": sha256, **changes}))
    files = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}
    model = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**model, "files": {name: sha for name, sha in files.items() if "/" in name}}))


def no_numbers(folder):
    path = folder / "transformer" / "model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(path).items()}, path)
    forge(folder, "transformer")


def huge(folder):
    saved = json.loads((folder / "transformer" / "config.json").read_text())["config"]
    forge(folder, "transformer", config={**saved, "transformer": {**saved["transformer"], "d_model": 1_000_000}})


def nonsense(folder):
    forge(folder, "clip", config={"model_cfg": {"vision_cfg": 1}, "tokenizer_id": "open_clip"})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_numbers, r"transformer: .* holds values that are no numbers \(NaN or infinity\)"),
        (huge, r"parameters differ\); its config.json was changed or exchanged"),
        (nonsense, "describes no clip"),
        (lambda folder: shutil.rmtree(folder / "dvae"), "is missing; copy or export the model again"),
    ],
)
def test_hostile_folders_are_refused_before_anything_is_trained(base, config, tmp_path, harm, message):
    folder = shutil.copytree(base.folder, tmp_path / "harmed")
    harm(folder)
    with pytest.raises(ValueError, match=message):
        start_settings(str(folder), config, {})
    assert not list(Layout(Path(config.paths.data_root)).runs.glob("*/result.json"))


def test_a_plan_takes_the_sizes_of_the_start_and_gives_no_time_to_what_is_frozen(base, config):
    start = start_settings(str(base.folder), config, {})
    look, machine = Look(2_000, 160, 1_900, 900, 9, 1_000, 64, cut_share=0.125), Machine("cpu", 1, 2, 2**33, 1e11, 1e11)
    measured = []

    def measure(settings):
        measured.append(settings)
        return Times(2.0, 0.05, 0.1, 0.05, 0.001, 0.01)

    plan = choose_plan(look, machine, 1_200, measure, start=start)
    (settings,) = measured
    assert settings["transformer.d_model"] == 16
    assert preset("demo", {**plan.overrides, **start}).start.transformer == base.ids["transformer_id"]
    assert plan.stages["train dvae"] < 2 < plan.stages["train clip"] < plan.stages["train transformer"]
    assert plan.total_s <= 0.9 * 1_200
    assert "12% of the captions are longer than the text positions of the model it begins from" in " ".join(plan.warnings)
    trained = choose_plan(look, machine, 1_200, measure, start={**start, "start.frozen": ""})
    assert trained.stages["train dvae"] > 30
    of_dvae = {name: value for name, value in start.items() if name.startswith(("dvae.", "start.dvae", "start.frozen"))}
    assert choose_plan(look, machine, 1_200, measure, start=of_dvae).size.codebook_size == 16
    with pytest.raises(ValueError, match=r"draws 48 x 48 pictures of 12 x 12 tokens, for which no size of transformer is known"):
        choose_plan(look, machine, 1_200, measure, start={**of_dvae, "dvae.image_size": 48})


@pytest.mark.parametrize("asked", ["add", "refuse"])
def test_a_fresh_data_root_may_begin_with_new_tokens(base, config, monkeypatch, asked):
    """`start.new_tokens=add` makes no sense before it is known what a training begins from; the command line knows."""
    ran = []

    @contextmanager
    def flows_here(config):
        yield lambda name, config: ran.append(config) or {}

    monkeypatch.setattr(demo, "prefect_flows", flows_here)
    root = f"paths.data_root={config.paths.data_root}"
    with pytest.raises(SystemExit) as ended:
        main(["run", "train_tokenizers", "--from", str(base.folder), "--set", root, "--set", f"start.new_tokens={asked}"])
    assert not ended.value.code
    (begun,) = ran
    assert begun.start.new_tokens == asked
    assert (begun.tokenizer.vocab_size > 270) == (asked == "add")


def test_a_flow_that_trains_nothing_begins_from_nothing(capsys):
    with pytest.raises(SystemExit):
        main(["run", "collect_pairs", "--from", "x"])
    assert "--from says what a training begins from, and collect_pairs trains nothing" in capsys.readouterr().err
