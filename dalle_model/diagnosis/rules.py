"""Rules that judge a training: each compares one figure with a reference and names the likely cause and the setting.

A rule is a function of evidence alone. References are, in this order: a healthy training of the same size and data, what theory
says (entropies, chance), and the training's own past.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dalle_model.diagnosis.evidence import CopyFacts, PairFacts, TokenFacts, Training
from dalle_model.diagnosis.memory import NOTHING_LEARNED, USUAL, judge, learned_by_heart
from dalle_model.diagnosis.reference import Reference, usual_learning_rate

Verdict = Literal["healthy", "look", "wrong", "unknown"]

EARLY_STEPS = 50
"""Updates before which a curve says nothing about what will be learned."""
OTHER_RATE = 5.0
"""A step size this many times larger or smaller than the usual one is named."""
MOST_OF_FALL, HALF_OF_FALL = 0.8, 0.5
"""Shares of a reference's progress from which on a training is healthy, or not yet wrong."""
BEHIND = 0.03
"""Share of a reference's progress that a training lags behind it, from which on an unusual step size did harm."""
SURE = 3.0
"""Standard errors that an effect must be away from nothing."""
TELLS_ONE_OF = 100
"""A caption that is listened to makes its picture more likely by the logarithm of this: it tells the right one of so many."""
FEW_PASSES = 3.0
"""Passes over the data before which captions may not have been understood yet."""
LEAK_SHARE = 0.01
"""Share of validation pictures that may occur in training, by way of two identical drawings, before validation is worthless."""
MUCH_ALIKE = 0.1
"""Share of validation pictures that may have the tokens of a training picture with another caption: two drawings that differ by little."""
MUCH_WAITING = 0.3
"""Share of time spent waiting for data that is worth a change."""
PAPER_KL_WEIGHT = 6.6


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    subject: str
    """A run, or "pairs"."""
    what: str
    measured: str
    reference: str
    """What it was compared with."""
    verdict: Verdict
    cause: str = ""
    """The likely cause; empty when healthy."""
    remedy: str = ""
    """The setting to change, as it is typed, or what to do."""


def diagnose_training(
    training: Training,
    reference: Reference | None,
    pairs: PairFacts | None = None,
    tokens: TokenFacts | None = None,
    captions_fit: bool | None = None,
) -> list[Check]:
    """All checks of one training. `captions_fit`: whether a CLIP found pictures by their captions, None if unknown."""
    if training.job == "train_dvae" and training.settings.imported:
        return [check for check in (codes_in_use(training, reference),) if check]
    if training.job == "train_clip" and training.config.clip.pretrained:
        return []  # nothing was trained
    learning: list[Check | None]
    others: list[Check | None] = []
    match training.job:
        case "train_dvae":
            learning = [codes_in_use(training, reference), reconstruction(training, reference)]
        case "train_clip":
            learning = [captions_found(training, reference, pairs)]
        case _:
            learning = [image_bits(training, reference, tokens), text_bits(training, reference, tokens)]
            learning.append(caption_use(training, tokens, captions_fit))
            others = [memory(training, tokens), leak_of_tokens(training, tokens)]
    is_ill = any(check is not None and check.verdict == "wrong" for check in learning) or is_behind(training, reference)
    others += [loss_turned(training), gradients(training, reference), step_size(training, reference, is_ill), data_wait(training)]
    return [check for check in (progress(training), *learning, *others) if check is not None]


# What every training has.


def progress(training: Training) -> Check:
    """How far it is, and whether it goes on."""
    said = (training.run_id, "updates", f"{training.num_steps:,} of {training.settings.max_steps:,}", training.state)
    if training.state == "stopped":
        return Check(*said, "look", "it was interrupted, or has not begun", "the same command again goes on where it was")
    if training.state == "failed":
        return Check(*said, "wrong", "it ended with an error", f"read error.txt and log.txt in runs/{training.run_id}")
    return Check(*said, "healthy")


def step_size(training: Training, reference: Reference | None, is_ill: bool) -> Check:
    """The peak step size against the usual one; wrong when it is far off and the network does not learn as it should."""
    usual, whose = usual_learning_rate(training, reference)
    said = (training.run_id, "step size", f"{training.settings.learning_rate:g} at its peak", f"{usual:g} of {whose}")
    other = other_step_size(training, reference)
    if other is None:
        return Check(*said, "healthy")
    return Check(*said, "wrong" if is_ill or training.has_failed_batch else "look", *other)


