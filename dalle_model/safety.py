"""Safety and watermark scores in [0, 1] from CLIP embeddings of pictures.

A classifier is anything that turns embeddings into the two scores and has an id; two are here. Both are as good as the CLIP behind
them. There is none for a CLIP without weights: `dalle_model.clip.load_clip` raises, and nothing here makes up a score.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from dalle_model.clip import Clip
from dalle_model.config.safety import SafetyConfig

# Shapes: B pictures, E embedding, P prompts.
SCORES = ("nsfw_score", "watermark_score")


class Classifier(Protocol):
    """Gives the scores `SCORES`."""

    @property
    def id(self) -> str:
        """12 hex digits of the CLIP and everything else that decides the scores."""
        ...

    def score(self, embeddings: Tensor) -> Tensor:
        """float32 [B, 2] in [0, 1] of image embeddings [B, E] of unit length."""
        ...


class ZeroShot:
    """Two questions to CLIP: is this picture rather like one of the prompts of a kind, or like one of the neutral ones?"""

    def __init__(self, clip: Clip, config: SafetyConfig) -> None:
        prompts = (config.nsfw_prompts, config.watermark_prompts, config.neutral_prompts)
        self.id = _identify("zero_shot", clip.id, json.dumps(prompts))
        self._scale = float(torch.as_tensor(clip.network.logit_scale).exp())
        *self._kinds, self._neutral = (clip.encode_texts(list(texts)).float().cpu() for texts in prompts)

    def score(self, embeddings: Tensor) -> Tensor:
        """Softmax over the prompts of a kind and the neutral ones at CLIP's own temperature, the two sides weighing the same.

        Each prompt answers for itself: their mean embedding, as in zero-shot classification, told kinds apart less well (RESULTS.md).
        """
        embeddings = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        neutral = self._evidence(embeddings, self._neutral)
        return torch.sigmoid(torch.stack([self._evidence(embeddings, kind) - neutral for kind in self._kinds], 1))

    def _evidence(self, embeddings: Tensor, prompts: Tensor) -> Tensor:
        """[B]: log of the mean of exp(logit) over prompts [P, E]."""
        return torch.logsumexp(self._scale * embeddings @ prompts.T, 1) - math.log(len(prompts))


class Head:
    """A linear layer that was trained on embeddings of this CLIP. Raises `ValueError` when it does not fit them."""

    def __init__(self, clip: Clip, path: Path) -> None:
        try:
            content = path.read_bytes()
            weights = load_file(path)
            self._weight, self._bias = weights["weight"].float(), weights["bias"].float()
        except Exception as error:  # safetensors has its own kinds
            raise ValueError(
                f"safety.head={path} is no safetensors file with `weight` and `bias` ({error}); correct the path or train it again"
            ) from error
        width = clip.about["model_cfg"]["embed_dim"]
        if self._weight.shape != (len(SCORES), width) or self._bias.shape != (len(SCORES),):
            raise ValueError(
                f"safety.head={path}: weight {list(self._weight.shape)} and bias {list(self._bias.shape)}, but this CLIP's embeddings need "
                f"[2, {width}] and [2]; train the head on embeddings of CLIP {clip.id}"
            )
        self.id = _identify("head", clip.id, hashlib.sha256(content).hexdigest())

    def score(self, embeddings: Tensor) -> Tensor:
        """The logistic function of the layer."""
        embeddings = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        return torch.sigmoid(embeddings @ self._weight.T + self._bias)


def load_classifier(kind: str, config: SafetyConfig, clip: Clip) -> Classifier:
    """The classifier of a kind, 'zero_shot' or 'head' (`Config.safety_classifier`). Raises `ValueError` when it is 'none'."""
    if kind == "none":
        raise ValueError(
            "safety.classifier gives no scores: it is none, or auto while clip.pretrained names no published weights; "
            "choose zero_shot or head"
        )
    return ZeroShot(clip, config) if kind == "zero_shot" else Head(clip, Path(config.head).expanduser())


def _identify(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
