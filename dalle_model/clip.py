"""open_clip behind one small interface: build or import, train, save, load, encode, compare.

CLIP judges pairs (how well does a caption fit its picture?) and reranks generated candidates (section 2.6). It may be a
published open_clip model or a small one trained here on our pairs with our BPE. A `Clip` always has weights that mean
something: only `build_clip`, which training starts from, makes random ones.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle_model.config.model import ClipConfig
from dalle_model.config.start import check_sizes
from dalle_model.training.fitting import fit_weights
from dalle_model.weights import load_start, load_weights, save_weights

# Shapes: B pictures, N candidates, P captions, E embedding, S side of the picture the network sees.

MAX_LOG_SCALE = math.log(100)  # as in CLIP: a sharper softmax makes training unstable
TOKENIZER_DIR = "tokenizer"


class CaptionTokenizer(Protocol):
    """What CLIP needs of `dalle_model.text.BpeTokenizer` (the two packages do not import each other)."""

    id: str
    max_text_tokens: int

    @property
    def vocab_size(self) -> int: ...

    def encode(self, captions: list[str], dropout: float = 0.0, seed: int = 0) -> list[list[int]]: ...

    def save(self, directory: Path) -> None: ...

    def begins_with(self, tokenizer_id: str, vocab_size: int) -> bool: ...

    def spelled(self, first_new: int) -> list[list[int]]: ...


@dataclass(frozen=True, slots=True)
class Clip:
    """A network with what it takes to use it: how pictures and captions become its input, and its identity."""

    id: str
    """12 hex digits of configuration and weights; empty while it is being trained."""
    network: nn.Module
    """open_clip's model."""
    about: Mapping[str, Any]
    """What a checkpoint stores: open_clip's `model_cfg` and `preprocess_cfg`, and which tokenizer."""
    tokenizer: CaptionTokenizer | None
    """Our BPE, or None for open_clip's own tokenizer."""
    tokenize: Callable[[list[str]], Tensor]
    """Captions to int64 [P, context length]."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def prepare_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] as the network takes them: [B, 3, S, S], the middle square, resized, normalised."""
        size, mean, std = (self.about["preprocess_cfg"][name] for name in ("size", "mean", "std"))
        height, width = images.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
        if side != size:
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Tensor:
        """Embeddings [B, E] of unit length of pictures [B, 3, H, W] in [0, 1]. Raises `ValueError` when they are not numbers."""
        return self._checked(cast(Any, self.network).encode_image(self.prepare_images(images.to(self.device)), normalize=True))

    @torch.inference_mode()
    def encode_texts(self, captions: list[str]) -> Tensor:
        """Embeddings [P, E] of unit length. Captions longer than the network's context keep their beginning.

        Raises `ValueError` when they are not numbers.
        """
        return self._checked(cast(Any, self.network).encode_text(self.tokenize(captions).to(self.device), normalize=True))

    def _checked(self, embeddings: Tensor) -> Tensor:
        if not embeddings.isfinite().all():
            raise ValueError(
                f"CLIP {self.id or 'in training'} gave an embedding that is not a number (NaN or infinity), which would rank at random; "
                "its weights are damaged or it did not converge: train or import the CLIP again"
            )
        return embeddings


def cosine(images: Tensor, texts: Tensor) -> Tensor:
    """Raw cosine similarity in [-1, 1] of embeddings of unit length along the last axis, broadcast over the others."""
    return (images * texts).sum(-1).clamp(-1, 1)


def build_clip(config: ClipConfig, tokenizer: CaptionTokenizer) -> Clip:
    """A small network with random weights, to be trained."""
    preprocess_cfg = {"size": config.image_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    model_cfg = _model_cfg(config, tokenizer.max_text_tokens, tokenizer.vocab_size)
    return _assemble("", {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg, "tokenizer_id": tokenizer.id}, tokenizer)


def build_network(config: ClipConfig, max_text_tokens: int, vocab_size: int) -> nn.Module:
    """The network of `build_clip` by itself, for a tokenizer of these sizes."""
    return network_of(_model_cfg(config, max_text_tokens, vocab_size))


def _model_cfg(config: ClipConfig, max_text_tokens: int, vocab_size: int) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_width,
        "vision_cfg": {
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "layers": config.vision_layers,
            "width": config.width,
            "head_width": config.head_width,
        },
        "text_cfg": {
            "context_length": max_text_tokens + 1,
            "vocab_size": vocab_size + 2,
            "layers": config.text_layers,
            "width": config.width,
            "heads": config.width // config.head_width,
        },
    }


