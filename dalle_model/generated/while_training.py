"""Pictures for fixed prompts, drawn while a transformer trains, so that one sees it learn.

They change nothing of the training: each candidate's noise comes from a generator of its own, and the next update seeds what it draws.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dalle_datasets.loading.token_batches import pad_tokens
from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.parquet import atomic_path
from dalle_datasets.texts.captions import clean_caption
from dalle_model.config.generation import SamplingConfig
from dalle_model.dvae import load_dvae
from dalle_model.dvae.pixels import as_bytes, round_to_bytes
from dalle_model.prompt_checks import sort_out
from dalle_model.running.progress import report_pictures
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.text import BpeTokenizer
from dalle_model.transformer import DALLETransformer

MOMENTS = 10
"""How often pictures are drawn besides at the start, evenly over the updates."""
PROMPTS_FILE = "prompts.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Samples:
    """Draws a picture for each of P prompts at some looks, a sheet of P squares side by side for each look."""

    prompts: Sequence[str]
    text_tokens: Tensor
    """int64 [P, max_text_tokens]."""
    dvae: Path
    directory: Path
    settings: SamplingConfig
    seed: int
    validate_every: int
    """Updates between looks."""
    max_steps: int

    def is_due(self, step: int) -> bool:
        """Whether the look after `step` updates is the first since another tenth of them was made."""
        before = max(0, step - self.validate_every)
        return step in (0, self.max_steps) or step * MOMENTS // self.max_steps > before * MOMENTS // self.max_steps

    def show(self, model: nn.Module, step: int) -> None:
        """Write the sheet of this look; the same look after a resume writes the same file. Logits that are no numbers only warn."""
        if not self.is_due(step):
            return
        assert isinstance(model, DALLETransformer)
        seeds = candidate_seeds(self.seed, list(self.prompts), 1)
        try:
            tokens = sample_image_tokens(model, self.text_tokens, 1, self.settings, seeds, is_static=False)[:, 0]
        except ValueError as error:
            log.warning("no pictures at update %d: %s", step, error)
            return
        dvae = load_dvae(self.dvae).to(tokens.device)  # held only now: the training may need the memory
        pixels = as_bytes(round_to_bytes(dvae.decode_tokens(tokens)))
        with atomic_path(self.directory / f"step-{step:07d}.png") as partial:
            Image.fromarray(np.concatenate(list(pixels), 1)).save(partial, "PNG")
        report_pictures(self.directory)

    def begin(self) -> None:
        """Write what is drawn, and delete the pictures of other prompts."""
        path, text = self.directory / PROMPTS_FILE, json.dumps(list(self.prompts), indent=1)
        if path.exists() and path.read_text() == text:
            return
        for other in self.directory.glob("step-*.png"):
            other.unlink()
        with atomic_path(path) as partial:
            partial.write_text(text)


def usable_prompts(prompts: Sequence[str], tokenizer: BpeTokenizer) -> tuple[list[str], Tensor]:
    """The prompts that the transformer reads, cut where they are too long, and their tokens; a warning for the others."""
    texts = list(dict.fromkeys(map(clean_caption, prompts)))
    rows = [{"prompt_id": prompt_id(text), "prompt": text, "image": None} for text in texts]
    usable, dropped = sort_out(rows, tokenizer, True)
    for row in dropped:
        log.warning("the prompt %r is not drawn while it trains: %s", row["prompt"], row["detail"])
    tokens = torch.from_numpy(pad_tokens([row["text_tokens"] for row in usable], tokenizer.max_text_tokens))
    return [row["prompt"] for row in usable], tokens
