"""Job: train the transformer on a training set's captions and image tokens (section 2.2, Appendix B.2)."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dalle_datasets.loading.token_batches import TokenBatch, TokenBatches, pad_tokens
from dalle_model.config.tree import Config
from dalle_model.diagnosis.evidence import image_entropy
from dalle_model.generated.while_training import Samples, usable_prompts
from dalle_model.precision import autocast
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.text import BpeTokenizer, known_captions, normalize_caption
from dalle_model.training.distribute import Batch, ShardUnit
from dalle_model.training.loop import derive_seed, train
from dalle_model.training.memory import check_fits
from dalle_model.training.parallel import World, join_world, sum_numbers
from dalle_model.training.prefetch import prefetch
from dalle_model.training.settled import settle_precision
from dalle_model.transformer import NO_TOKEN, DALLETransformer, save_transformer, start_transformer
from dalle_model.transformer.branch_scales import BranchScaler
from dalle_model.transformer.cost import plan_transformer, training_flops_per_token
from dalle_model.weights import load_weights

MAX_VALIDATION_PAIRS = 4_096
"""Enough to know a loss per token to a few thousandths of a nat."""
MAX_TRAINING_PAIRS = 512
"""Training pairs to look at when training is over, to compare with the validation pairs."""
LOSSES = ("loss", "text_loss", "image_loss")
ASKED_GROUPS, ASKED_PAIRS = 16, 64
"""Validation pairs whose pictures are also looked at with another pair's caption, and into how many groups they are cut: the spread of
the groups says how sure their mean is. Four such looks cost what one update of 96 pairs does."""


def run(run: JobRun) -> dict[str, Any]:
    """Train, continuing from the newest checkpoint of an interrupted run, and publish the weights to keep."""
    config, seed = run.config, run.config.seed
    training_set = run.input_path("training_set")
    made_from = {name: run.inputs[name] for name in ("training_set_id", "tokenizer_id", "dvae_id", "start_id") if name in run.inputs}
    check_training_set(training_set, made_from)
    tokenizer = BpeTokenizer.load(run.input_path("tokenizer"))
    if tokenizer.id != made_from["tokenizer_id"]:
        raise ValueError(
            f"{run.input_path('tokenizer')} holds tokenizer {tokenizer.id}, but {made_from['tokenizer_id']} is given; correct one"
        )
    torch.manual_seed(derive_seed(seed, 0))
    model = begin(run, tokenizer)
    model.activation_checkpointing = config.train_transformer.activation_checkpointing
    world = join_world()
    text_loss_weight = config.train_transformer.text_loss_weight
    batches = training_batches(open_split(training_set, "train", model), tokenizer, config, world)

    def compute_loss(model: nn.Module, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return weighted_loss(model, batch, text_loss_weight)

    settings = settle_precision(config.train_transformer, model, batches, compute_loss, run.run_dir, world)
    config = replace(config, train_transformer=settings)
    check_fits(lambda: planned_bytes(config, world.size), world.device, "train_transformer", remedy(config, world.size))
    samples = pictures_to_draw(run, training_set, model, tokenizer, world)
    result = train(
        model=model,
        config=settings,
        batches=batches,
        compute_loss=compute_loss,
        validate=validation(training_set, model, config, world),
        show=samples.show if samples else None,
        run_dir=run.run_dir,
        scale=scale_branches if settings.precision == "fp16" else None,
        parts=parts,
        branches=branches,
        flops_per_pair=training_flops_per_token(config.transformer, model.stream) * model.stream.num_positions,
        seed=seed,
        report=report_progress,
    )
    if not world.is_main:
        return {}
    checkpoint = run.run_dir / "transformer"
    return {
        "transformer_id": save_transformer(checkpoint, model, made_from),
        "checkpoint": run.layout.relative(checkpoint),
        "kept_step": result.kept_step,
        **learned_losses(training_set, model, config, world, result.validation),
        "image_entropy": image_entropy(training_set, config.dvae.codebook_size),
        "validation_unseen_text_loss": result.validation.get("unseen_text_loss"),
        "validation_unseen_image_loss": result.validation.get("unseen_image_loss"),
        "validation_unseen_share": result.validation.get("unseen_share"),
        "text_loss": result.train["text_loss"],
        "image_loss": result.train["image_loss"],
        "validation_text_loss": result.validation.get("text_loss"),
        "validation_image_loss": result.validation.get("image_loss"),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_steps": result.step,
        **({"shown": run.layout.relative(samples.directory)} if samples else {}),
    }


def pictures_to_draw(run: JobRun, training_set: Path, model: DALLETransformer, tokenizer: BpeTokenizer, world: World) -> Samples | None:
    """What is drawn while it trains, by the first process alone.

    Nothing where there is no validation split to look at, no dVAE to draw with, or weights that no process holds whole.
    """
    config, settings = run.config, run.config.train_transformer
    is_cut = world.size > 1 and settings.sharding != "replicated"
    if not world.is_main or is_cut or not settings.num_shown or "dvae" not in run.inputs or not run.input_path("dvae").exists():
        return None
    prompts: Iterable[str] = settings.shown_prompts
    if not prompts:
        try:
            prompts = dict.fromkeys(first_pairs(open_split(training_set, "validation", model), ASKED_PAIRS).captions)
        except ValueError:
            return None
    usable, tokens = usable_prompts(list(prompts)[: settings.num_shown], tokenizer)
    if not usable:
        return None
    made = Samples(
        prompts=usable,
        text_tokens=tokens,
        dvae=run.input_path("dvae"),
        directory=run.run_dir / "shown",
        settings=config.sampling,
        seed=config.seed,
        validate_every=settings.validate_every,
        max_steps=settings.max_steps,
    )
    made.begin()
    return made


def begin(run: JobRun, tokenizer: BpeTokenizer) -> DALLETransformer:
    """Random weights, or those of the transformer that training begins from. Raises `ValueError` when that does not fit."""
    config = run.config
    stream = replace(config.stream, text_vocab_size=tokenizer.vocab_size)
    if "start" not in run.inputs:
        return DALLETransformer(config.transformer, stream)
    dvae_ids = {"dvae_id": run.inputs["dvae_id"]}
    if "dvae" in run.inputs:
        about, _, _ = load_weights(run.input_path("dvae"), "dvae")
        dvae_ids |= about.get("made_from", {})
    return start_transformer(run.input_path("start"), run.inputs["start_id"], config.transformer, stream, tokenizer, dvae_ids)


def planned_bytes(config: Config, world_size: int) -> int:
    """What an update needs on each of `world_size` devices."""
    plan = plan_transformer(config, world_size)
    return (plan.memory_with_checkpointing if config.train_transformer.activation_checkpointing else plan.memory).total


def remedy(config: Config, world_size: int) -> str:
    """What makes an update need less."""
    settings, ways = config.train_transformer, ["set a smaller train_transformer.microbatch_size"]
    if not settings.activation_checkpointing:
        ways.append("train_transformer.activation_checkpointing=true")
    if settings.sharding == "replicated":
        ways.append("with several devices train_transformer.sharding=full")
    return f"{', '.join(ways)}; `dalle config plan --world-size {world_size}` shows what each saves"


def check_training_set(training_set: Path, made_from: Mapping[str, str]) -> None:
    """Raises `ValueError` when the training set's tokens come from another tokenizer or dVAE than the run's inputs name."""
    path = training_set / "manifest.json"
    if not path.exists():
        raise ValueError(f"{training_set} holds no manifest.json, so its export did not finish; export the training set again")
    manifest = json.loads(path.read_text())
    for name in ("tokenizer_id", "dvae_id"):
        if manifest[name] != made_from[name]:
            raise ValueError(
                f"{training_set} was made with {name}={manifest[name]}, but the run's input is {name}={made_from[name]}; "
                "export a training set for it, or correct config.json"
            )


def open_split(training_set: Path, split: str, model: DALLETransformer) -> TokenBatches:
    """A split of the training set, checked against the model's vocabularies."""
    return TokenBatches(
        training_set,
        split,
        text_vocab_size=model.stream.text_vocab_size,
        max_text_tokens=model.stream.max_text_tokens,
        codebook_size=model.stream.codebook_size,
        num_image_tokens=model.stream.num_image_tokens,
    )


