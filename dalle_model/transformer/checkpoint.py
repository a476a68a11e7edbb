"""A transformer on disk: safetensors and a config, identified by both (`dalle_model.weights`)."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.parsing import from_dict, saved_settings, to_dict
from dalle_model.config.start import check_sizes
from dalle_model.training.fitting import fit_weights
from dalle_model.transformer.model import DALLETransformer
from dalle_model.weights import load_start, load_weights, save_weights


class Vocabulary(Protocol):
    """What a start needs of `dalle_model.text.BpeTokenizer` (the two packages do not import each other)."""

    id: str

    @property
    def vocab_size(self) -> int: ...

    def begins_with(self, tokenizer_id: str, vocab_size: int) -> bool: ...

    def spelled(self, first_new: int) -> list[list[int]]: ...


def save_transformer(directory: Path, model: DALLETransformer, made_from: Mapping[str, str] | None = None) -> str:
    """Write the model to a folder of its own and return its id, 12 hex digits.

    `made_from` names what its tokens mean (tokenizer_id, dvae_id), so that nobody decodes them with another codebook.
    """
    config = {"transformer": saved_settings(model.config), "stream": to_dict(model.stream), "made_from": dict(made_from or {})}
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


def start_transformer(
    directory: Path, start_id: str, config: TransformerConfig, stream: StreamShape, tokenizer: Vocabulary, dvae_ids: Mapping[str, str]
) -> DALLETransformer:
    """A transformer to be trained on, with the weights of the one in a folder. Tokens that it does not know begin as the mean of their
    pieces; dropout may be another one.

    `dvae_ids` has the `dvae_id` that made the image tokens and, if that dVAE was trained on, the `start_id` it began from. Raises
    `ValueError` when the folder does not hold transformer `start_id`, when it is damaged or has other sizes, and when its tokens meant
    something else.
    """
    saved, weights = load_start(directory, "transformer", start_id)
    made_from, found = saved["made_from"], from_dict(StreamShape, saved["stream"])
    if (old := made_from.get("dvae_id")) not in dvae_ids.values():
        raise ValueError(
            f"transformer {start_id} draws tokens of dVAE {old}; dVAE {dvae_ids.get('dvae_id')} neither is that nor began "
            "from it, so every token would mean something else: begin from a dVAE and a transformer of one model"
        )
    if not tokenizer.begins_with(old := str(made_from.get("tokenizer_id")), found.text_vocab_size):
        raise ValueError(
            f"transformer {start_id} reads tokens of tokenizer {old}; tokenizer {tokenizer.id} neither is that nor adds to "
            "it, so every word would mean something else: begin from a tokenizer and a transformer of one model"
        )
    may_differ = {"dropout": config.dropout, "text_vocab_size": stream.text_vocab_size}
    of_files = {**asdict(from_dict(TransformerConfig, saved["transformer"])), **asdict(found), **may_differ}
    check_sizes(f"transformer {start_id}", of_files, {**asdict(config), **asdict(stream)})
    model = DALLETransformer(config, stream)
    if stream.text_vocab_size > found.text_vocab_size:
        pieces = tokenizer.spelled(found.text_vocab_size)
        grown = {name: weights[name] for name in ("text_embedding.weight", "text_head.weight", "text_head.bias")}
        new = {name: torch.stack([old[ids].mean(0) for ids in pieces]) for name, old in grown.items()}
        weights = {**weights, **{name: torch.cat([old, new[name]]) for name, old in grown.items()}}
    fit_weights(model, weights, directory, "its config.json was changed or exchanged: train or import the transformer again")
    return model
