"""A dVAE on disk: safetensors and a config, identified by both (`dalle_model.training.checkpoint`)."""

from pathlib import Path

from dalle_model.config.model import DVAEConfig
from dalle_model.config.sections import from_dict, to_dict
from dalle_model.dvae.model import DVAE
from dalle_model.training.checkpoint import load_weights, save_weights


def save_dvae(directory: Path, model: DVAE) -> str:
    """Write the model to a folder of its own and return its id, 12 hex digits: the `dvae_id` of everything made with it."""
    return save_weights(directory, "dvae", model, {"dvae": to_dict(model.config)})


def load_dvae(directory: Path) -> DVAE:
    """Read what `save_dvae` wrote, ready for inference. Raises `ValueError` when it is missing, of another kind, or damaged."""
    config, weights, _ = load_weights(directory, "dvae")
    model = DVAE(from_dict(DVAEConfig, config["dvae"], "dvae"))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