def other_step_size(training: Training, reference: Reference | None) -> tuple[str, str] | None:
    """By how much the step size differs from the usual one, and the setting; None when it does not."""
    usual, whose = usual_learning_rate(training, reference)
    ratio = training.settings.learning_rate / usual
    if 1 / OTHER_RATE < ratio < OTHER_RATE:
        return None
    times = f"{ratio:.3g} times" if ratio > 1 else f"a {1 / ratio:.3g}th of"
    return f"the step size is {times} that of {whose}", f"--set {training.job}.learning_rate={usual:g}"


def is_behind(training: Training, reference: Reference | None) -> bool:
    """Whether a loss on validation pairs is clearly above that of a reference which learned from the same data, at the same update."""
    if reference is None or not reference.is_of_same_data(training.config):
        return False
    for name in ("loss", "text_loss", "image_loss"):
        points = training.points(name)
        if points and points[-1][0] >= EARLY_STEPS:
            first, expected = reference.at(name, 0), reference.at(name, points[-1][0])
            if first is not None and expected is not None and points[-1][1] - expected > BEHIND * (first - expected):
                return True
    return False


def gradients(training: Training, reference: Reference | None) -> Check | None:
    """The norm of the gradient near the end against a reference, or against the training's own middle; and whether it stayed a number."""
    what = "gradient norm"
    cause, remedy = cause_of_unlearning(training, reference)
    if training.has_failed_batch and training.state != "done":
        return Check(training.run_id, what, "loss or gradient became no number", "finite numbers", "wrong", cause, remedy)
    points = training.gradient_norms()
    if len(points) < 4 or training.num_steps < EARLY_STEPS:
        return Check(training.run_id, what, f"{len(points)} lines logged", "", "unknown", _early(training)) if points else None
    last = statistics.median(value for _, value in points[-max(1, len(points) // 4) :])
    expected = reference.at("gradient_norm", points[-1][0], "train") if reference else None
    if expected is not None and reference is not None:
        against = f"{expected:.3g} of {reference.name} at update {points[-1][0]:,}"
    else:
        expected = statistics.median(value for _, value in points[len(points) // 4 : len(points) // 2])
        against = f"{expected:.3g} in the second quarter of this training"
    spikes = f", {training.num_spikes} spikes kept" if training.num_spikes else ""
    measured = f"{last:.3g} in the last quarter{spikes}"
    if last == 0:
        return Check(training.run_id, what, measured, against, "wrong", "no gradient reaches the weights", cause)
    if last > 10 * expected:
        return Check(training.run_id, what, measured, against, "wrong" if last > 100 * expected else "look", cause, remedy)
    if training.num_spikes >= 8:
        remedy = f"look into spikes/ of the run; --set {training.job}.skip_spikes=true leaves such updates out"
        return Check(training.run_id, what, measured, against, "look", "some batches are far from the others", remedy)
    return Check(training.run_id, what, measured, against, "healthy")


def data_wait(training: Training) -> Check | None:
    """The share of time spent waiting for data."""
    shares = [value for _, value in training.speed.get("data_wait_share", ())]
    if not shares:
        return None
    share = statistics.median(shares)
    said = (training.run_id, "waiting for data", f"{share:.1%} of the time", f"less than {MUCH_WAITING:.0%}")
    if share < MUCH_WAITING:
        return Check(*said, "healthy")
    remedy = (
        "--set train_dvae.decode_threads=4"
        if training.job == "train_dvae"
        else "keep the data root on a local disk, or use fewer processes"
    )
    return Check(*said, "look", "reading and decoding is slower than the network", remedy)


def loss_turned(training: Training) -> Check | None:
    """Whether the validation loss rose again, and which weights were kept."""
    points = training.points("loss")
    is_annealing = training.job == "train_dvae" and training.state != "done"  # validation may get worse for a while
    if len(points) < 3 or training.num_steps < EARLY_STEPS or is_annealing:
        return None
    (best_step, best), (step, now) = min(points, key=lambda point: point[1]), points[-1]
    fall = points[0][1] - best
    worse = (now - best) / fall if fall > 0 else 0.0
    said = (
        training.run_id,
        "validation loss",
        f"{now:.3g} now, {best:.3g} at its best",
        f"its own best, at update {best_step:,} of {step:,}",
    )
    if fall <= 0:
        cause, remedy = cause_of_unlearning(training, None)
        return Check(*said, "wrong", f"it never fell; {cause}", remedy)
    if worse < 0.05:
        return Check(*said, "healthy")
    cause = f"after update {best_step:,} it learned by heart: {worse:.0%} of what validation had gained is lost"
    more = "more pairs" if training.job != "train_transformer" else "more pairs, or --set transformer.dropout=0.1"
    if training.settings.keep_weights == "best":
        return Check(*said, "look", f"{cause}; the weights of update {best_step:,} are kept", more)
    return Check(*said, "wrong" if worse > 0.25 else "look", cause, f"--set {training.job}.keep_weights=best")


def cause_of_unlearning(training: Training, reference: Reference | None) -> tuple[str, str]:
    """The likely cause why a network did not learn, and what to change."""
    if other := other_step_size(training, reference):
        return other
    if training.state == "done":
        return "the step size is usual, so too few updates", f"--set {training.job}.max_steps={2 * training.settings.max_steps}"
    return "the step size is usual, so it needs time", "look again when it has made more updates"


# The dVAE.


def codes_in_use(training: Training, reference: Reference | None) -> Check | None:
    """How many codes validation pictures use, and how evenly: a collapsed codebook leaves the transformer nothing to draw with."""
    used, perplexity = training.points("codes_used"), training.last("perplexity")
    if not used or perplexity is None:
        return None
    size, now, most = training.config.dvae.codebook_size, used[-1][1], max(value for _, value in used)
    measured = f"{now:.0f} of {size:,} codes, perplexity {perplexity:.1f} ({math.log2(max(1.0, perplexity)):.1f} bits a token)"
    against = f"at most {math.log2(size):.1f} bits a token"
    expected = reference.at("perplexity", used[-1][0]) if reference and reference.is_of_same_data(training.config) else None
    if expected is not None and reference is not None:
        against += f"; perplexity {expected:.1f} of {reference.name} at update {used[-1][0]:,}"
    said = (training.run_id, "codes in use", measured, against)
    is_collapsed = bool(training.last("is_collapsed"))
    if not is_collapsed and (expected is None or perplexity > expected / 3):
        if now < most / 2:
            return Check(*said, "look", f"half of the {most:.0f} codes that were in use have died", _more_codes(training))
        return Check(*said, "healthy")
    if training.num_steps < EARLY_STEPS and perplexity > training.points("perplexity")[0][1] / 2:
        return Check(*said, "unknown", _early(training))
    cause, remedy = other_step_size(training, reference) or (
        "few codes do all the work, and the others get no gradient",
        _more_codes(training),
    )
    if training.settings.kl_weight >= OTHER_RATE * PAPER_KL_WEIGHT:
        cause = (
            f"the KL term (weight {training.settings.kl_weight:g}; {PAPER_KL_WEIGHT} in the paper) makes all codes alike for the encoder"
        )
        remedy = f"--set train_dvae.kl_weight={PAPER_KL_WEIGHT}"
    return Check(*said, "wrong" if is_collapsed else "look", f"the codebook is collapsing: {cause}", remedy)


def reconstruction(training: Training, reference: Reference | None) -> Check | None:
    """PSNR of rebuilt validation pictures."""
    points = training.points("psnr")
    if not points:
        return None
    now, best = points[-1][1], max(value for _, value in points)
    expected = reference.at("psnr", points[-1][0]) if reference and reference.is_of_same_data(training.config) else None
    is_sure = expected is not None or training.state == "done"  # while it anneals it may fall below its own best for a while
    if expected is not None and reference is not None:
        against = f"{expected:.2f} dB of {reference.name} at update {points[-1][0]:,}"
    else:
        against, expected = f"{best:.2f} dB, its own best", best
    said = (training.run_id, "PSNR of validation pictures", f"{now:.2f} dB, {points[0][1]:.2f} at the start", against)
    cause, remedy = cause_of_unlearning(training, reference)
    if now < expected - 1 and training.num_steps >= EARLY_STEPS:
        return Check(*said, "wrong" if is_sure and now < expected - 3 else "look", cause, remedy)
    if training.num_steps < EARLY_STEPS:
        return Check(*said, "unknown", _early(training))
    if training.config.dvae.codebook_init == "random" and now < points[0][1] + 1:
        return Check(*said, "wrong", f"it learned nothing since the start; {cause}", remedy)
    return Check(*said, "healthy")


def _more_codes(training: Training) -> str:
    if training.config.dvae.codebook_init == "random":
        return "--set dvae.codebook_init=patch_kmeans"
    warmup = max(1, 2 * training.settings.kl_warmup_steps)
    return f"--set train_dvae.kl_warmup_steps={warmup} --set train_dvae.gumbel_temperature_start=1"


# CLIP.


def captions_found(training: Training, reference: Reference | None, pairs: PairFacts | None) -> Check | None:
    """How often CLIP finds a validation picture by its caption, against guessing."""
    accuracy = training.last("batch_accuracy")
    if accuracy is None:
        return None
    size = training.settings.microbatch_size or training.settings.batch_size
    if pairs is not None and pairs.num_validation:
        size = min(size, pairs.num_validation)
    chance = training.last("chance_accuracy") or 1 / size
    num_asked = max(pairs.num_validation if pairs else 0, round(1 / chance))
    sure = chance + SURE * math.sqrt(chance * (1 - chance) / num_asked)
    against = f"{chance:.1%} by guessing ({sure:.1%} would be sure)"
    step = training.points("batch_accuracy")[-1][0]
    expected = reference.at("batch_accuracy", step) if reference and reference.is_of_same_data(training.config) else None
    if expected is not None and reference is not None:
        against += f"; {expected:.1%} of {reference.name} at update {step:,}"
    said = (training.run_id, "pictures found by caption", f"{accuracy:.1%} of validation batches", against)
    if training.num_steps < EARLY_STEPS:
        return Check(*said, "unknown", _early(training))
    if accuracy > sure:
        if expected is not None and accuracy < HALF_OF_FALL * expected:
            return Check(*said, "look", *cause_of_unlearning(training, reference))
        return Check(*said, "healthy")
    trained = training.last("batch_accuracy", "train") or 0.0
    if trained > max(sure, 5 * chance):
        cause = (
            f"it finds {trained:.0%} of training pictures and no others: captions do not belong to their pictures, or it learned by heart"
        )
        remedy = "look at captions beside pictures (dalle report collection), and how a table joins them; else more pairs"
        return Check(*said, "wrong", cause, remedy)
    cause, remedy = "captions do not belong to their pictures, or say nothing about them", "look at them: dalle report collection"
    return Check(*said, "wrong", *(other_step_size(training, reference) or (cause, remedy)))


# The transformer.


def image_bits(training: Training, reference: Reference | None, tokens: TokenFacts | None) -> Check | None:
    """What an image token costs, against knowing nothing, and against knowing how often each occurs."""
    uniform = math.log(training.config.dvae.codebook_size)
    return _bits(training, reference, "image", uniform, tokens.image_nats if tokens else None)


def text_bits(training: Training, reference: Reference | None, tokens: TokenFacts | None) -> Check | None:
    """The same of a text token. A text loss that stands still is dead."""
    points = training.points("text_loss") or training.points("text_loss", "train")
    if points and (points[-1][1] == 0 or (tokens is not None and tokens.text_nats == 0)):
        said = (training.run_id, "bits per text token", "0", "more than 0")
        return Check(*said, "wrong", "dead text loss: captions have no tokens", "look at the captions: dalle report collection")
    return _bits(training, reference, "text", math.log(training.config.tokenizer.vocab_size), tokens.text_nats if tokens else None)


def _bits(training: Training, reference: Reference | None, kind: str, uniform: float, single: float | None) -> Check | None:
    points = training.points(f"{kind}_loss") or training.points(f"{kind}_loss", "train")
    if not points:
        return None
    (_, start), (step, now) = points[0], points[-1]
    against = f"{uniform / math.log(2):.2f} bits knowing nothing"
    if single is not None:
        against += f", {single / math.log(2):.2f} knowing how often each occurs"
    expected, share = None, 1.0
    if reference is not None and reference.is_of_same_data(training.config):
        first, expected = reference.at(f"{kind}_loss", 0), reference.at(f"{kind}_loss", step)
        if first is not None and expected is not None and first > expected:
            share = (start - now) / (first - expected)
            against += f", {expected / math.log(2):.2f} of {reference.name} at update {step:,}"
    said = (training.run_id, f"bits per {kind} token", f"{now / math.log(2):.2f}", against)
    cause, remedy = cause_of_unlearning(training, reference)
    if training.num_steps < max(EARLY_STEPS, training.settings.warmup_steps):
        return Check(*said, "unknown", _early(training))
    weight = training.settings.text_loss_weight
    if kind == "text" and weight == 0 and now > 0.9 * start:
        return Check(
            *said,
            "wrong",
            "dead text loss: its weight is 0, so no gradient comes from captions",
            "--set train_transformer.text_loss_weight=0.125",
        )
    if kind == "image" and weight == 1 and now > 0.9 * start:
        return Check(*said, "wrong", "dead image loss: text has all the weight", "--set train_transformer.text_loss_weight=0.125")
    if now > 0.9 * start:
        return Check(*said, "wrong", f"dead {kind} loss: it has not fallen since the start ({start / math.log(2):.2f}); {cause}", remedy)
    if single and now > NOTHING_LEARNED * single:
        return Check(*said, "wrong", f"it knows no more than how often each {kind} token occurs; {cause}", remedy)
    if share < MOST_OF_FALL:
        return Check(*said, "wrong" if share < HALF_OF_FALL else "look", f"{share:.0%} of what was learned there; {cause}", remedy)
    return Check(*said, "healthy")


def caption_use(training: Training, tokens: TokenFacts | None, captions_fit: bool | None) -> Check | None:
    """What a picture's own caption is worth, against another pair's: nothing where captions were shuffled, or are not listened to."""
    gain, error = training.last("caption_gain"), training.last("caption_gain_error")
    what, nothing = "worth of a picture's own caption", "0 nats where captions and pictures do not belong together"
    if gain is None or error is None:
        if not training.points("image_loss"):
            return None
        reason = "it was trained by an earlier edition, or fewer than two captions were kept apart"
        return Check(training.run_id, what, "not measured", nothing, "unknown", reason)
    of_picture, enough = gain * training.config.dvae.num_image_tokens, math.log(TELLS_ONE_OF)
    measured = f"{gain:.3g} nats an image token (standard error {error:.2g}), {of_picture:.3g} a picture"
    said = (training.run_id, what, measured, f"{nothing}; {enough:.1f} a picture tell one of {TELLS_ONE_OF}")
    is_sure = gain > SURE * error and gain > 0
    if is_sure and of_picture >= enough:
        return Check(*said, "healthy")
    if training.num_steps < max(EARLY_STEPS, training.settings.warmup_steps):
        return Check(*said, "unknown", _early(training))
    now, single = training.last("image_loss"), tokens.image_nats if tokens else None
    if now is not None and single is not None and now > NOTHING_LEARNED * single:
        return Check(*said, "unknown", "it has learned nothing about pictures yet (bits per image token)")
    passes = training.num_steps * training.settings.batch_size / tokens.num_train if tokens else 0.0
    if is_sure:
        cause = f"captions say little about their pictures, or too few updates ({passes:.1f} passes)"
        return Check(*said, "look", cause, f"--set train_transformer.max_steps={2 * training.settings.max_steps}")
    if captions_fit:
        cause = (
            f"CLIP finds pictures by these captions, so they belong together and the transformer does not listen yet ({passes:.1f} passes)"
        )
        return Check(*said, "look", cause, f"--set train_transformer.max_steps={2 * training.settings.max_steps}")
    cause = "captions do not belong to their pictures (shuffled, or joined by the wrong key), or say nothing about them"
    remedy = "look at captions beside pictures: dalle report collection; then collect anew"
    return Check(*said, "wrong" if passes >= FEW_PASSES else "look", f"{cause}; {passes:.1f} passes", remedy)


def memory(training: Training, tokens: TokenFacts | None) -> Check | None:
    """Which share of what was learned of training pictures holds for pictures that were kept apart."""
    what = "validation against training"
    seen, unseen = training.result.get("learned_image_loss") or training.last("image_loss", "train"), training.last("image_loss")
    if training.state == "done":
        unseen = training.result.get("validation_image_loss", unseen)
    if seen is None:
        return None
    if unseen is None:
        remedy = "--set filter.validation_share=0.05"
        return Check(training.run_id, what, "no pair was kept apart", "", "look", "nobody knows how much it learned by heart", remedy)
    entropy = training.result.get("image_entropy") or (tokens.image_nats if tokens else training.points("image_loss")[0][1])
    measured = f"{unseen:.3g} nats an image token kept apart, {seen:.3g} trained on"
    share = learned_by_heart(entropy, seen, unseen)
    if share is None or training.num_steps < EARLY_STEPS:
        return Check(training.run_id, what, measured, "", "unknown", "it has learned nothing yet")
    said = (training.run_id, what, measured, f"{share:.0%} of what was learned does not hold for new pictures; up to {USUAL:.0%} is usual")
    if (verdict := judge(share)) == "healthy":
        return Check(*said, verdict)
    more = (
        f"--set transformer.dropout={max(0.1, min(0.3, 2 * training.config.transformer.dropout)):g}, a smaller transformer, or more pairs"
    )
    return Check(*said, verdict, "it learns its training pictures by heart", more)


def leak_of_tokens(training: Training, tokens: TokenFacts | None) -> Check | None:
    """Whether pairs that were kept apart are training pairs."""
    if tokens is None or not tokens.num_validation:
        return None
    alike = tokens.num_same_picture / tokens.num_validation
    found = (
        f"{tokens.num_leaked:,} of {tokens.num_validation:,} are training pairs, too, token by token ({alike:.0%} of the pictures alone)"
    )
    return _leak(training.run_id, "pairs kept apart", found, tokens.num_leaked / tokens.num_validation, alike)


def _leak(subject: str, what: str, measured: str, share: float, alike: float) -> Check:
    said = (subject, what, measured, f"none; at most {MUCH_ALIKE:.0%} of the pictures alone" if alike else "none")
    if not share and alike <= MUCH_ALIKE:
        return Check(*said, "healthy")
    cause = "leaked split: validation measures what was learned by heart"
    remedy = "leave doubles out before the split (--set filter.near_duplicates=true), and collect anew"
    return Check(*said, "wrong" if share > LEAK_SHARE or alike > 0.5 else "look", cause, remedy)


# The data, and what was drawn.


def diagnose_pairs(source: str, pairs: PairFacts) -> Iterator[Check]:
    """Whether the split of a source is worth something."""
    subject = f"pairs of {source}"
    if not pairs.num_validation:
        cause, remedy = "nothing can be measured on pictures that were not trained on", "--set filter.validation_share=0.05"
        yield Check(subject, "pictures kept apart", f"none of {pairs.num_train:,}", "at least 1%", "look", cause, remedy)
        return
    found = f"{pairs.num_leaked:,} of {pairs.num_validation:,} are training pictures, too, pixel by pixel"
    yield _leak(subject, "pictures kept apart", found, pairs.num_leaked / pairs.num_validation, 0.0)
    share = pairs.num_known_captions / pairs.num_validation
    said = (subject, "captions kept apart", f"{share:.0%} of {pairs.num_validation:,} are captions of training, too", "less than all")
    if share < 1:
        yield Check(*said, "healthy")
    else:
        yield Check(*said, "look", "every caption repeats, so nothing is measured on new captions", "more, or longer, captions")


def diagnose_copies(copies: CopyFacts) -> Check:
    """How many of the pictures drawn for new captions are training pictures."""
    share = copies.num_copies / copies.num_drawn
    usual = copies.num_kept_apart_alike / copies.num_kept_apart if copies.num_kept_apart else 0.0
    error = math.sqrt(max(share * (1 - share) / copies.num_drawn + usual * (1 - usual) / max(1, copies.num_kept_apart), 1e-12))
    said = (
        copies.run_id, "copies", f"{share:.0%} of {copies.num_drawn:,} pictures drawn for new captions have a training picture's tokens",
        f"{usual:.0%} of {copies.num_kept_apart:,} pictures kept apart do",
    )  # fmt: skip
    if share <= usual + max(0.05, SURE * error):
        return Check(*said, "healthy")
    remedy = "more pairs, a smaller transformer, or --set transformer.dropout=0.1"
    return Check(*said, "wrong" if share > usual + 0.5 else "look", "it repeats pictures that it was trained on", remedy)


def captions_fit(clip: Training, pairs: PairFacts | None) -> bool | None:
    """Whether a CLIP found pictures by their captions; None when it was trained too little to tell."""
    check = captions_found(clip, None, pairs)
    return None if check is None or check.verdict == "unknown" else check.verdict != "wrong"


def _early(training: Training) -> str:
    return f"{training.num_steps:,} updates are too few to tell"