def import_pretrained(pretrained: str) -> Clip:
    """A published model: `MODEL/TAG` of open_clip (downloaded once), or `local-dir:PATH` in open_clip's format.

    Raises `ValueError` when the weights cannot be had; there is never a random network in their place.
    """
    import open_clip

    model_cfg, name, tag = _published_configuration(pretrained)
    try:
        network = open_clip.create_model_from_pretrained(
            name, tag, return_transform=False, force_quick_gelu=model_cfg.get("quick_gelu", False)
        )
    except Exception as error:  # open_clip, huggingface_hub and torch each raise their own kinds
        raise ValueError(
            f"clip.pretrained={pretrained!r}: its weights could not be loaded ({error}); check the name, the folder and the connection"
        ) from error
    preprocess = open_clip.get_model_preprocess_cfg(network)
    size = preprocess["size"]
    about = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {
            "size": size if isinstance(size, int) else min(size),
            "mean": list(preprocess["mean"]),
            "std": list(preprocess["std"]),
        },
        "tokenizer_id": "open_clip",
        "source": pretrained,
    }
    clip = _assemble("", about, None)
    clip.network.load_state_dict(network.state_dict())
    return clip


def save_clip(directory: Path, clip: Clip) -> str:
    """Write weights, configuration and a copy of the tokenizer; returns the `clip_id`, 12 hex digits."""
    clip_id = save_weights(directory, "clip", clip.network.state_dict(), clip.about)
    if clip.tokenizer is not None:
        clip.tokenizer.save(directory / TOKENIZER_DIR)
    return clip_id


def load_clip(directory: Path, load_tokenizer: Callable[[Path], CaptionTokenizer]) -> Clip:
    """Read what `save_clip` wrote, ready for inference; needs no network connection.

    Raises `ValueError` when it is missing, of another kind or damaged, or when its tokenizer is not the one it was trained with.
    """
    about, weights, clip_id = load_weights(directory, "clip")
    tokenizer = None
    if about["tokenizer_id"] != "open_clip":
        tokenizer = load_tokenizer(directory / TOKENIZER_DIR)
        if tokenizer.id != about["tokenizer_id"]:
            raise ValueError(
                f"{directory / TOKENIZER_DIR} is tokenizer {tokenizer.id}, but this CLIP was trained with {about['tokenizer_id']}; "
                "train or import the CLIP again"
            )
    clip = _assemble(clip_id, about, tokenizer)
    fit_weights(clip.network, weights, directory, "its config.json was changed or exchanged: train or import the CLIP again")
    clip.network.eval().requires_grad_(False)
    return clip


def start_clip(directory: Path, start_id: str, config: ClipConfig, tokenizer: CaptionTokenizer) -> Clip:
    """A CLIP to be trained on, with the weights of the one in a folder. Tokens that it does not know begin as the mean of their pieces.

    Raises `ValueError` when that is not the CLIP `start_id`, is damaged, has other sizes, or reads captions with another vocabulary.
    """
    about, weights = load_start(directory, "clip", start_id)
    if about["tokenizer_id"] == "open_clip":
        raise ValueError(
            f"CLIP {start_id} reads captions with open_clip's own vocabulary, which training here does not; keep it as it is: add clip to "
            "start.frozen"
        )
    text_cfg = about["model_cfg"]["text_cfg"]
    num_old = text_cfg["vocab_size"] - 2
    if not tokenizer.begins_with(about["tokenizer_id"], num_old):
        raise ValueError(
            f"CLIP {start_id} reads captions with tokenizer {about['tokenizer_id']}; tokenizer {tokenizer.id} neither is "
            "that nor adds to it: begin from a tokenizer and a CLIP of one model"
        )
    check_sizes(f"CLIP {start_id}", _flat(about["model_cfg"]), _flat(_model_cfg(config, tokenizer.max_text_tokens, num_old)))
    clip = build_clip(config, tokenizer)
    name = "token_embedding.weight"
    if num_new := tokenizer.vocab_size - num_old:
        old = weights[name]
        new = torch.stack([old[[piece + 1 for piece in pieces]].mean(0) for pieces in tokenizer.spelled(num_old)])
        weights = {**weights, name: torch.cat([old[:-1], new, old[-1:]])}  # 0 pads, the last one ends a text
        assert len(new) == num_new
    remedy = "its config.json was changed or exchanged: train or import the CLIP again"
    fit_weights(clip.network, weights, directory, remedy)
    return replace(clip, about={**clip.about, "made_from": {"start_id": start_id}})


