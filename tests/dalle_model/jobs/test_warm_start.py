"""Trainings that begin from a model folder: the weights at step 0, names of runs, tokens that are added, and what is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS, TRAINING_SET
from dalle_model.clip import load_clip
from dalle_model.dvae import load_dvae
from dalle_model.jobs import train_transformer
from dalle_model.model_folder import write_model_folder
from dalle_model.running.networks import history, settings_id
from dalle_model.running.run_dir import prepare, run_directory
from dalle_model.running.starts import start_inputs
from dalle_model.text import BpeTokenizer
from dalle_model.training.metrics import read_metrics
from dalle_model.transformer import NO_TOKEN, load_transformer
from tests.parts import read_parts

FEW = {
    f"train_{kind}.{name}": value
    for kind in ("dvae", "clip", "transformer")
    for name, value in {"max_steps": 2, "batch_size": 8, "log_every": 1, "validate_every": 1, "checkpoint_every": 1}.items()
}


@pytest.fixture
def begun(tmp_path, networks, make_config, run_job):
    """A model folder brought into the data root; `begun(**overrides)` is a configuration that begins from all of it."""
    paths = {kind: tmp_path / networks[kind] for kind in ("tokenizer", "dvae", "clip", "transformer")}
    ids = {f"{kind}_id": networks[f"{kind}_id"] for kind in paths}
    tiny = make_config()
    model = write_model_folder(tmp_path / "base", paths, ids, tiny.sampling, 0, "# base\n")
    run_job("import_model", tiny, {"folder": str(model.folder), "model_id": model.id})
    vocab_size = BpeTokenizer.load(paths["tokenizer"]).vocab_size
    start = {f"start.{kind}": ids[f"{kind}_id"] for kind in paths}
    sizes = {"tokenizer.vocab_size": vocab_size, "transformer.conv_kernel_size": tiny.transformer.conv_kernel_size}
    return lambda **more: make_config({**sizes, **start, **FEW, **{name.replace("__", "."): value for name, value in more.items()}})


def given(config, job, inputs):
    """A job's inputs with what it begins from."""
    return {**inputs, **start_inputs(Layout(Path(config.paths.data_root)), job, config)}


def export(root, tokenizer, dvae_id, captions=("a red apple", "two blue cats on pink", "an owl on the left")):
    """A training set of 40 rows with tokens of these networks; returns the transformer's inputs."""
    rows = [
        {
            "pair_id": i,
            "crop": 0,
            "split": "validation" if i % 8 == 0 else "train",
            "caption": captions[i % 3],
            "source": "test",
            "page_url": "",
            "text_tokens": tokenizer.encode([captions[i % 3]])[0][: tokenizer.max_text_tokens],
            "image_tokens": [(i % 3) * 4 + j % 4 for j in range(64)],
        }
        for i in range(40)
    ]
    name = f"training_sets/{tokenizer.id}"
    write_parts(root / name, pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET, 50, 20)
    (root / name / "manifest.json").write_text(json.dumps({"tokenizer_id": tokenizer.id, "dvae_id": dvae_id}))
    return {"training_set": name, "training_set_id": tokenizer.id, "dvae_id": dvae_id, "tokenizer_id": tokenizer.id}


def first_look(root, result):
    """What validation found before the first update."""
    lines = read_metrics(root / "runs" / result["run_id"] / "metrics.jsonl")
    return next(line for line in lines if line["split"] == "validation" and line["step"] == 0)


