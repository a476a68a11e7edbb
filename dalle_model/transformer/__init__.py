"""The sparse transformer that models captions and image tokens as one stream (paper, section 2.2)."""

from dalle_model.transformer.checkpoint import load_transformer, save_transformer, start_transformer
from dalle_model.transformer.model import NO_TOKEN, DALLETransformer

__all__ = ["NO_TOKEN", "DALLETransformer", "load_transformer", "save_transformer", "start_transformer"]
