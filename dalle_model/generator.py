"""Pictures from Python: the networks of a data root, a prompt, and the candidates as CLIP orders them. Nothing is written.

`dalle generate` keeps everything it makes with its lineage; this is for notebooks and programs of one's own. A picture is the same,
pixel by pixel, as the one that the job makes from the same networks, settings, prompt and seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from dalle_datasets.loading.token_batches import pad_tokens
from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.tree import Config
from dalle_model.dvae.pixels import as_bytes
from dalle_model.jobs.generate_images import decode_batches, load_networks
from dalle_model.prompt_checks import sort_out
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.sampling.rerank import score_candidates


@dataclass(frozen=True, slots=True)
class Picture:
    """One candidate."""

    image: Image.Image
    clip_score: float
    """Cosine similarity with the prompt, in [-1, 1]."""
    seed: int
    """What made this candidate different from the others."""


class Generator:
    """Loaded networks, ready for any number of prompts."""

    def __init__(self, config: Config, inputs: Mapping[str, str]) -> None:
        """`inputs` are those of the job `generate_images`: paths and ids of the networks; `flows.api.open_generator` finds them.

        Raises `ValueError` when a network is missing or damaged, or when they do not belong together.
        """
        layout = open_data_root(config.paths.data_root)
        self.config = config
        self.networks = load_networks(JobRun("generate_images", config, inputs, Path(), layout))

    def draw(self, prompt: str, num_images: int | None = None, seed: int | None = None) -> list[Picture]:
        """Candidates for a prompt, the best by CLIP first; `sampling.num_images` of them, from the configuration's seed, if not given.

        Raises `ValueError` for a prompt without text, or with more than the transformer reads unless `sampling.truncate_prompts`.
        """
        settings, networks = self.config.sampling, self.networks
        num_images = settings.num_images if num_images is None else num_images
        text = " ".join(prompt.split())
        row = {"prompt_id": prompt_id(text), "prompt": text, "image": None}
        usable, dropped = sort_out([row], networks.tokenizer, settings.truncate_prompts)
        if dropped:
            raise ValueError(f"no picture can be made for {text!r}: {dropped[0]['detail']}")
        seeds = candidate_seeds(self.config.seed if seed is None else seed, [text], num_images)
        text_tokens = torch.from_numpy(pad_tokens([usable[0]["text_tokens"]], networks.tokenizer.max_text_tokens))
        (image_tokens,) = sample_image_tokens(networks.transformer, text_tokens, num_images, settings, seeds)
        images = torch.cat(list(decode_batches(networks.dvae, image_tokens, settings.batch_size)))
        scores = score_candidates(networks.clip, text, torch.split(images, settings.batch_size))
        pixels = as_bytes(images)
        order = scores.argsort(descending=True, stable=True).tolist()
        return [Picture(Image.fromarray(pixels[i]), float(scores[i]), int(seeds[0, i])) for i in order]