def test_every_network_begins_with_the_weights_of_the_folder(begun, networks, pairs, run_job, tmp_path, monkeypatch):
    config = begun(start__frozen="")
    bpe = run_job("train_bpe", config, given(config, "train_bpe", pairs))
    assert bpe["tokenizer_id"] == networks["tokenizer_id"], "the vocabulary comes along as it is"
    assert 0 < bpe["known_words_share"] <= 1

    dvae = run_job("train_dvae", config, given(config, "train_dvae", pairs))
    assert dvae["dvae_id"] != networks["dvae_id"]
    kept = run_job("train_dvae", begun(), given(begun(), "train_dvae", pairs))
    assert (kept["dvae_id"], kept["num_steps"]) == (networks["dvae_id"], 0), "frozen: looked at, not trained"
    assert first_look(tmp_path, kept)["loss"] == pytest.approx(first_look(tmp_path, dvae)["loss"], rel=1e-6)
    learned = {known.run_id: known.pairs_id for known in history(Layout(tmp_path), "dvae")}
    assert (learned[dvae["run_id"]], learned[kept["run_id"]]) == (pairs["pairs_id"], ""), "a frozen one learned nothing here"

    inputs = {**pairs, "tokenizer": bpe["tokenizer"], "tokenizer_id": bpe["tokenizer_id"], "dvae": kept["checkpoint"]}
    inputs["dvae_id"] = kept["dvae_id"]
    clip = run_job("train_clip", config, given(config, "train_clip", inputs))
    same = begun(start__frozen="dvae,clip")
    judged = run_job("train_clip", same, given(same, "train_clip", inputs))
    assert judged["clip_id"] == networks["clip_id"]
    assert clip["clip_id"] != networks["clip_id"]
    assert first_look(tmp_path, clip)["loss"] == pytest.approx(judged["validation_loss"], rel=1e-5)

    tokenizer = BpeTokenizer.load(tmp_path / bpe["tokenizer"])
    of_set = {**export(tmp_path, tokenizer, kept["dvae_id"]), "tokenizer": bpe["tokenizer"], "dvae": kept["checkpoint"]}
    of_set = given(config, "train_transformer", of_set)
    transformer = run_job("train_transformer", config, of_set)
    source = load_transformer(tmp_path / "transformer")
    rows = [row for row in read_parts(tmp_path / of_set["training_set"], TRAINING_SET).to_pylist() if row["split"] == "validation"]
    text = torch.full((len(rows), 16), NO_TOKEN)
    for line, row in zip(text, rows, strict=True):
        line[: len(row["text_tokens"])] = torch.tensor(row["text_tokens"])
    _, image_loss = source.loss(text, torch.tensor([row["image_tokens"] for row in rows]))
    assert first_look(tmp_path, transformer)["image_loss"] == pytest.approx(float(image_loss), rel=1e-5)
    about = json.loads((tmp_path / transformer["checkpoint"] / "config.json").read_text())
    assert about["config"]["made_from"]["start_id"] == networks["transformer_id"]

    shutil.rmtree(tmp_path / "runs" / transformer["run_id"])

    def killed(done, *_, **__):
        if done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", killed)
        with pytest.raises(KeyboardInterrupt):
            run_job("train_transformer", config, of_set)
    assert run_job("train_transformer", config, of_set)["transformer_id"] == transformer["transformer_id"], "goes on as undisturbed"

    # the tokens of a dVAE that was trained on mean nearly what they meant
    after = {**export(tmp_path, tokenizer, dvae["dvae_id"]), "tokenizer": bpe["tokenizer"], "dvae": dvae["checkpoint"]}
    run_job("train_transformer", begun(start__frozen="", seed=1), given(config, "train_transformer", after))
    (tmp_path / "training_sets" / tokenizer.id / "manifest.json").unlink()
    other = {**export(tmp_path, tokenizer, "0" * 12), "tokenizer": bpe["tokenizer"]}
    with pytest.raises(ValueError, match="draws tokens of dVAE .*; dVAE 000000000000 neither is that nor began from it"):
        run_job("train_transformer", config, given(config, "train_transformer", other))


