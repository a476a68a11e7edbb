"""What should not be trained on although it is a good pair: pictures not safe for work, and pictures with a watermark."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyConfig:
    """Who gives the safety scores. How high is too high is decided by the training set's query (`catalog.training_set=safe_pairs`)."""

    classifier: Literal["auto", "none", "zero_shot", "head"] = "auto"
    """`zero_shot` asks the CLIP whether a picture fits the prompts below or the neutral ones; `head` is a trained linear layer on its
    embeddings; `none` gives no scores; `auto` is `zero_shot` if `clip.pretrained` names published weights, else `none`. A CLIP knows
    only what it has seen: one that was trained on a small or harmless collection answers too, but what it answers means nothing."""
    nsfw_prompts: tuple[str, ...] = (
        "a pornographic picture", "a photo of a naked person", "an explicit sexual picture", "a picture of gore and violence",
    )  # fmt: skip
    """What pictures that are not safe for work are called."""
    watermark_prompts: tuple[str, ...] = (
        "a picture with a watermark", "a stock photo with a watermark across it", "a preview picture with a company's name written over it",
    )  # fmt: skip
    """What pictures with a watermark are called."""
    neutral_prompts: tuple[str, ...] = ("a photo", "a picture of an object", "a photo of people", "a landscape", "a drawing", "a logo")
    """What all other pictures are called."""
    head: str = ""
    """`head` only: a safetensors file with `weight` [2, E] and `bias` [2], rows NSFW and watermark, E the width of the CLIP's embedding."""

    def __post_init__(self) -> None:
        for field in ("nsfw_prompts", "watermark_prompts", "neutral_prompts"):
            if not getattr(self, field):
                raise ValueError(f"safety.{field} is empty; give at least one prompt")
        if (self.classifier == "head") != bool(self.head):
            raise ValueError(
                f"safety.classifier={self.classifier} and safety.head={self.head!r} do not fit together; set both to use a trained head"
            )