def _flat(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes by dotted name."""
    towers = {f"{tower}.{name}": value for tower in ("vision_cfg", "text_cfg") for name, value in model_cfg[tower].items()}
    return {"embed_dim": model_cfg["embed_dim"], **towers}


def contrastive_loss(network: nn.Module, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
    """CLIP's symmetric cross entropy over a batch of prepared pictures [B, 3, S, S] and captions [B, context length].

    Returns "loss" and the share of captions that find their picture in the batch, "batch_accuracy".
    """
    model = cast(Any, network)
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAX_LOG_SCALE)
    images_BE = model.encode_image(images, normalize=True)
    texts_BE = model.encode_text(texts, normalize=True)
    scale = model.logit_scale.exp()
    logits_per_text = scale * texts_BE @ images_BE.T
    labels = torch.arange(len(images), device=images.device)
    loss = (F.cross_entropy(logits_per_text, labels) + F.cross_entropy(logits_per_text.T, labels)) / 2
    return {"loss": loss, "batch_accuracy": (logits_per_text.argmax(1) == labels).float().mean()}


def _assemble(clip_id: str, about: Mapping[str, Any], tokenizer: CaptionTokenizer | None) -> Clip:
    """The network of a configuration, its weights still to be filled in, with its tokenizer."""
    import open_clip

    network = network_of(about["model_cfg"])
    context_length = about["model_cfg"]["text_cfg"].get("context_length", 77)
    if tokenizer is not None:
        return Clip(clip_id, network, about, tokenizer, lambda captions: _encode_captions(tokenizer, captions, context_length))
    return Clip(clip_id, network, about, None, open_clip.SimpleTokenizer(context_length=context_length))


def network_of(about: Mapping[str, Any]) -> nn.Module:
    """The network that an open_clip `model_cfg` describes, with random weights."""
    import open_clip

    model_cfg = copy.deepcopy(dict(about))
    is_custom_text = model_cfg.pop("custom_text", False) or "hf_model_name" in model_cfg["text_cfg"]
    if "timm_model_name" in model_cfg["vision_cfg"]:
        model_cfg["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in model_cfg["text_cfg"]:
        model_cfg["text_cfg"]["hf_model_pretrained"] = False
    network: nn.Module = (open_clip.CustomTextCLIP if is_custom_text else open_clip.CLIP)(**model_cfg)
    return network


def _encode_captions(tokenizer: CaptionTokenizer, captions: list[str], context_length: int) -> Tensor:
    """Ids shifted by one, since 0 pads; then end-of-text, which is the highest id because open_clip reads the caption's
    embedding at the largest id of each row."""
    tokens = torch.zeros(len(captions), context_length, dtype=torch.long)
    for row, ids in zip(tokens, tokenizer.encode(captions), strict=True):
        kept = [i + 1 for i in ids[: context_length - 1]]
        row[: len(kept) + 1] = torch.tensor([*kept, tokenizer.vocab_size + 1])
    return tokens


def _published_configuration(pretrained: str) -> tuple[dict[str, Any], str, str | None]:
    """open_clip's `model_cfg` of a `clip.pretrained` value, with the name and tag to load it by."""
    import open_clip

    if pretrained.startswith("local-dir:"):
        path = Path(pretrained.removeprefix("local-dir:")) / "open_clip_config.json"
        try:
            model_cfg = dict(json.loads(path.read_text())["model_cfg"])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"clip.pretrained={pretrained!r}: {path} is not a readable open_clip configuration ({error})") from error
        name, tag = pretrained, None
    else:
        name, _, tag = pretrained.rpartition("/")
        found = open_clip.get_model_config(name)
        if not found or not tag:
            raise ValueError(
                f"clip.pretrained={pretrained!r} is not MODEL/TAG of open_clip, e.g. 'ViT-B-32/laion2b_s34b_b79k', nor 'local-dir:PATH'; "
                "open_clip.list_pretrained() lists what there is"
            )
        tags = open_clip.list_pretrained_tags_by_model(name)
        if tag not in tags:
            raise ValueError(f"clip.pretrained={pretrained!r}: {name} has no weights {tag!r}; choose one of {', '.join(tags)}")
        model_cfg = {**found, "quick_gelu": bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", found.get("quick_gelu", False)))}
    vocab_size = open_clip.SimpleTokenizer().vocab_size
    text_cfg = model_cfg["text_cfg"]
    # open_clip would quietly encode captions with its own tokenizer, whose ids mean nothing to such a model.
    if text_cfg.get("hf_tokenizer_name") or text_cfg.get("vocab_size", vocab_size) != vocab_size or "multimodal_cfg" in model_cfg:
        raise ValueError(
            f"clip.pretrained={pretrained!r} does not use open_clip's own tokenizer ({vocab_size} ids) or is no plain CLIP; "
            "choose a CLIP with the standard text tower"
        )
    return model_cfg, name, tag