def test_a_run_is_named_by_the_weights_it_began_from_and_not_by_where_they_lie(begun, networks, make_config, pairs, tmp_path):
    config = begun()
    named = given(config, "train_dvae", pairs)
    assert named["dvae_id"] == networks["dvae_id"]
    elsewhere = {**named, "dvae": "runs/import-model-elsewhere/dvae"}
    assert run_directory("train_dvae", config, elsewhere) == run_directory("train_dvae", config, named)
    other = run_directory("train_dvae", config, {**named, "dvae_id": "0" * 12})
    trained_on = begun(start__frozen="")
    assert (
        len({other, *(run_directory("train_dvae", c, given(c, "train_dvae", pairs)) for c in (config, trained_on, make_config(FEW)))}) == 4
    )
    assert len({settings_id("dvae", c) for c in (config, trained_on, make_config(FEW))}) == 3
    with pytest.raises(ValueError, match=r"start\.clip=000000000000: .* holds no such clip; `dalle import FOLDER` brings one there"):
        given(begun(start__clip="0" * 12), "train_clip", pairs)


def test_tokens_are_added_on_top_of_the_old_ones_and_begin_as_the_mean_of_their_pieces(begun, networks, pairs, run_job, tmp_path):
    old = BpeTokenizer.load(tmp_path / networks["tokenizer"])
    words = ["zebra crossing", "a zebra", "zebra zebra", "quokka", "a quokka", "crossing"]
    table = read_parts(tmp_path / pairs["pairs"], PAIRS)
    captions = pa.array([words[i % len(words)] for i in range(table.num_rows)])
    table = table.set_column(table.schema.get_field_index("caption"), "caption", captions)
    write_parts(tmp_path / "pairs/animals", table.replace_schema_metadata(), PAIRS, 20, 10)
    animals = {"pairs": "pairs/animals", "pairs_id": "animals"}
    config = begun(start__new_tokens="add", tokenizer__vocab_size=old.vocab_size + 6)
    bpe = run_job("train_bpe", config, given(config, "train_bpe", animals))
    new = BpeTokenizer.load(tmp_path / bpe["tokenizer"])
    assert new.vocab_size == old.vocab_size + 6
    assert new.begins_with(old.id, old.vocab_size)
    assert not new.begins_with(old.id, old.vocab_size - 1)
    assert new.encode(["a red apple"]) == old.encode(["a red apple"])
    assert len(new.encode(["zebra"])[0]) < len(old.encode(["zebra"])[0])
    assert new.decode(new.encode(["A zebra crossing"])[0]) == "a zebra crossing"
    assert [old.decode(ids) for ids in new.spelled(old.vocab_size)] == [new.decode([i]) for i in range(old.vocab_size, new.vocab_size)]
    again = old.extended(table["caption"].to_pylist(), new.vocab_size)
    assert old.extended(["xyz"], 65_536).id == old.id, "what occurs once is not joined"
    assert again.begins_with(old.id, old.vocab_size)

    inputs = {**animals, "tokenizer": bpe["tokenizer"], "tokenizer_id": new.id, "dvae": "dvae", "dvae_id": networks["dvae_id"]}
    clip = run_job("train_clip", config, given(config, "train_clip", inputs))
    assert load_clip(tmp_path / clip["checkpoint"], BpeTokenizer.load).about["made_from"] == {"start_id": networks["clip_id"]}
    of_set = {**export(tmp_path, new, networks["dvae_id"], ("a zebra", "quokka", "crossing")), "tokenizer": bpe["tokenizer"]}
    transformer = train_transformer.begin(
        train_transformer.JobRun(
            "train_transformer", config, given(config, "train_transformer", of_set), tmp_path / "runs/x", Layout(tmp_path)
        ),
        new,
    )
    before = load_file(tmp_path / "transformer" / "model.safetensors")["text_embedding.weight"]
    assert torch.equal(transformer.text_embedding.weight[: old.vocab_size], before)
    expected = before[new.spelled(old.vocab_size)[0]].mean(0)
    torch.testing.assert_close(transformer.text_embedding.weight[old.vocab_size], expected)
    with pytest.raises(ValueError, match="neither is that nor adds to it, so every word would mean something else"):
        strange = BpeTokenizer.train(["another world"], config.tokenizer)
        strange.save(tmp_path / "tokenizers" / strange.id)
        bad = {**export(tmp_path, strange, networks["dvae_id"]), "tokenizer": f"tokenizers/{strange.id}"}
        run_job("train_transformer", config, given(config, "train_transformer", bad))


