"""Python API for drawing: a prompt in, candidates in CLIP's order out. Nothing is written.

`dalle generate` keeps everything it makes with its lineage; this is for notebooks and other programs. A picture is the same,
pixel by pixel, as the one that the job makes from the same networks, settings, prompt and seed.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dalle_datasets.images import decode_image
from dalle_datasets.loading.image_batches import MAX_PIXELS, centre
from dalle_datasets.loading.token_batches import pad_tokens
from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.layout import open_data_root
from dalle_datasets.texts.captions import clean_caption
from dalle_model.clip import Clip
from dalle_model.config.generation import SamplingConfig
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.pixels import as_bytes, as_floats, round_to_bytes
from dalle_model.precision import Precision, faster_precision
from dalle_model.prompt_checks import sort_out
from dalle_model.sampling.generate import FREE, candidate_seeds, sample_image_tokens
from dalle_model.sampling.rerank import embed_candidates, load_scorer, ranks, score_embeddings
from dalle_model.text import BpeTokenizer
from dalle_model.training.parallel import own_device
from dalle_model.transformer import DALLETransformer, load_transformer
from dalle_model.transformer.cache import ImageDecoder, prefill
from dalle_model.weights import CONFIG

NETWORKS = ("transformer", "dvae", "clip", "tokenizer")
"""What takes part in making a picture, as inputs name it."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Everything that takes part in making a picture."""

    tokenizer: BpeTokenizer
    transformer: DALLETransformer
    dvae: DVAE
    clip: Clip


@dataclass(frozen=True, slots=True)
class Picture:
    """One candidate."""

    image: Image.Image
    clip_score: float
    """Cosine similarity with the prompt, in [-1, 1]."""
    seed: int
    """What made this candidate different from the others."""
    candidate: int = 0
    """Its number among the candidates, in the order they were drawn."""
    image_tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)
    """[num_image_tokens]."""
    image_embedding: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32), repr=False, compare=False)
    """What CLIP sees in it: [E], of unit length."""


@dataclass(frozen=True, slots=True)
class Growing:
    """Pictures that are being drawn: what there is of them."""

    candidates: list[int]
    """Their numbers among all candidates."""
    num_rows: int
    """Rows of tokens that are drawn."""
    upper: NDArray[np.uint8]
    """[C, h, W, 3]: the upper part of each, as the dVAE shows it while the rest is missing."""


OnGrowth = Callable[[Growing], None]
PREVIEW_SHARE, PREVIEW_S = 0.3, 1.0
"""Share of the time that decoding unfinished pictures may take, and seconds that it may in any case; rows beyond it are drawn unseen."""


class Generator:
    """Loaded networks, ready for any number of prompts."""

    def __init__(self, networks: Networks, sampling: SamplingConfig, seed: int) -> None:
        self.networks, self.sampling, self.seed = networks, sampling, seed

    @classmethod
    def open(cls, config: Config, inputs: Mapping[str, str]) -> Self:
        """The networks of a data root.

        `inputs` are those of the job `generate_images`: paths and ids of the networks; `flows.api.open_generator` finds them.
        Raises `ValueError` when a network is missing or damaged, or when they do not belong together.
        """
        root = open_data_root(config.paths.data_root).root
        directories = {kind: find_network(root, kind, inputs) for kind in NETWORKS}
        return cls(load_networks(directories, inputs, config.sampling.precision), config.sampling, config.seed)

    def draw(
        self,
        prompt: str,
        num_images: int | None = None,
        seed: int | None = None,
        upper_rows_of: bytes | None = None,
        on_growth: OnGrowth | None = None,
    ) -> list[Picture]:
        """Candidates for a prompt, the best by CLIP first; `sampling.num_images` of them, from the generator's seed, if not given.

        `upper_rows_of` is a picture file whose upper `sampling.image_prompt_share` all candidates keep. `on_growth` is shown the
        candidates while they grow, which changes nothing; what it raises ends the drawing.

        Raises `ValueError` for a number below 1, for a picture that cannot be read, and for a prompt without text, or with more than
        the transformer reads unless `sampling.truncate_prompts`.
        """
        settings, networks = self.sampling, self.networks
        num_images = settings.num_images if num_images is None else num_images
        if num_images < 1:
            raise ValueError(f"num_images={num_images} must be at least 1")
        text = clean_caption(prompt)
        row = {"prompt_id": prompt_id(text), "prompt": text, "image": upper_rows_of}
        usable, dropped = sort_out([row], networks.tokenizer, settings.truncate_prompts)
        if dropped:
            raise ValueError(f"no picture can be made for {text!r}: {dropped[0]['detail']}")
        seeds = candidate_seeds(self.seed if seed is None else seed, [text], num_images)
        text_tokens = torch.from_numpy(pad_tokens([usable[0]["text_tokens"]], networks.tokenizer.max_text_tokens))
        known = known_image_tokens(upper_rows_of, networks.dvae, settings.image_prompt_share)[None]
        watch = on_growth and Preview(networks.dvae, on_growth).show
        (image_tokens,) = sample_image_tokens(networks.transformer, text_tokens, num_images, settings, seeds, known, on_row=watch)
        images = torch.cat(list(decode_batches(networks.dvae, image_tokens, settings.batch_size)))
        embeddings = embed_candidates(networks.clip, torch.split(images, settings.batch_size))
        scores = score_embeddings(networks.clip, text, embeddings)
        pixels, tokens = as_bytes(images), image_tokens.cpu().numpy()
        return [
            Picture(Image.fromarray(pixels[i]), float(scores[i]), int(seeds[0, i]), i, tokens[i], embeddings[i].numpy())
            for i in ranks(scores).argsort().tolist()
        ]