def training_batches(
    pairs: TokenBatches, tokenizer: BpeTokenizer, config: Config, world: World
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    """This process's batches from any step on: captions encoded anew each time, with BPE dropout, some left out for guidance."""
    settings, seed = config.train_transformer, config.seed

    share = settings.batch_size // world.size

    def encoded(start_step: int) -> Iterator[dict[str, Tensor]]:
        for i, pair in enumerate(pairs.batches(settings.batch_size, seed, start_step, world.rank, world.size)):
            key = derive_seed(seed, start_step + i)
            batch = encode_batch(pair, tokenizer, config.tokenizer.bpe_dropout, key)
            if settings.caption_dropout:
                draws = torch.rand(settings.batch_size, generator=torch.Generator().manual_seed(key))
                is_dropped = draws[world.rank * share : (world.rank + 1) * share] < settings.caption_dropout
                batch["text_tokens"][is_dropped] = NO_TOKEN
            yield batch

    def batches(start_step: int) -> Iterator[dict[str, Tensor]]:
        for batch in prefetch(encoded(start_step)):
            # Here rather than in the loss, because the mean is over the pairs of all microbatches and all processes.
            num_text_tokens = sum_numbers({"num": float((batch["text_tokens"] != NO_TOKEN).sum())}, world)["num"]
            yield {**batch, "mean_text_tokens": torch.tensor(num_text_tokens).div(settings.batch_size).expand(share)}

    return batches


def encode_batch(pairs: TokenBatch, tokenizer: BpeTokenizer, bpe_dropout: float, seed: int) -> dict[str, Tensor]:
    """Tensors of a batch. Without BPE dropout the stored text tokens are used."""
    text_tokens = pairs.text_tokens
    if bpe_dropout:
        text_tokens = pad_tokens(tokenizer.encode(pairs.captions, bpe_dropout, seed), text_tokens.shape[1])
    return {"text_tokens": torch.from_numpy(text_tokens), "image_tokens": torch.from_numpy(pairs.image_tokens)}


def parts(model: nn.Module) -> list[ShardUnit]:
    """What to gather together when several processes hold shares: each block, then embeddings and heads, which stay in float32."""
    assert isinstance(model, DALLETransformer)
    return [*(ShardUnit(block, is_low_precision=True) for block in model.blocks), ShardUnit(model, methods=("loss",))]


def branches(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The residual branches, whose gradients fall from the last to the first (section 2.4)."""
    assert isinstance(model, DALLETransformer)
    return model.branches()


def scale_branches(model: nn.Module) -> BranchScaler:
    """A gradient scale for each branch."""
    assert isinstance(model, DALLETransformer)
    return model.scale_branches()


def weighted_loss(model: nn.Module, batch: Mapping[str, Tensor], text_loss_weight: float) -> dict[str, Tensor]:
    """1/8 text and 7/8 image in the paper; both means over the batch's tokens, however it is cut into microbatches."""
    assert isinstance(model, DALLETransformer)
    num_text_tokens = batch["mean_text_tokens"].sum() if "mean_text_tokens" in batch else None
    text_loss, image_loss = model.loss(batch["text_tokens"], batch["image_tokens"], num_text_tokens)
    return {
        "loss": text_loss_weight * text_loss + (1 - text_loss_weight) * image_loss,
        "text_loss": text_loss,
        "image_loss": image_loss,
    }


def validation(training_set: Path, model: DALLETransformer, config: Config, world: World) -> Callable[[nn.Module], dict[str, float]] | None:
    """Losses on pairs that are never trained on, captions encoded without dropout; None when the training set has none."""
    settings = config.train_transformer
    try:
        pairs = open_split(training_set, "validation", model)
    except ValueError:
        return None

    batch_size = settings.microbatch_size or settings.batch_size
    num_batches = -(-MAX_VALIDATION_PAIRS // batch_size)
    looked_at = (caption for batch in islice(pairs.in_order(batch_size), num_batches) for caption in batch.captions)
    known = known_captions(looked_at, open_split(training_set, "train", model).captions())
    asked = list(in_groups(*with_other_captions(first_pairs(pairs, ASKED_PAIRS))))

    def validate(model: nn.Module) -> dict[str, float]:
        sums = dict.fromkeys(("num_pairs", "unseen_pairs", *(f"{kind}{name}" for kind in ("", "unseen_") for name in LOSSES)), 0.0)
        batches = (part for batch in islice(pairs.in_order(batch_size), num_batches) for part in apart(batch, known))
        for (pair, is_unseen), is_counted in in_turns(batches, world):
            losses = losses_of(model, pair, config, world)
            if is_counted:
                for kind in ("", "unseen_") if is_unseen else ("",):
                    sums[f"{kind or 'num_'}pairs"] += len(pair)
                    for name, value in losses.items():
                        sums[f"{kind}{name}"] += value * len(pair)
        sums = sum_numbers(sums, world)
        figures = {name: sums[name] / sums["num_pairs"] for name in LOSSES}
        if sums["unseen_pairs"]:
            figures |= {f"unseen_{name}": sums[f"unseen_{name}"] / sums["unseen_pairs"] for name in LOSSES}
        return {**figures, "unseen_share": sums["unseen_pairs"] / sums["num_pairs"], **caption_gain(model, asked, config, world)}

    return validate


Part = TypeVar("Part")


def in_turns(parts: Iterable[Part], world: World) -> Iterator[tuple[Part, bool]]:
    """This process's share of some work, and whether it counts.

    Where nothing is left a process does a turn's first part again and does not count it, because with sharded weights all of them
    compute together.
    """
    left = iter(parts)
    while turn := list(islice(left, world.size)):
        is_counted = world.rank < len(turn)
        yield turn[world.rank] if is_counted else turn[0], is_counted


def caption_gain(model: nn.Module, asked: Iterable[tuple[TokenBatch, TokenBatch]], config: Config, world: World) -> dict[str, float]:
    """What a picture's own caption is worth: how many nats less an image token costs than with another pair's caption.

    `caption_gain` is the mean over groups and `caption_gain_error` its standard error. A network that learned from captions which do
    not belong to their pictures gains nothing, and so does one that pays no attention to text. Nothing for fewer than two groups.
    """
    sums = {"groups": 0.0, "gain": 0.0, "squares": 0.0}
    for (own, other), is_counted in in_turns(asked, world):
        gain = losses_of(model, other, config, world)["image_loss"] - losses_of(model, own, config, world)["image_loss"]
        if is_counted:
            sums = {"groups": sums["groups"] + 1, "gain": sums["gain"] + gain, "squares": sums["squares"] + gain**2}
    sums = sum_numbers(sums, world)
    if (num := sums["groups"]) < 2:
        return {}
    mean = sums["gain"] / num
    variance = max(0.0, sums["squares"] / num - mean**2) * num / (num - 1)
    return {"caption_gain": mean, "caption_gain_error": math.sqrt(variance / num)}


def first_pairs(pairs: TokenBatches, num_pairs: int) -> TokenBatch:
    """The first pairs of a split, at most so many."""
    batches, found = [], 0
    for batch in pairs.in_order(num_pairs):
        batches.append(batch)
        found += len(batch)
        if found >= num_pairs:
            break
    return TokenBatch(
        pair_ids=np.concatenate([batch.pair_ids for batch in batches])[:num_pairs],
        captions=[caption for batch in batches for caption in batch.captions][:num_pairs],
        text_tokens=np.concatenate([batch.text_tokens for batch in batches])[:num_pairs],
        image_tokens=np.concatenate([batch.image_tokens for batch in batches])[:num_pairs],
    )


def with_other_captions(pairs: TokenBatch) -> tuple[TokenBatch, TokenBatch]:
    """The pairs for which there is another caption among them, and the same pictures with that caption: the next one that differs."""
    texts, size = [normalize_caption(caption, lowercase=True) for caption in pairs.captions], len(pairs)
    others = {i: (i + k) % size for i in range(size) for k in reversed(range(1, size)) if texts[(i + k) % size] != texts[i]}
    rows, partners = np.array(list(others), np.int64), np.array(list(others.values()), np.int64)
    own, other = pairs.take(rows), pairs.take(partners)
    return own, replace(other, pair_ids=own.pair_ids, image_tokens=own.image_tokens)


def in_groups(own: TokenBatch, other: TokenBatch) -> Iterator[tuple[TokenBatch, TokenBatch]]:
    """Rows of both batches that stand together, in `ASKED_GROUPS` groups, or one for each row where there are fewer."""
    for rows in np.array_split(np.arange(len(own)), ASKED_GROUPS):
        if rows.size:
            yield own.take(rows), other.take(rows)


def losses_of(model: nn.Module, pairs: TokenBatch, config: Config, world: World) -> dict[str, float]:
    """The mean losses of some pairs."""
    batch = {
        "text_tokens": torch.from_numpy(pairs.text_tokens).to(world.device),
        "image_tokens": torch.from_numpy(pairs.image_tokens).to(world.device),
    }
    settings = config.train_transformer
    with autocast(settings.precision, world.device):
        return {name: float(value) for name, value in weighted_loss(model, batch, settings.text_loss_weight).items()}


def apart(pairs: TokenBatch, known: set[str]) -> Iterator[tuple[TokenBatch, bool]]:
    """The pairs whose captions occur in training and those whose do not, each with whether it is the second kind."""
    is_known = np.array([normalize_caption(caption, lowercase=True) in known for caption in pairs.captions])
    for is_unseen in (False, True):
        if (rows := np.flatnonzero(is_known != is_unseen)).size:
            yield pairs.take(rows), is_unseen


@torch.no_grad()
def learned_losses(
    training_set: Path, model: DALLETransformer, config: Config, world: World, validation: Mapping[str, float]
) -> dict[str, float]:
    """What training pairs cost the kept weights, without dropout, to compare with what validation pairs cost.

    Nothing when there is no validation, or when several processes trained, of which one alone may not hold the network.
    """
    if not validation or world.size > 1:
        return {}
    pairs, sums, num_pairs = open_split(training_set, "train", model), dict.fromkeys(LOSSES, 0.0), 0
    for batch in pairs.in_order(config.train_transformer.microbatch_size or config.train_transformer.batch_size):
        for name, value in losses_of(model, batch, config, world).items():
            sums[name] += value * len(batch)
        num_pairs += len(batch)
        if num_pairs >= MAX_TRAINING_PAIRS:
            break
    return {f"learned_{name}": sums[name] / num_pairs for name in ("text_loss", "image_loss")}
