"""The discrete VAE that turns pictures into image tokens and back (paper, section 2.1)."""

from dalle_model.dvae.checkpoint import load_dvae, save_dvae, start_dvae
from dalle_model.dvae.model import DVAE
from dalle_model.dvae.openai import load_openai

__all__ = ["DVAE", "load_dvae", "load_openai", "save_dvae", "start_dvae"]