def test_what_does_not_fit_or_is_damaged_is_refused(begun, networks, pairs, run_job, tmp_path):
    def fails(job, config, inputs, message):
        with pytest.raises(ValueError, match=message):
            run_job(job, config, given(config, job, inputs))

    inputs = {**pairs, "tokenizer": "bpe", "tokenizer_id": networks["tokenizer_id"], "dvae": "dvae", "dvae_id": networks["dvae_id"]}
    tokenizer = BpeTokenizer.load(tmp_path / "bpe")
    of_set = {**export(tmp_path, tokenizer, networks["dvae_id"]), "tokenizer": "bpe"}
    vocabulary = r"does not fit these settings: tokenizer.max_text_tokens=17 \(the files have 16\)"
    fails("train_bpe", begun(tokenizer__max_text_tokens=17), pairs, vocabulary)
    fails("train_bpe", begun(tokenizer__vocab_size=257), pairs, r"tokenizer.vocab_size=257 \(the files have \d+\)")
    fails("train_dvae", begun(dvae__codebook_size=32), pairs, r"dVAE \w+ does not fit.*dvae.codebook_size=32 \(the files have 16\)")
    fails("train_clip", begun(clip__text_layers=2), inputs, r"CLIP \w+ does not fit.*text_cfg.layers=2 \(the files have 1\)")
    sizes = begun(transformer__d_model=32, transformer__dropout=0.1)
    fails("train_transformer", sizes, of_set, r"does not fit these settings: d_model=32 \(the files have 16\); a training goes on")

    config = begun(start__frozen="")
    base = tmp_path / given(config, "train_dvae", pairs)["start"]
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, base / "model.safetensors")
    fails("train_dvae", config, pairs, r"does not match the SHA-256 in config.json")
    about = json.loads((base / "config.json").read_text())
    forged = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    (base / "config.json").write_text(json.dumps({**about, "weights_sha256": forged}))
    fails("train_dvae", config, pairs, "that the training was to begin from: it was changed or exchanged")
    shutil.rmtree(base)
    fails("train_dvae", config, pairs, "holds no such dvae; `dalle import FOLDER` brings one there")
    assert not list((tmp_path / "runs").glob("*/result.json*.partial"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"start.dvae": "../x"}, r"start.dvae='../x' is no id of a network \(12 hex digits\)"),
        ({"start.frozen": "transformer"}, "leaves nothing to train: `dalle import` takes a model as it is"),
        ({"start.transformer": "0" * 12}, "needs start.tokenizer and start.dvae, the vocabularies whose tokens it knows"),
        ({"start.clip": "0" * 12}, "needs start.tokenizer, the vocabulary that it reads captions with"),
        ({"start.new_tokens": "add"}, "needs start.tokenizer, the vocabulary to add to"),
        ({"start.dvae": "0" * 12, "train_dvae.imported": "x"}, "both say where the dvae comes from; leave one out"),
    ],
)
def test_settings_that_make_no_start_are_refused(make_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        make_config(overrides)


def test_the_weights_of_a_frozen_dvae_are_those_of_the_folder(begun, networks, pairs, run_job, tmp_path):
    kept = run_job("train_dvae", begun(), given(begun(), "train_dvae", pairs))
    load_dvae(tmp_path / kept["checkpoint"], networks["dvae_id"])
    assert prepare("train_dvae", begun(), given(begun(), "train_dvae", pairs)).name == kept["run_id"]
