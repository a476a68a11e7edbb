"""How pictures are sampled, reranked and judged."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from dalle_datasets.ranges import MANY, check_ranges
from dalle_datasets.store.identity import LATER

TRAIN, RERANKER = "train", "reranker"
"""Values of `evaluate.evaluator` beside the names of published CLIPs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Sampling image tokens (section 2.6)."""

    num_images: int = 512
    """Candidates per prompt (N)."""
    temperature: float = 1.0
    """Divides the logits; 1 in the paper."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this much probability; 1 keeps all."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is plain sampling. Needs train_transformer.caption_dropout > 0."""
    batch_size: int = 64
    """Candidates decoded side by side."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of weights, keys and values;
    the residual stream is float32 either way. In bf16 a picture can be made again only with the same
    num_images and batch_size: another shape of batch rounds differently. `auto` is bf16 on a GPU, elsewhere if it is measured to be
    faster; then another machine may round differently, too."""
    image_format: str = "png"
    """png, webp or jpeg."""
    image_prompt_share: float = 15 / 32
    """Share of the token rows, from the top, that a prompt's picture fixes; the paper completes from 15 rows of 32."""
    truncate_prompts: bool = False
    """Cut prompts that are longer than the text positions, instead of leaving them out with a reason."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"sampling.temperature={self.temperature} must be positive; for nearly greedy sampling use 0.01")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k={self.top_k} must be 0 (all) or positive")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p={self.top_p} must be in (0, 1]")
        if not 0 < self.image_prompt_share < 1:
            raise ValueError(
                f"sampling.image_prompt_share={self.image_prompt_share} must be in (0, 1): something is given, something is left to make"
            )
        if self.image_format not in ("png", "webp", "jpeg"):
            raise ValueError(f"sampling.image_format={self.image_format!r} is not one of 'png', 'webp', 'jpeg'")
        check_ranges(
            self, num_images=(1, 100_000_000), temperature=(1e-3, 1e3), top_k=(0, 65_536), top_p=(1e-6, 1), guidance=(-1e3, 1e3),
            batch_size=(1, 1_000_000), image_prompt_share=(1e-3, 0.999),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What is judged, and by which CLIP."""

    num_prompts: int = 64
    """Prompts of each set: the demo's training captions, unseen scenes, held-out object-colour pairs;
    captions of validation pairs."""
    num_shown: int = 16
    """Prompts of each set whose best picture the gallery shows."""
    evaluator: str = dataclasses.field(default=RERANKER, metadata=LATER)
    """CLIP that measures the pictures. `train` trains a second one from another seed, which costs what the
    first did; `MODEL/TAG` of open_clip or `local-dir:PATH` is a published one. `reranker` is the CLIP that
    chose the pictures, whose figures are too good to be true; with it the demo's scenes are left to the
    checker alone."""

    def __post_init__(self) -> None:
        if self.evaluator not in (TRAIN, RERANKER) and "/" not in self.evaluator:
            raise ValueError(
                f"evaluate.evaluator={self.evaluator!r} is not one of {TRAIN}, {RERANKER}, MODEL/TAG of open_clip, local-dir:PATH"
            )
        check_ranges(self, num_prompts=(1, MANY), num_shown=(1, MANY))
