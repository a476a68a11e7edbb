"""What the playground asks of the model: pictures that grow, a picture through the dVAE, embeddings. Only the line's thread calls it."""

import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dalle_datasets.images import decode_image
from dalle_datasets.loading.image_batches import centre
from dalle_model.config.generation import SamplingConfig
from dalle_model.config.parsing import with_overrides
from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor
from dalle_model.generated.image_files import png_with_origin
from dalle_model.generator import Generator, Growing, Picture
from flows.app.line import Tell

MAX_IMAGES = 64
"""Candidates of one request."""
MAX_PROMPT = 2_000
MAX_UPLOAD_PIXELS = 40_000_000
NUM_KEPT = 512
"""Pictures drawn lately that can still be asked about."""
MAX_LOSSLESS_SIDE = 64
SETTINGS = ("temperature", "top_k", "top_p", "guidance", "image_prompt_share")
"""What a visitor may change of `sampling`."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a visitor asks for, checked."""

    prompt: str
    num_images: int
    seed: int
    settings: Mapping[str, float]
    upper_rows_of: bytes | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture that was drawn here, with what its lineage is made of."""

    picture: Picture
    prompt: str
    rank: int
    seed: int
    sampling: SamplingConfig
    is_completed: bool
    origin: Mapping[str, str | int] = field(default_factory=dict)


class Studio:
    """A generator with the pictures it drew lately. `ids` are those of its networks, `seen` what they learned from."""

    def __init__(self, generator: Generator, ids: Mapping[str, str], seen: Sequence[Mapping[str, Any]] = ()) -> None:
        self.generator, self.ids = generator, dict(ids)
        self.learned_from = [[f"{record['role']} learned from", _learned(record)] for record in seen]
        self._kept: OrderedDict[str, Drawn] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """Sizes and settings for the page."""
        networks, sampling = self.generator.networks, self.generator.sampling
        dvae = networks.dvae.config
        return {
            "image_size": dvae.image_size,
            "grid": dvae.image_grid_size,
            "codebook_size": dvae.codebook_size,
            "max_text_tokens": networks.tokenizer.max_text_tokens,
            "parameters": sum(weights.numel() for weights in networks.transformer.parameters()),
            "seed": self.generator.seed,
            "max_images": MAX_IMAGES,
            **{name: getattr(sampling, name) for name in SETTINGS},
        }

    def draw(self, asked: Drawing, tell: Tell) -> None:
        """Draw candidates: events `rows` while they grow, then `ranked`."""
        generator = self.generator
        sampling = with_overrides(generator.sampling, asked.settings)
        started = time.monotonic()
        grid = generator.networks.dvae.config.image_grid_size

        def on_growth(growing: Growing) -> None:
            sheet = growing.upper.reshape(-1, *growing.upper.shape[2:])  # one above the other: one file, cut by the page
            tell({"event": "rows", "candidates": growing.candidates, "rows": growing.num_rows, "of": grid, "sheet": as_url(sheet)})

        drawer = Generator(generator.networks, sampling, generator.seed)
        pictures = drawer.draw(asked.prompt, asked.num_images, asked.seed, asked.upper_rows_of, on_growth)
        ranked = []
        for rank, picture in enumerate(pictures, 1):
            origin: dict[str, str | int] = {"prompt": asked.prompt, "seed": picture.seed, **self.ids}
            drawn = Drawn(picture, asked.prompt, rank, asked.seed, sampling, asked.upper_rows_of is not None, origin)
            png = base64.b64encode(png_with_origin(np.asarray(picture.image), origin)).decode()
            ranked.append(
                {
                    "id": self._keep(drawn),
                    "candidate": picture.candidate,
                    "score": picture.clip_score,
                    "src": f"data:image/png;base64,{png}",
                }
            )
        tell({"event": "ranked", "pictures": ranked, "seconds": time.monotonic() - started})

    def find(self, picture_id: str) -> Drawn:
        """A picture that was drawn lately. Raises `ValueError` when it is not known any more."""
        if picture_id not in self._kept:
            raise ValueError(f"this picture is not known any more (the last {NUM_KEPT} are); draw it again with its seed")
        return self._kept[picture_id]

    def tokenize(self, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[int]]:
        """The centred square of a picture file, what its tokens make of it, and the tokens. Raises `ImageError`."""
        dvae = self.generator.networks.dvae
        square, images = self._read(data)
        tokens = dvae.tokenize(images)
        return square, as_bytes(dvae.decode_tokens(tokens))[0], tokens[0].tolist()

    def _read(self, data: bytes) -> tuple[NDArray[np.uint8], Tensor]:
        """The centred square of a picture file [H, W, 3], and the same as the networks take it, float [1, 3, H, W]. Raises `ImageError`."""
        dvae = self.generator.networks.dvae
        square = centre(np.asarray(decode_image(data, MAX_UPLOAD_PIXELS)), dvae.config.image_size, np.random.default_rng(0))
        return square, as_floats(as_tensor(square[None].copy())).to(next(dvae.parameters()).device)

    def reconstruct(self, data: bytes, tell: Tell) -> None:
        """A picture through the dVAE: the event `tokens`."""
        square, rebuilt, tokens = self.tokenize(data)
        error = np.square((square.astype(np.float64) - rebuilt) / 255).mean()
        grid = self.generator.networks.dvae.config.image_grid_size
        psnr = -10 * float(np.log10(max(error, 1e-10)))
        tell({"event": "tokens", "original": as_url(square), "rebuilt": as_url(rebuilt), "tokens": tokens, "grid": grid, "psnr": psnr})

    def embed_text(self, text: str) -> list[float]:
        """What CLIP makes of a text, [E]. Raises `ValueError` for a text without words."""
        if not text.strip():
            raise ValueError("say what the pictures should show")
        embedding: list[float] = self.generator.networks.clip.encode_texts([text])[0].float().cpu().tolist()
        return embedding

    def embed_picture(self, data: bytes) -> list[float]:
        """What CLIP sees in a picture file, [E]. Raises `ImageError`."""
        _, images = self._read(data)
        with torch.inference_mode():
            embedding: list[float] = self.generator.networks.clip.encode_images(images)[0].float().cpu().tolist()
        return embedding

    def _keep(self, drawn: Drawn) -> str:
        picture_id = secrets.token_hex(8)
        self._kept[picture_id] = drawn
        while len(self._kept) > NUM_KEPT:
            self._kept.popitem(last=False)
        return picture_id


def read_drawing(body: Mapping[str, Any], defaults: Generator, image: bytes | None) -> Drawing:
    """A visitor's wishes. Raises `ValueError` for what is out of range or no number."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("say what the picture should show")
    if len(prompt) > MAX_PROMPT:
        raise ValueError(f"the caption has {len(prompt):,} characters; {MAX_PROMPT:,} are read at most")
    num_images = whole_number(body, "num_images", 16, 1, MAX_IMAGES)
    seed = whole_number(body, "seed", defaults.seed, 0, 2**53)
    settings = {name: body[name] for name in SETTINGS if body.get(name) is not None}
    if strange := [name for name, value in settings.items() if isinstance(value, bool) or not isinstance(value, int | float)]:
        raise ValueError(f"{strange[0]} must be a number")
    with_overrides(defaults.sampling, settings)  # says what is out of range before anybody waits
    return Drawing(prompt, num_images, seed, settings, image)


def _learned(record: Mapping[str, Any]) -> str:
    """What a network learned from, on one line."""
    pairs = f"{record['num_pairs']:,} pairs" if record["num_pairs"] is not None else "pairs that nobody counted"
    return f"{pairs} of {', '.join(record['sources']) or 'a source without a name'} (run {record['run_id']})"


def whole_number(body: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A number of a request. Raises `ValueError` unless it is whole and within the bounds."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
    return value


def as_url(pixels: NDArray[np.uint8]) -> str:
    """Pixels [H, W, 3] as a `data:` URL: exact if small, else JPEG, as it is to be looked at for a second."""
    buffer = BytesIO()
    if pixels.shape[1] <= MAX_LOSSLESS_SIDE:
        kind = "png"
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    else:
        kind = "jpeg"
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
