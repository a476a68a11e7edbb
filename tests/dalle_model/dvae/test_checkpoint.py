"""A dVAE comes back from disk as it went, under an id that is its own."""

import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE, load_dvae, save_dvae

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
