"""A transformer comes back from disk as it went, and refuses tokens that mean something else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import DALLETransformer, load_transformer, save_transformer

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=4)
CONFIG = TransformerConfig(num_layers=2, num_heads=2, d_model=16, conv_kernel_size=3)


def test_saved_and_loaded_models_agree(tmp_path: Path) -> None:
    model = DALLETransformer(CONFIG, STREAM).eval()
    transformer_id = save_transformer(tmp_path / "transformer", model, {"dvae_id": "d1"})
    loaded = load_transformer(tmp_path / "transformer", {"dvae_id": "d1"})
    text, image = torch.randint(20, (2, 5)), torch.randint(11, (2, 16))
    assert torch.equal(loaded(text, image)[1], model(text, image)[1])
    assert save_transformer(tmp_path / "again", loaded, {"dvae_id": "d1"}) == transformer_id


def test_a_setting_that_came_later_changes_no_id_until_it_is_used(tmp_path: Path) -> None:
    save_transformer(tmp_path / "transformer", DALLETransformer(CONFIG, STREAM))
    kept = json.loads((tmp_path / "transformer/config.json").read_text())["config"]["transformer"]
    assert set(kept) == {"num_layers", "num_heads", "d_model", "attention", "conv_kernel_size", "dropout"}
    save_transformer(tmp_path / "one", DALLETransformer(replace(CONFIG, pads="one"), STREAM))
    assert load_transformer(tmp_path / "one").config.pads == "one"


def test_another_codebook_is_refused(tmp_path: Path) -> None:
    save_transformer(tmp_path / "transformer", DALLETransformer(CONFIG, STREAM), {"dvae_id": "d1"})
    with pytest.raises(ValueError, match=r"was trained with dvae_id=d1, but dvae_id=d2 is given: .* use dvae_id=d1, or train"):
        load_transformer(tmp_path / "transformer", {"dvae_id": "d2"})


def test_a_missing_transformer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no transformer checkpoint .* train one first or correct the path"):
        load_transformer(tmp_path)


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path: Path) -> None:
    save_transformer(tmp_path / "transformer", DALLETransformer(CONFIG, STREAM))
    path = tmp_path / "transformer" / "config.json"
    saved = json.loads(path.read_text())
    saved["config"]["stream"]["codebook_size"] = 12
    path.write_text(json.dumps(saved))
    with pytest.raises(
        ValueError, match=r"is \[11.*\] in the checkpoint and \[12.*\] in this configuration .*: train the transformer again"
    ):
        load_transformer(tmp_path / "transformer")
