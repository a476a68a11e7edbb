"""`dalle reconstruct` draws pictures with any dVAE, and says what is wrong otherwise."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import PAIRS
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, save_dvae
from flows.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An untrained dVAE and a picture."""
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "data"))
    torch.manual_seed(0)
    save_dvae(tmp_path / "dvae", DVAE(preset("demo").dvae))
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "page.png").write_text("<html>")
    return tmp_path


def run(*arguments, status=0):
    with pytest.raises(SystemExit) as ended:
        main(["reconstruct", *(str(argument) for argument in arguments)])
    assert ended.value.code == status


def test_pictures_are_drawn_and_bad_ones_named(folder, capsys):
    run(folder / "black.png", folder / "page.png", "--dvae", folder / "dvae", "-o", folder / "out" / "both.png")
    printed = capsys.readouterr()
    assert "both.png  1 pictures, PSNR" in printed.out
    assert f"left out: {folder}/page.png: not_an_image: an HTML page" in printed.err
    assert Image.open(folder / "out" / "both.png").size == (32, 64)


def test_what_is_missing_is_named(folder, capsys):
    run(folder / "gone.png", "--dvae", folder / "dvae", status=2)
    assert "gone.png does not exist; give image files, or Parquet parts or folders of pairs" in capsys.readouterr().err
    run(folder / "black.png", "--dvae", folder, status=2)
    assert "it holds no checkpoint (config.json with an id); give the folder named dvae of a run" in capsys.readouterr().err
    run(folder / "black.png", status=2)
    assert "run `dalle run" in capsys.readouterr().err


def test_a_pair_is_found_among_the_pairs_that_are_given(folder, capsys):
    row = dict.fromkeys(PAIRS.names) | {"pair_id": 77, "caption": "black", "image": (folder / "black.png").read_bytes()}
    row |= {"width": 40, "height": 50, "aspect_ratio": 0.8, "num_caption_words": 1, "split": "train"}
    row |= {name: "x" for name in PAIRS.names if row[name] is None}
    write_parquet(folder / "pairs" / "part-00000.parquet", pa.Table.from_pylist([row], schema=PAIRS.with_metadata(None)), PAIRS)
    run(folder / "pairs", "--pair", 77, "--pair", 78, "--dvae", folder / "dvae", "-o", folder / "one.png")
    printed = capsys.readouterr()
    assert "one.png  1 pictures, PSNR" in printed.out
    assert "left out: pair 78: not among the pairs" in printed.err


def test_without_pictures_the_pairs_of_the_settings_are_meant(folder, capsys):
    run("--dvae", folder / "dvae", status=2)
    assert "holds no finished collection of pairs; run `dalle run collect_pairs`" in capsys.readouterr().err
