"""How much of what a transformer knows it learned by heart, in a sentence or two: the first thing to know of a model."""

from collections.abc import Mapping
from typing import Any

from dalle_model.diagnosis.memory import judge, learned_by_heart

ADVICE = {
    "healthy": "",
    "look": "That is more than usual: more pairs, a smaller transformer or transformer.dropout would help.",
    "wrong": "It will mostly repeat what it saw: more pairs, a smaller transformer or transformer.dropout would help.",
}


def describe_memory(transformer: Mapping[str, Any]) -> str:
    """What the result of `train_transformer` says about it; its own words where nothing was kept apart."""
    unseen = transformer.get("validation_image_loss")
    if unseen is None:
        return "Nobody knows how much was learned by heart: no pair was kept apart for validation (filter.validation_share)."
    learned = transformer.get("learned_image_loss", transformer.get("image_loss"))
    if learned is None:
        return ""
    said = [f"An image token costs {learned:.2f} nats for a picture it was trained on and {unseen:.2f} for one that was kept apart."]
    entropy = transformer.get("image_entropy")  # trainings of an earlier edition did not keep it
    share = None if entropy is None else learned_by_heart(entropy, learned, unseen)
    if entropy is not None:
        known = f"{entropy:.2f} would be knowing only how often each token occurs"
        said = [f"Nothing learned yet: {known}.", *said] if share is None else [f"Learned by heart: {share:.0%}.", *said, f"({known}.)"]
    kept, made = transformer.get("kept_step"), transformer.get("num_steps")
    if kept is not None and made is not None and kept < made:
        said.append(f"Validation was best at update {kept:,} of {made:,}, and those weights are kept.")
    if (new := transformer.get("validation_unseen_share")) is not None:
        said.append(_about_captions(new, transformer.get("validation_unseen_image_loss")))
    if share is not None and (advice := ADVICE[judge(share)]):
        said.append(advice)
    return " ".join(said)


def _about_captions(share: float, loss: float | None) -> str:
    if not share or loss is None:
        return "Every caption that was kept apart occurs in training, too, so nothing is known about new captions."
    if share == 1:
        return "No caption that was kept apart occurs in training."
    return f"{share:.0%} of those kept apart have captions that training never saw: {loss:.2f} nats."
