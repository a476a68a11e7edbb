"""The discrete VAE that turns pictures into image tokens and back (paper, section 2.1)."""

from dalle_model.dvae.checkpoint import load_dvae, save_dvae
from dalle_model.dvae.model import DVAE

__all__ = ["DVAE", "load_dvae", "save_dvae"]
