"""A playground of tiny untrained networks, with and without a data root whose tokens and embeddings they fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle_model.clip import build_clip, save_clip
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.generator import NETWORKS
from dalle_model.model_folder import open_model, read_model_folder, write_model_folder
from dalle_model.text import BpeTokenizer
from dalle_model.transformer import DALLETransformer, save_transformer
from flows.app.archive import Archive
from flows.app.server import Playground
from flows.app.studio import Studio

TINY = {
    "tokenizer.vocab_size": 270, "tokenizer.max_text_tokens": 16,
    "dvae.image_size": 32, "dvae.downsample": 8, "dvae.num_groups": 3, "dvae.codebook_size": 32, "dvae.hidden_width": 8,
    "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.patch_size": 8, "clip.embed_width": 8, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16,
    "sampling.num_images": 4, "sampling.batch_size": 8, "seed": 3,
}  # fmt: skip
"""Grid, codebook and width of embeddings are those of the tests' data root."""
CATALOGUED = {"dvae_id": "vae0", "clip_id": "clip0", "transformer_id": "tf0", "tokenizer_id": "bpe0"}
"""Ids of the networks of that data root."""


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of untrained networks."""
    root, config = tmp_path_factory.mktemp("model"), preset("demo", TINY)
    torch.manual_seed(0)
    tokenizer = BpeTokenizer.train(["a red apple", "an owl"], config.tokenizer)
    paths = {kind: root / kind for kind in NETWORKS}
    tokenizer.save(paths["tokenizer"])
    ids = {"tokenizer_id": tokenizer.id, "dvae_id": save_dvae(paths["dvae"], DVAE(config.dvae))}
    ids["clip_id"] = save_clip(paths["clip"], build_clip(config.clip, tokenizer))
    transformer = DALLETransformer(config.transformer, replace(config.stream, text_vocab_size=tokenizer.vocab_size))
    ids["transformer_id"] = save_transformer(paths["transformer"], transformer, {name: ids[name] for name in ("dvae_id", "tokenizer_id")})
    seen = [{
        "role": "transformer", "network_id": "t", "run_id": "run-1", "data_id": "d", "num_pairs": 12, "sources": ["web"],
        "licences": [], "of": ["transformer"],
    }]  # fmt: skip
    return write_model_folder(root / "owls", paths, ids, config.sampling, config.seed, "# card\n", seen).folder


@pytest.fixture
def make_playground(model_folder: Path) -> Callable[..., Playground]:
    """A playground of the model folder, or of the model and a data root."""

    def make(layout=None) -> Playground:
        about = read_model_folder(model_folder)
        if layout is None:
            return Playground(Studio(open_model(about), {"model_id": about.id, **about.ids}, about.seen), None, "owls")
        return Playground(Studio(open_model(about), CATALOGUED), Archive(layout, CATALOGUED), "data")

    return make
