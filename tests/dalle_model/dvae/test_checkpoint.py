"""A dVAE comes back from disk as it went, under an id that is its own."""

import json

import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE, load_dvae, save_dvae
from dalle_model.training.fitting import fit_weights

SMALL = DVAEConfig(image_size=16, downsample=4, codebook_size=32, hidden_width=8, num_groups=3, blocks_per_group=1, codebook_width=8)


def test_saved_and_loaded_models_agree(tmp_path):
    model, images = DVAE(SMALL), torch.rand(2, 3, 16, 16)
    dvae_id = save_dvae(tmp_path / "dvae", model)
    loaded = load_dvae(tmp_path / "dvae")
    assert loaded.config == SMALL
    assert torch.equal(loaded.encode_logits(images), model.encode_logits(images))
    assert save_dvae(tmp_path / "again", loaded) == dvae_id
    assert save_dvae(tmp_path / "other", DVAE(SMALL)) != dvae_id


def test_a_missing_dvae_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no dvae checkpoint .* train one first or correct the path"):
        load_dvae(tmp_path)


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path):
    save_dvae(tmp_path / "dvae", DVAE(SMALL))
    path = tmp_path / "dvae" / "config.json"
    saved = json.loads(path.read_text())
    saved["config"]["dvae"]["codebook_size"] = 64
    path.write_text(json.dumps(saved))
    message = (
        r"dvae: decoder\.input\.weight is \[8, 32, 1, 1\] in the checkpoint and \[8, 64, 1, 1\] in this configuration "
        r"\(3 of \d+ parameters differ\); its config\.json was changed or exchanged: train or import the dVAE again"
    )
    with pytest.raises(ValueError, match=message):
        load_dvae(tmp_path / "dvae")


def test_another_dvae_than_the_one_expected_is_refused(tmp_path):
    dvae_id = save_dvae(tmp_path / "dvae", DVAE(SMALL))
    assert load_dvae(tmp_path / "dvae", dvae_id).config == SMALL
    with pytest.raises(ValueError, match=rf"holds dVAE {dvae_id}, but 0123456789ab is expected: .*; correct the path or the id"):
        load_dvae(tmp_path / "dvae", "0123456789ab")


@pytest.mark.parametrize(
    ("changes", "shapes"), [({"extra": (2,)}, r"\[2\] .* missing"), ({"encoder.input.bias": None}, r"missing .* \[8\]")]
)
def test_parameters_too_many_or_too_few_are_named(tmp_path, changes, shapes):
    model = DVAE(SMALL)
    weights = {**model.state_dict(), **{name: shape and torch.zeros(shape) for name, shape in changes.items()}}
    weights = {name: value for name, value in weights.items() if value is not None}
    name = next(iter(changes)).replace(".", r"\.")
    with pytest.raises(ValueError, match=f"{name} is {shapes}".replace(" .* ", " in the checkpoint and ")):
        fit_weights(model, weights, tmp_path, "train again")
