"""A dVAE on disk: safetensors and a config, identified by both (`dalle_model.weights`)."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dalle_model.config.model import DVAEConfig
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.config.start import check_sizes
from dalle_model.dvae.model import DVAE
from dalle_model.training.fitting import fit_weights
from dalle_model.weights import load_start, load_weights, save_weights


def save_dvae(directory: Path, model: DVAE, made_from: Mapping[str, str] | None = None) -> str:
    """Write the model to a folder of its own and return its id, 12 hex digits: the `dvae_id` of everything made with it.

    `made_from` names the dVAE that its training began from (`start_id`), if there was one.
    """
    config = {"dvae": to_dict(model.config), **({"made_from": dict(made_from)} if made_from else {})}
    return save_weights(directory, "dvae", model.state_dict(), config)


def load_dvae(directory: Path, expected_id: str = "") -> DVAE:
    """Read what `save_dvae` wrote, ready for inference.

    Raises `ValueError` when it is missing, of another kind, or damaged, or when it is not the dVAE that `expected_id` names.
    """
    config, weights, dvae_id = load_weights(directory, "dvae")
    if expected_id and dvae_id != expected_id:
        raise ValueError(
            f"{directory} holds dVAE {dvae_id}, but {expected_id} is expected: its tokens would mean something else; "
            "correct the path or the id"
        )
    model = DVAE(from_dict(DVAEConfig, config["dvae"], "dvae"))
    fit_weights(model, weights, directory, "its config.json was changed or exchanged: train or import the dVAE again")
    return model.eval().requires_grad_(False)


def start_dvae(directory: Path, start_id: str, config: DVAEConfig) -> DVAE:
    """A dVAE to be trained on, with the weights of the one in a folder.

    Raises `ValueError` when that is not the dVAE `start_id`, is damaged, or has other sizes than `config`.
    """
    saved, weights = load_start(directory, "dvae", start_id)
    check_sizes(f"dVAE {start_id}", sizes_of(from_dict(DVAEConfig, saved["dvae"], "dvae")), sizes_of(config))
    model = DVAE(config)
    fit_weights(model, weights, directory, "its config.json was changed or exchanged: import or train the dVAE again")
    return model


def sizes_of(config: DVAEConfig) -> dict[str, Any]:
    """A dVAE's sizes by dotted setting, for `dalle_model.weights.different_sizes`."""
    return {f"dvae.{name}": value for name, value in asdict(config).items()}