class Preview:
    """Decode pictures that are still growing, as often as `PREVIEW_SHARE` and `PREVIEW_S` allow."""

    def __init__(self, dvae: DVAE, on_growth: OnGrowth) -> None:
        self._dvae, self._on_growth = dvae, on_growth
        self._started, self._spent_s = time.monotonic(), 0.0

    def show(self, candidates: Tensor, tokens: Tensor) -> None:
        """Show the rows [1, C, i] of one caption's candidates. The rows below repeat the last one: the decoder sees a little beyond."""
        now = time.monotonic()
        config = self._dvae.config
        num_rows = tokens.shape[2] // config.image_grid_size
        if self._spent_s > max(PREVIEW_S, PREVIEW_SHARE * (now - self._started)):
            return
        drawn = tokens[0].view(-1, num_rows, config.image_grid_size)
        rest = drawn[:, -1:].expand(-1, config.image_grid_size - num_rows, -1)
        with torch.inference_mode():
            images = self._dvae.decode_tokens(torch.cat((drawn, rest), 1).flatten(1))
        height = num_rows * config.image_size // config.image_grid_size
        self._on_growth(Growing(candidates.tolist(), num_rows, as_bytes(images[:, :, :height])))
        self._spent_s += time.monotonic() - now


def find_network(root: Path, kind: str, inputs: Mapping[str, str]) -> Path:
    """The folder of a network under a data root. Raises `ValueError` when it is not there."""
    if kind not in inputs:
        raise ValueError(f"input {kind!r} is missing; give the path of the {kind}")
    if not (path := root / inputs[kind]).exists():
        raise ValueError(f"{kind} = {path} does not exist; run the stage that makes it, or correct the path")
    return path


def load_networks(directories: Mapping[str, Path], ids: Mapping[str, str], precision: Precision) -> Networks:
    """Read the checkpoints of `NETWORKS` and check them against `ids` ("dvae_id" and so on).

    Raises `ValueError` when one is missing or damaged, or when they do not belong together.
    """
    device = own_device()
    for kind in NETWORKS:
        about = directories[kind] / CONFIG
        found = json.loads(about.read_text())["id"] if about.exists() else None
        if found is not None and found != ids[f"{kind}_id"]:
            wanted = ids[f"{kind}_id"]
            raise ValueError(f"{about.parent} is {kind} {found}, but the run asks for {kind} {wanted}; correct the path or the id")
    made_from = {name: ids[name] for name in ("dvae_id", "tokenizer_id")}
    clip = load_scorer(directories["clip"])
    clip.network.to(device)
    return Networks(
        tokenizer=BpeTokenizer.load(directories["tokenizer"]),
        transformer=hold_in(load_transformer(directories["transformer"], made_from).to(device), precision),
        dvae=load_dvae(directories["dvae"]).to(device),
        clip=clip,
    )


def hold_in(model: DALLETransformer, precision: Precision) -> DALLETransformer:
    """The model ready to sample with weights of this type; for `auto` of the one that is faster here."""
    if precision == "auto":
        device = model.image_head.weight.device
        held = {"fp32": model, "bf16": copy.deepcopy(model).hold_weights_in(torch.bfloat16)}
        return held.get(faster_precision(lambda kind: _sample_a_little(held[kind]), device), model)
    return model.hold_weights_in(torch.bfloat16 if precision == "bf16" else torch.float32)


@torch.inference_mode()
def _sample_a_little(model: DALLETransformer) -> None:
    """Some steps of eight pictures."""
    device, num_images = model.image_head.weight.device, 8
    text = torch.zeros(1, model.stream.max_text_tokens, dtype=torch.int64, device=device)
    decoder = ImageDecoder(model, prefill(model, text), num_images)
    for position in range(min(8, model.stream.num_image_tokens - 1)):
        decoder.next_logits(torch.zeros(1, num_images, dtype=torch.int64, device=device), position)


def known_image_tokens(image: bytes | None, dvae: DVAE, share: float) -> Tensor:
    """int64 [num_image_tokens]: the tokens of the upper rows of a prompt's picture, `FREE` for all that is to be made."""
    config = dvae.config
    known = torch.full((config.num_image_tokens,), FREE)
    if image is not None:
        pixels = centre(np.asarray(decode_image(image, MAX_PIXELS)), config.image_size, np.random.default_rng(0))
        num_known = max(1, round(share * config.image_grid_size)) * config.image_grid_size
        images = as_floats(torch.tensor(pixels).permute(2, 0, 1)[None])
        known[:num_known] = dvae.tokenize(images.to(next(dvae.parameters()).device))[0, :num_known].cpu()
    return known


def decode_batches(dvae: DVAE, tokens: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Pictures [B, 3, H, W] of tokens [N, num_image_tokens], rounded to the 256 levels that a file keeps."""
    for start in range(0, len(tokens), batch_size):
        yield round_to_bytes(dvae.decode_tokens(tokens[start : start + batch_size]))
