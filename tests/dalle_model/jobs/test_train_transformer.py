"""Training the transformer: learns, resumes exactly, and refuses tokens of other models."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

from dalle_datasets.store.parquet import read_parquet, write_parquet, write_parts
from dalle_datasets.store.schemas import TRAINING_SET
from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import TokenizerConfig
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.generated import while_training
from dalle_model.generated.while_training import Samples, usable_prompts
from dalle_model.jobs import train_transformer
from dalle_model.running.run_dir import execute, prepare
from dalle_model.text import BpeTokenizer
from dalle_model.training import settled
from dalle_model.training.metrics import read_metrics
from dalle_model.transformer import NO_TOKEN, load_transformer
from tests.parts import read_parts

CAPTIONS = ["a red apple on a pink background", "two blue cats", "a small owl on the left side on white"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tokenizer = BpeTokenizer.train(CAPTIONS, TokenizerConfig(vocab_size=270, max_text_tokens=12))
    tokenizer.save(tmp_path / "tokenizers" / tokenizer.id)
    rows = [
        {
            "pair_id": i,
            "crop": 0,
            "split": "validation" if i % 8 == 0 else "train",
            "caption": CAPTIONS[i % 3],
            "source": "test",
            "page_url": "",
            "text_tokens": tokenizer.encode([CAPTIONS[i % 3]])[0][:12],
            "image_tokens": [(i % 3) * 4 + j % 4 for j in range(16)],
        }
        for i in range(80)
    ]
    schema = TRAINING_SET.with_metadata(None)
    write_parts(tmp_path / "training_sets/t1", pa.Table.from_pylist(rows, schema), TRAINING_SET, rows_per_part=50, row_group_size=20)
    manifest = {"tokenizer_id": tokenizer.id, "dvae_id": "d1"}
    (tmp_path / "training_sets/t1/manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def train(root: Path, overrides: dict[str, Any] | None = None, inputs: dict[str, str] | None = None) -> dict[str, Any]:
    tokenizer_id = next((root / "tokenizers").iterdir()).name
    config = preset(
        "demo",
        {
            "paths.data_root": str(root),
            "tokenizer.max_text_tokens": 12,
            "dvae.image_size": 16,
            "dvae.codebook_size": 12,
            "clip.image_size": 16,
            "transformer.num_layers": 2,
            "transformer.num_heads": 2,
            "transformer.d_model": 16,
            "transformer.conv_kernel_size": 3,
            "transformer.dropout": 0.1,
            "train_transformer.max_steps": 12,
            "train_transformer.batch_size": 8,
            "train_transformer.warmup_steps": 5,
            "train_transformer.log_every": 3,
            "train_transformer.validate_every": 6,
            "train_transformer.checkpoint_every": 5,
            "train_transformer.ema_decay": 0.9,
            "train_transformer.caption_dropout": 0.1,
            **(overrides or {}),
        },
    )
    given = {
        "training_set": "training_sets/t1",
        "training_set_id": "t1",
        "dvae_id": "d1",
        "tokenizer": f"tokenizers/{tokenizer_id}",
        "tokenizer_id": tokenizer_id,
    }
    return execute("train_transformer", prepare("train_transformer", config, {**given, **(inputs or {})}))


def test_it_learns_and_says_what_it_made(root: Path) -> None:
    result = train(root, {"train_transformer.max_steps": 40, "train_transformer.learning_rate": 2e-2, "train_transformer.ema_decay": 0.0})
    model = load_transformer(root / result["checkpoint"], {"dvae_id": "d1", "training_set_id": "t1"})
    assert result["num_parameters"] == sum(p.numel() for p in model.parameters())
    untrained = math.log(12)
    assert result["image_loss"] < untrained - 0.8
    assert result["validation_image_loss"] < untrained - 0.8
    assert result["validation_text_loss"] > 0
    lines = read_metrics(root / "runs" / result["run_id"] / "metrics.jsonl")
    assert [line["step"] for line in lines if line["split"] == "validation"] == [0, *range(6, 37, 6), 40]
    assert {"loss", "text_loss", "image_loss", "learning_rate"} <= set(lines[-2])


def test_a_run_that_was_interrupted_ends_with_the_same_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(root, {"seed": 3})
    metrics = (root / "runs" / undisturbed["run_id"] / "metrics.jsonl").read_text()
    shutil.rmtree(root / "runs")

    def stop_at_9(done: int, *_: Any, **__: Any) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", stop_at_9)
        with pytest.raises(KeyboardInterrupt):
            train(root, {"seed": 3})
    again = train(root, {"seed": 3})
    assert again["transformer_id"] == undisturbed["transformer_id"]
    assert (root / "runs" / again["run_id"] / "metrics.jsonl").read_text() == metrics


def drawn(root: Path, result: dict[str, Any]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / result["shown"]).iterdir())}


def test_pictures_are_drawn_while_it_trains_and_change_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"dvae.image_size": 16, "dvae.codebook_size": 12, "dvae.hidden_width": 8, "dvae.codebook_width": 8}
    torch.manual_seed(1)
    save_dvae(root / "dvae", DVAE(preset("demo", {**sizes, "clip.image_size": 16}).dvae))
    settings, inputs = {**sizes, "seed": 3, "train_transformer.validate_every": 3}, {"dvae": "dvae"}
    monkeypatch.setattr(while_training, "MOMENTS", 3)
    none = train(root, {**settings, "train_transformer.num_shown": 0}, inputs)
    assert "shown" not in none
    shutil.rmtree(root / "runs")
    undisturbed = train(root, settings, inputs)
    assert (undisturbed["run_id"], undisturbed["transformer_id"]) == (none["run_id"], none["transformer_id"])
    files = drawn(root, undisturbed)
    assert list(files) == ["prompts.json", *(f"step-{step:07}.png" for step in (0, 6, 9, 12))]
    assert json.loads(files["prompts.json"]) == [CAPTIONS[i] for i in (0, 2, 1)], "the captions of the validation split, once each"
    with Image.open(root / undisturbed["shown"] / "step-0000012.png") as sheet:
        assert sheet.size == (3 * 16, 16)
        learned = np.asarray(sheet)
    assert (learned != np.asarray(Image.open(root / undisturbed["shown"] / "step-0000000.png"))).any()

    shutil.rmtree(root / "runs")

    def stop_at_9(done: int, *_: Any, **__: Any) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", stop_at_9)
        with pytest.raises(KeyboardInterrupt):
            train(root, settings, inputs)
    again = train(root, settings, inputs)
    assert (again["transformer_id"], drawn(root, again)) == (undisturbed["transformer_id"], files)


def test_own_prompts_are_drawn_and_those_before_are_not_mixed_with_them(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = root / "shown"
    tokenizer = BpeTokenizer.load(next((root / "tokenizers").iterdir()))
    prompts, tokens = usable_prompts(["  a red  apple ", "", "a red apple"], tokenizer)
    assert (prompts, tuple(tokens.shape)) == (["a red apple"], (1, 12))
    assert "is not drawn while it trains: it has no text" in caplog.text
    folder.mkdir()
    (folder / "step-0000000.png").write_bytes(b"of other prompts")
    samples = Samples(prompts, tokens, root / "dvae", folder, SamplingConfig(), 0, validate_every=10, max_steps=1_000)
    samples.begin()
    assert [path.name for path in folder.iterdir()] == ["prompts.json"]
    (folder / "step-0000000.png").write_bytes(b"of these prompts")
    samples.begin()
    assert (folder / "step-0000000.png").exists()
    assert sum(map(samples.is_due, range(0, 1_001, 10))) == 11


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_learn_as_32_do_and_resume_exactly(root: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"train_transformer.learning_rate": 2e-2, "train_transformer.ema_decay": 0.0, "transformer.dropout": 0.0}
    full = train(root, settings)
    settings["train_transformer.precision"] = precision
    half = train(root, settings)
    assert half["image_loss"] == pytest.approx(full["image_loss"], abs=0.02)
    assert half["image_loss"] < math.log(12) - 0.1
    shutil.rmtree(root / "runs" / half["run_id"])

    def stop_at_9(done: int, *_: Any, **__: Any) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", stop_at_9)
        with pytest.raises(KeyboardInterrupt):
            train(root, settings)
    assert train(root, settings)["transformer_id"] == half["transformer_id"]


def test_microbatches_give_the_gradient_of_the_whole_batch(root: Path) -> None:
    settings = {"transformer.dropout": 0.0, "train_transformer.max_steps": 3, "train_transformer.log_every": 3}
    whole, parts = train(root, settings), train(root, {**settings, "train_transformer.microbatch_size": 2})
    assert parts["text_loss"] == pytest.approx(whole["text_loss"], abs=1e-5)
    assert parts["image_loss"] == pytest.approx(whole["image_loss"], abs=1e-5)


def test_captions_are_cut_differently_at_each_step_and_alike_when_a_step_is_repeated(root: Path) -> None:
    tokenizer = BpeTokenizer.load(next((root / "tokenizers").iterdir()))
    config = preset("demo", {"tokenizer.bpe_dropout": 0.5, "train_transformer.batch_size": 8, "train_transformer.caption_dropout": 0.3})
    pairs = train_transformer.TokenBatches(
        root / "training_sets/t1", "train", text_vocab_size=300, max_text_tokens=12, codebook_size=12, num_image_tokens=16
    )
    world = train_transformer.World(0, 1, torch.device("cpu"))
    stream = train_transformer.training_batches(pairs, tokenizer, config, world)
    first = [batch for batch, _ in zip(stream(0), range(30), strict=False)]
    again = [batch for batch, _ in zip(stream(20), range(10), strict=False)]
    assert all(torch.equal(a["text_tokens"], b["text_tokens"]) for a, b in zip(first[20:], again, strict=True))
    assert len(torch.cat([batch["text_tokens"] for batch in first]).unique(dim=0)) > len(CAPTIONS) * 10
    is_empty = torch.cat([(batch["text_tokens"] == NO_TOKEN).all(1) for batch in first])
    assert 0.2 < is_empty.double().mean() < 0.4


def test_validation_captions_that_occur_in_training_are_counted_apart(root: Path) -> None:
    result = train(root)
    assert result["validation_unseen_share"] == 0.0
    assert result["validation_unseen_image_loss"] is None
    table = read_parts(root / "training_sets/t1", TRAINING_SET)
    is_new = [split == "validation" and i >= 60 for i, split in enumerate(table["split"].to_pylist())]
    captions = [
        f"A NEW  one {i}" if new else caption for i, (new, caption) in enumerate(zip(is_new, table["caption"].to_pylist(), strict=True))
    ]
    for path in (root / "training_sets/t1").glob("*.parquet"):
        path.unlink()
    write_parts(
        root / "training_sets/t1",
        table.set_column(table.schema.get_field_index("caption"), "caption", pa.array(captions)),
        TRAINING_SET,
        50,
        20,
    )
    shutil.rmtree(root / "runs")
    again = train(root)
    assert again["validation_unseen_share"] == sum(is_new) / table["split"].to_pylist().count("validation")
    assert again["validation_unseen_image_loss"] > 0
    assert again["validation_image_loss"] == pytest.approx(result["validation_image_loss"], abs=1e-5)


def test_what_was_learned_by_heart_is_measured_on_training_pairs(root: Path) -> None:
    result = train(root)
    model = load_transformer(root / result["checkpoint"])
    pairs = read_parts(root / "training_sets/t1", TRAINING_SET)
    pairs = pairs.filter(pc.equal(pairs["split"], "train"))
    text = torch.tensor([row + [NO_TOKEN] * (12 - len(row)) for row in pairs["text_tokens"].to_pylist()])
    _, image_loss = model.loss(text, torch.tensor(pairs["image_tokens"].to_pylist()))
    assert result["learned_image_loss"] == pytest.approx(float(image_loss), abs=1e-5)
    _, counts = np.unique(np.concatenate(pairs["image_tokens"].to_pylist()), return_counts=True)
    shares = counts / counts.sum()
    assert result["image_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())


def test_a_training_set_of_another_dvae_or_tokenizer_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"was made with dvae_id=d1, but the run's input is dvae_id=d2; export a training set for it"):
        train(root, inputs={"dvae_id": "d2"})
    with pytest.raises(ValueError, match=r"was made with tokenizer_id=\w+, but the run's input is tokenizer_id=other"):
        train(root, inputs={"tokenizer_id": "other"})


def test_an_unfinished_training_set_is_refused(root: Path) -> None:
    (root / "training_sets/t1/manifest.json").unlink()
    with pytest.raises(ValueError, match="holds no manifest.json, so its export did not finish; export the training set again"):
        train(root)


def test_a_training_set_without_validation_pairs_is_trained_on_all_the_same(root: Path) -> None:
    table = read_parts(root / "training_sets/t1", TRAINING_SET)
    write_parts(root / "training_sets/t1", table.filter(pc.equal(table["split"], "train")), TRAINING_SET, 50, 20)
    assert train(root)["validation_image_loss"] is None


def test_another_tokenizer_under_the_expected_name_is_refused(root: Path) -> None:
    other = BpeTokenizer.train([*CAPTIONS, "something else entirely"], TokenizerConfig(vocab_size=270, max_text_tokens=12))
    other.save(root / "other")
    with pytest.raises(ValueError, match=rf"other holds tokenizer {other.id}, but [0-9a-f]+ is given; correct one"):
        train(root, inputs={"tokenizer": "other"})


@pytest.mark.parametrize(
    ("column", "tokens", "message"),
    [
        ("image_tokens", [12] * 16, r"part-00000\.parquet \(row group 0\): image token 12 is outside the codebook of 12 .* for this dVAE"),
        ("image_tokens", [1] * 25, r"image_tokens has \[25\] tokens a row, expected 16 .* for this dVAE"),
        ("text_tokens", [9_999], r"text token 9999 is outside the vocabulary of \d+; export the training set again for this tokenizer"),
    ],
)
def test_tokens_of_other_networks_stop_the_job(root: Path, column: str, tokens: list[int], message: str) -> None:
    for path in sorted((root / "training_sets/t1").glob("*.parquet")):
        table = read_parquet(path, TRAINING_SET)
        wrong = pa.array([tokens] * table.num_rows, TRAINING_SET.field(column).type)
        write_parquet(path, table.set_column(table.schema.get_field_index(column), column, wrong), TRAINING_SET, 20)
    with pytest.raises(ValueError, match=message):
        train(root)


def test_an_empty_training_set_stops_the_job(root: Path) -> None:
    for path in (root / "training_sets/t1").glob("*.parquet"):
        write_parquet(path, TRAINING_SET.with_metadata(None).empty_table(), TRAINING_SET)
    with pytest.raises(ValueError, match=r"t1 has no rows of split 'train'; check what the training set's query selects"):
        train(root)


def test_a_checkpoint_of_another_shape_stops_the_job(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_at_9(done: int, *_: Any, **__: Any) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", stop_at_9)
        with pytest.raises(KeyboardInterrupt):
            train(root, {"transformer.d_model": 32})
    (narrow,) = (root / "runs").iterdir()
    kept = narrow / "checkpoints"
    with monkeypatch.context() as patched:
        patched.setattr(train_transformer, "report_progress", stop_at_9)
        with pytest.raises(KeyboardInterrupt):
            train(root)
    other = next(path for path in (root / "runs").iterdir() if path != narrow)
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(kept, other / "checkpoints")
    with pytest.raises(ValueError, match=r"step-000005: .* in the checkpoint and .* a run directory belongs to one configuration: delete"):
        train(root)


def test_auto_is_settled_once_in_a_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def measure(run: Any, device: torch.device) -> str:
        run("fp32"), run("bf16")
        measured.append(device)
        return "bf16"

    monkeypatch.setattr(settled, "faster_precision", measure)
    expected = train(root, {"train_transformer.precision": "bf16"})
    made = train(root, {"train_transformer.precision": "auto"})
    assert made["transformer_id"] == expected["transformer_id"], "measuring changes neither weights nor random numbers"
    run_dir = root / "runs" / made["run_id"]
    assert json.loads((run_dir / "precision.json").read_text()) == {"precision": "bf16"}
    (run_dir / "result.json").unlink()
    monkeypatch.setattr(settled, "faster_precision", lambda run, device: "fp32")
    assert train(root, {"train_transformer.precision": "auto"})["transformer_id"] == expected["transformer_id"]
    assert len(measured) == 1
