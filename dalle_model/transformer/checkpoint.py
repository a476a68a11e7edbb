"""A transformer on disk: safetensors and a config, identified by both (`dalle_model.weights`)."""

from collections.abc import Mapping
from pathlib import Path

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.training.fitting import fit_weights
from dalle_model.transformer.model import DALLETransformer
from dalle_model.weights import load_weights, save_weights


def save_transformer(directory: Path, model: DALLETransformer, made_from: Mapping[str, str] | None = None) -> str:
    """Write the model to a folder of its own and return its id, 12 hex digits.

    `made_from` names what its tokens mean (tokenizer_id, dvae_id), so that nobody decodes them with another codebook.
    """
    config = {"transformer": to_dict(model.config), "stream": to_dict(model.stream), "made_from": dict(made_from or {})}
    return save_weights(directory, "transformer", model.state_dict(), config)


def load_transformer(directory: Path, expected: Mapping[str, str] | None = None) -> DALLETransformer:
    """Read what `save_transformer` wrote, ready for inference.

    Raises `ValueError` when it is missing, of another kind or damaged, or when it was made from something else than
    `expected` says, e.g. `{"dvae_id": "3f2a…"}`.
    """
    config, weights, _ = load_weights(directory, "transformer")
    for name, wanted in (expected or {}).items():
        found = config["made_from"].get(name)
        if found != wanted:
            raise ValueError(
                f"{directory} was trained with {name}={found}, but {name}={wanted} is given: its tokens would mean something else; "
                f"use {name}={found}, or train a transformer for the other one"
            )
    model = DALLETransformer(from_dict(TransformerConfig, config["transformer"]), from_dict(StreamShape, config["stream"]))
    fit_weights(model, weights, directory, "its config.json was changed or exchanged: train the transformer again")
    return model.eval().requires_grad_(False)
