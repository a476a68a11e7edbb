"""Originals above reconstructions, for pairs and image files, whatever the files are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import PAIRS, RECONSTRUCTIONS
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor
from dalle_model.jobs.reconstruct import grid, psnr
from tests.parts import read_parts

TINY = {"dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random"}


@pytest.fixture
def dvae(make_config, tmp_path):
    """An untrained dVAE, and the inputs that name it."""
    torch.manual_seed(0)
    model = DVAE(make_config(TINY).dvae)
    return model, {"dvae": "dvae", "dvae_id": save_dvae(tmp_path / "dvae", model), "max_pictures": "10"}


def test_pairs_and_what_became_of_them_lie_above_each_other(make_config, pairs, dvae, run_job, tmp_path):
    model, inputs = dvae
    result = run_job("reconstruct", make_config(TINY), {**inputs, "pictures": "pairs/emoji"})
    assert result["num_pictures"] == 10
    drawn = np.asarray(Image.open(tmp_path / result["reconstructions"]))
    assert drawn.shape == (4 * 32, 8 * 32, 3), "eight and two pictures, in two rows each"
    files = read_parts(Layout(tmp_path).pairs("emoji"), PAIRS)["image"].to_pylist()
    (tmp_path / "second.png").write_bytes(files[1])
    original = np.asarray(Image.open(tmp_path / "second.png").convert("RGB"))
    assert (drawn[:32, 32:64] == original).all()
    assert (drawn[32:64, 32:64] == as_bytes(model.decode_tokens(model.tokenize(as_floats(as_tensor(original[None].copy())))))[0]).all()


def test_pairs_can_be_named_by_id(make_config, pairs, dvae, run_job, tmp_path):
    model, inputs = dvae
    table = read_parts(Layout(tmp_path).pairs("emoji"), PAIRS)
    ids, files = table["pair_id"].to_pylist(), table["image"].to_pylist()
    wanted = f"{ids[41]} {ids[3]} 12345"
    result = run_job("reconstruct", make_config(TINY), {**inputs, "max_pictures": "1", "pictures": "pairs/emoji", "pair_ids": wanted})
    assert result["dropped"] == {"pair 12345": "not among the pairs"}
    rows = read_parquet(tmp_path / result["reconstructions_table"], RECONSTRUCTIONS).to_pylist()
    assert [(row["pair_id"], row["picture"]) for row in rows] == [(ids[3], f"pair {ids[3]}"), (ids[41], f"pair {ids[41]}")]
    original = np.asarray(Image.open(io.BytesIO(files[41])))
    tokens = model.tokenize(as_floats(as_tensor(original[None].copy())))
    assert rows[1]["image_tokens"] == tokens[0].tolist()
    assert rows[1]["num_codes"] == len(set(tokens[0].tolist()))
    assert rows[1]["dvae_id"] == inputs["dvae_id"]
    assert rows[1]["psnr"] == pytest.approx(psnr(original, as_bytes(model.decode_tokens(tokens))[0]))
    assert result["psnr"] < max(row["psnr"] for row in rows)
    with pytest.raises(ValueError, match=r"none of the pictures can be decoded: \{'pair 1': 'not among the pairs'\}; give others"):
        run_job("reconstruct", make_config(TINY), {**inputs, "pictures": "pairs/emoji", "pair_ids": "1"})


def test_another_dvae_than_the_inputs_name_is_refused(make_config, pairs, dvae, run_job):
    with pytest.raises(ValueError, match=r"dvae holds dVAE [0-9a-f]{12}, but 0{12} is expected"):
        run_job("reconstruct", make_config(TINY), {**dvae[1], "dvae_id": "0" * 12, "pictures": "pairs/emoji"})


def test_files_of_every_kind_are_shown_and_bad_ones_left_out_with_a_reason(make_config, dvae, run_job, tmp_path):
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.convert("P").save(tmp_path / "palette.png")
    rgb.convert("RGBA").save(tmp_path / "alpha.webp")
    rgb.save(tmp_path / "animated.gif", save_all=True, append_images=[rgb.rotate(90)])
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    rgb.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4_000])
    names = ["cmyk.jpg", "palette.png", "alpha.webp", "animated.gif", "deep.png", "dot.png", "cut.png"]
    result = run_job("reconstruct", make_config(TINY), {**dvae[1], "pictures": "\n".join(names)})
    assert result["num_pictures"] == 6
    assert list(result["dropped"]) == ["cut.png"]
    assert result["dropped"]["cut.png"].startswith("decode_error")


def test_no_picture_at_all_is_an_error(make_config, dvae, run_job, tmp_path):
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(
        ValueError, match=r"none of the pictures can be decoded: \{'page.html': 'not_an_image: an HTML page'\}; give others"
    ):
        run_job("reconstruct", make_config(TINY), {**dvae[1], "pictures": "page.html"})
    with pytest.raises(ValueError, match=r"gone\.png does not exist; give image files, or Parquet parts or folders of pairs"):
        run_job("reconstruct", make_config(TINY), {**dvae[1], "pictures": "gone.png"})


def test_a_last_row_is_filled_with_white():
    black = [np.zeros((2, 2, 3), np.uint8)] * 9
    assert grid(black, black).shape == (8, 16, 3)
    assert (grid(black, black)[4:, 2:] == 255).all()


def test_psnr_of_a_known_error():
    zeros = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(zeros, zeros + np.uint8(51)) == pytest.approx(13.979, abs=1e-3)
    assert psnr(zeros, zeros) == 100
