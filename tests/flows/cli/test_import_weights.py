"""`dalle import-weights` takes over what the real dall_e package writes, and says what is wrong otherwise."""

import json

import pytest
import torch
from dall_e import Decoder, Encoder

from flows.cli.main import main

SIZES = [
    "dvae.image_size=64", "dvae.codebook_size=32", "dvae.hidden_width=8", "dvae.codebook_width=12", "clip.image_size=64",
    "transformer.conv_kernel_size=5",
]  # fmt: skip


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command with files of a small network, and settings that fit them."""
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "data"))
    torch.manual_seed(0)
    torch.save(Encoder(n_hid=8, vocab_size=32), tmp_path / "encoder.pkl")
    torch.save(Decoder(n_init=12, n_hid=8, vocab_size=32), tmp_path / "decoder.pkl")
    files = ["--encoder", str(tmp_path / "encoder.pkl"), "--decoder", str(tmp_path / "decoder.pkl")]
    return ["import-weights", *files, *(word for setting in SIZES for word in ("--set", setting))]


def run(arguments, status=0):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status


def test_the_result_names_the_run_to_use(command, capsys, tmp_path):
    run(command)
    result = json.loads(capsys.readouterr().out)
    assert (tmp_path / "data" / "runs" / result["run_id"] / "dvae" / "model.safetensors").exists()
    run(command)
    assert json.loads(capsys.readouterr().out) == result
    torch.manual_seed(1)
    torch.save(Encoder(n_hid=8, vocab_size=32), tmp_path / "encoder.pkl")
    run(command)
    assert json.loads(capsys.readouterr().out)["dvae_id"] != result["dvae_id"], "another file of the same name is another run"


def test_files_that_are_missing_or_not_what_they_should_be_are_refused(command, capsys, tmp_path):
    run([*command, "--encoder-sha256", "0" * 64], status=1)
    assert "encoder.pkl has SHA-256" in capsys.readouterr().err
    (tmp_path / "decoder.pkl").unlink()
    run(command, status=2)
    assert f"--decoder {tmp_path}/decoder.pkl: the file does not exist; download OpenAI's decoder.pkl first" in capsys.readouterr().err


def test_the_help_says_how_to_use_the_weights(capsys):
    run(["import-weights", "--help"])
    assert "train_dvae.imported=RUN_ID" in " ".join(capsys.readouterr().out.split())
