"""Job: train the discrete VAE on the pairs' pictures (section 2.1, Appendix A.2), and say how good its tokens are.

At every validation its metrics go to metrics.jsonl, and two pictures to `looks/`: originals above
reconstructions, and how often each token was used. With `train_dvae.imported`, or an input `dvae`, there is one such look, at weights
that were taken over as they are; with an input `start` training begins from that dVAE.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dalle_datasets.loading.image_batches import ImageBatches, Square, centre, dvae_augmentation, dvae_augmentation_with_flip
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.start import different_sizes
from dalle_model.config.training import TrainDVAEConfig
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE, load_dvae, save_dvae, start_dvae
from dalle_model.dvae.checkpoint import sizes_of
from dalle_model.dvae.codebook import initialize_codebook
from dalle_model.dvae.likelihood import logit_laplace_log_prob, soft_floor
from dalle_model.dvae.loss import codebook_perplexity, dvae_loss, hard_token_loss, pixel_error
from dalle_model.dvae.model import DecoderBlock, EncoderBlock
from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor, map_pixels, unmap_pixels
from dalle_model.dvae.relaxation import cosine_schedule, kl_to_uniform
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.training.checkpoints import list_training_states
from dalle_model.training.distribute import Batch, ShardUnit
from dalle_model.training.loop import derive_seed, train
from dalle_model.training.memory import check_fits, pairs_at_once, update_bytes
from dalle_model.training.metrics import log_validation
from dalle_model.training.parallel import World, join_world
from dalle_model.training.prefetch import prefetch
from dalle_model.training.settled import settle_precision
from dalle_model.weights import copy_weights

MAX_VALIDATION_PAIRS = 4_096
INITIALISATION_PATCHES = 2**19
"""Patches of training pictures among which k-means finds its own: 8,192 pictures of the demo, 512 at 256 x 256."""
COLLAPSED_SHARE = 0.02
"""Perplexity over codebook size below which the codebook counts as collapsing; a healthy one is several times larger."""
USED_SHARE = 0.1
"""Share of the tokens that would have to occur; without the KL term 7 of 256 can share the work evenly and be no less of a collapse."""
SHOWN_PAIRS = 12
CHART_HEIGHT, CHART_WIDTH = 120, 512
"""Pixels of the usage chart."""

log = logging.getLogger(__name__)


def run(run: JobRun) -> dict[str, Any]:
    """Train, continuing from the newest checkpoint of an interrupted run, and publish the weights to keep."""
    # Cold samples are full of numbers below 1e-38, which a CPU multiplies in microcode: without this an update takes 3.5 times as long.
    torch.set_flush_denormal(True)
    config, world, pairs = run.config, join_world(), run.input_path("pairs")
    validation_split = Validation(ImageBatches(pairs, "validation", config.dvae.image_size), config.train_dvae, run.run_dir / "looks")
    if config.train_dvae.imported or "dvae" in run.inputs:
        model = (kept(run) if "dvae" in run.inputs else imported(run)).to(world.device).to(memory_format=torch.channels_last)
        return publish(run, model, validation_split, validate_once(run, model, validation_split), num_steps=0) if world.is_main else {}
    torch.manual_seed(derive_seed(config.seed, 0))
    has_start = "start" in run.inputs
    model = start_dvae(run.input_path("start"), run.inputs["start_id"], config.dvae) if has_start else DVAE(config.dvae)
    model = model.to(memory_format=torch.channels_last)
    pictures = ImageBatches(
        pairs, "train", config.dvae.image_size, square=augmentation(config.train_dvae), num_threads=config.train_dvae.decode_threads
    )
    if config.dvae.has_patch_paths and not has_start and not list_training_states(run.run_dir):
        initialize_codebook(model, initialization_pictures(pairs, config), config.seed)
    model.encoder.requires_grad_(not config.dvae.has_fixed_tokens)
    batches, objective = training_batches(pictures, config, world), config

    def compute_loss(model: nn.Module, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return losses_of(model, batch, step, objective)

    settings = settle_precision(config.train_dvae, model, batches, compute_loss, run.run_dir, world)
    config = replace(config, train_dvae=settings)
    check_fits(
        lambda: planned_bytes(config, world.size),
        world.device,
        "train_dvae",
        f"set train_dvae.microbatch_size to a divisor of train_dvae.batch_size={config.train_dvae.batch_size}, or train on more devices",
    )
    result = train(
        model=model,
        config=settings,
        batches=batches,
        compute_loss=compute_loss,
        validate=validation_split.validate,
        show=validation_split.show,
        parts=parts,
        branches=branches,
        run_dir=run.run_dir,
        seed=config.seed,
        report=report_progress,
    )
    return publish(run, model, validation_split, result.validation, result.step) if world.is_main else {}


def planned_bytes(config: Config, world_size: int) -> int:
    """What an update needs on each of `world_size` devices, replicated."""
    shape = (pairs_at_once(config.train_dvae, world_size), 3, config.dvae.image_size, config.dvae.image_size)

    def compute_loss(model: nn.Module) -> Tensor:
        return losses_of(model, {"images": torch.zeros(shape, dtype=torch.uint8)}, 0, config)["loss"]

    return update_bytes(config.train_dvae, lambda: DVAE(config.dvae), compute_loss)


def parts(model: nn.Module) -> list[ShardUnit]:
    """What to gather together when several processes hold shares: encoder and decoder, each a fraction of a gibibyte at most."""
    assert isinstance(model, DVAE)
    return [ShardUnit(model.encoder), ShardUnit(model.decoder, methods=("from_tokens",))]


def branches(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The residual blocks by name, "encoder_00" first."""
    assert isinstance(model, DVAE)
    halves = {"encoder": model.encoder, "decoder": model.decoder}
    return {
        f"{name}_{i:02}": [block]
        for name, half in halves.items()
        for i, block in enumerate(module for module in half.modules() if isinstance(module, EncoderBlock | DecoderBlock))
    }


def publish(run: JobRun, model: DVAE, validation_split: "Validation", validation: Mapping[str, float], num_steps: int) -> dict[str, Any]:
    """Save the weights to keep; returns the job's result."""
    checkpoint, picture = run.run_dir / "dvae", run.run_dir / "reconstructions.png"
    save_picture(picture, reconstructions(model, validation_split.pictures))
    if "dvae" in run.inputs:
        copy_weights(run.input_path("dvae"), checkpoint)
    made_from = {"start_id": run.inputs["start_id"]} if "start" in run.inputs else None
    return {
        "dvae_id": run.inputs["dvae_id"] if "dvae" in run.inputs else save_dvae(checkpoint, model, made_from),
        "checkpoint": run.layout.relative(checkpoint),
        "reconstructions": run.layout.relative(picture),
        **{name: validation[name] for name in ("psnr", "perplexity", "codes_used", "kl_nats", "reconstruction_loss")},
        "is_collapsed": bool(validation["is_collapsed"]),
        "alarm": collapse_advice(validation["perplexity"], model.config.codebook_size) if validation["is_collapsed"] else "",
        "looks": run.layout.relative(validation_split.directory),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_steps": num_steps,
    }


def imported(run: JobRun) -> DVAE:
    """The dVAE of the run that `train_dvae.imported` names. Raises `ValueError` when there is none, or it has other sizes."""
    name, config = run.config.train_dvae.imported, run.config.dvae
    checkpoint = run.layout.run(name) / "dvae"
    if not checkpoint.exists():
        raise ValueError(f"train_dvae.imported={name}: {checkpoint} does not exist; use the run_id that `dalle import-weights` printed")
    model = load_dvae(checkpoint)
    if different := different_sizes(sizes_of(model.config), sizes_of(config)):
        raise ValueError(f"the weights of train_dvae.imported={name} do not fit: {different}; set these as they were for the import")
    return model


def kept(run: JobRun) -> DVAE:
    """The dVAE that a warm start takes over as it is. Raises `ValueError` when it has other sizes."""
    return start_dvae(run.input_path("dvae"), run.inputs["dvae_id"], run.config.dvae).eval().requires_grad_(False)


def validate_once(run: JobRun, model: DVAE, validation_split: "Validation") -> dict[str, float]:
    """Look at the validation split as training does at step 0."""
    metrics = validation_split.validate(model)
    log_validation(run.run_dir / "metrics.jsonl", metrics)
    validation_split.show(model, 0)
    return metrics


def augmentation(settings: TrainDVAEConfig) -> Square:
    """How a picture becomes square: the paper's Listing 1, or parts of it."""
    if not settings.random_crop:
        return centre
    return dvae_augmentation_with_flip if settings.random_flip else dvae_augmentation


def initialization_pictures(pairs: Path, config: Config) -> Tensor:
    """Float pictures [B, 3, H, W] in [0, 1] whose patches k-means looks at: training pictures, a fixed random choice."""
    pictures = ImageBatches(pairs, "train", config.dvae.image_size)
    most = max(1, INITIALISATION_PATCHES // config.dvae.num_image_tokens)
    batch = next(pictures.batches(min(pictures.num_rows, most), config.seed))
    return as_floats(as_tensor(batch.images))


def training_batches(pictures: ImageBatches, config: Config, world: World) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    """This process's batches from any step on, made ahead: bytes, so that a GPU receives a quarter of the data, pinned for it."""

    def batches(start_step: int) -> Iterator[dict[str, Tensor]]:
        for batch in prefetch(pictures.batches(config.train_dvae.batch_size, config.seed, start_step, world.rank, world.size)):
            images = as_tensor(batch.images)
            yield {"images": images.pin_memory() if world.device.type == "cuda" else images}

    return batches


def relaxed_loss(model: nn.Module, batch: Mapping[str, Tensor], step: int, settings: TrainDVAEConfig) -> dict[str, Tensor]:
    """The paper's objective at this step of its schedules, and where the schedules stand."""
    assert isinstance(model, DVAE)
    temperature = cosine_schedule(step, settings.gumbel_temperature_start, settings.gumbel_temperature_end, settings.gumbel_anneal_steps)
    kl_weight = cosine_schedule(step, 0.0, settings.kl_weight, settings.kl_warmup_steps)
    images = as_floats(batch["images"])
    losses = dvae_loss(
        model, images, temperature=temperature, kl_weight=kl_weight, min_log_scale=settings.min_log_scale,
        straight_through=settings.straight_through,
    )  # fmt: skip
    return {**losses, "gumbel_temperature": torch.tensor(temperature), "kl_weight": torch.tensor(kl_weight)}


def losses_of(model: nn.Module, batch: Mapping[str, Tensor], step: int, config: Config) -> dict[str, Tensor]:
    """The objective of a dVAE whose tokens stay, or the relaxed one."""
    if not config.dvae.has_fixed_tokens:
        return relaxed_loss(model, batch, step, config.train_dvae)
    assert isinstance(model, DVAE)
    return hard_token_loss(model, as_floats(batch["images"]))


@dataclass(slots=True)
class Validation:
    """Validation during the training: metrics for metrics.jsonl, pictures for `directory`."""

    pictures: ImageBatches
    settings: TrainDVAEConfig
    directory: Path
    occurrences: Tensor | None = None
    """How often each token occurred at the last look, int64 [K]."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of the split. Warns when the codebook is collapsing, with what to change."""
        metrics, self.occurrences = validate(model, self.pictures, self.settings)
        if metrics["is_collapsed"]:
            log.warning(collapse_advice(metrics["perplexity"], len(self.occurrences)))
        return metrics

    def show(self, model: nn.Module, step: int) -> None:
        """Draw what the last `validate` saw."""
        assert isinstance(model, DVAE)
        assert self.occurrences is not None, "validate comes before show"
        pixels = reconstructions(model, self.pictures)  # in every process, because each may hold a share of the weights
        if join_world().is_main:
            save_picture(self.directory / f"step-{step:06d}-reconstructions.png", pixels)
            draw_usage(self.directory / f"step-{step:06d}-usage.png", self.occurrences)


def collapse_advice(perplexity: float, codebook_size: int) -> str:
    """What to say, and to change, when few tokens do all the work."""
    return (
        f"the codebook is collapsing: perplexity {perplexity:.1f} of {codebook_size} tokens; raise train_dvae.kl_warmup_steps or lower "
        "train_dvae.kl_weight, lower train_dvae.learning_rate, start warmer (train_dvae.gumbel_temperature_start), or use "
        "dvae.codebook_init=patch_kmeans"
    )


@torch.no_grad()
def validate(model: nn.Module, pictures: ImageBatches, settings: TrainDVAEConfig) -> tuple[dict[str, float], Tensor]:
    """How well hard tokens, as the transformer will see them, rebuild held-out pictures, and how often each was used, int64 [K]."""
    assert isinstance(model, DVAE)
    config, device = model.config, next(model.parameters()).device
    occurrences_K = torch.zeros(config.codebook_size, dtype=torch.int64)
    squared_error = kl = loss = 0.0
    num_pictures = 0
    for batch in pictures.in_order(64):
        images = as_floats(as_tensor(batch.images).to(device))
        logits = model.encode_logits(images)
        tokens = logits.argmax(1)
        mu, log_scale = model.decoder.from_tokens(tokens)
        rebuilt = unmap_pixels(torch.sigmoid(mu.float()))
        if config.has_fixed_tokens:
            loss += float(pixel_error(mu, images)) * len(batch)
        else:
            floor = settings.min_log_scale
            log_prob = logit_laplace_log_prob(map_pixels(images), mu.float(), soft_floor(log_scale.float(), floor))
            loss -= float(log_prob.mean()) * len(batch)
        occurrences_K += torch.bincount(tokens.flatten().cpu(), minlength=config.codebook_size)
        squared_error += float((rebuilt - images).square().mean((1, 2, 3)).sum())
        kl += float(kl_to_uniform(logits)) * len(batch)
        num_pictures += len(batch)
        if num_pictures >= MAX_VALIDATION_PAIRS:
            break
    perplexity = codebook_perplexity(occurrences_K)
    metrics = {
        "loss": loss / num_pictures,
        "reconstruction_loss": loss / num_pictures,
        "kl_nats": kl / num_pictures,
        "psnr": -10 * math.log10(max(squared_error / num_pictures, 1e-10)),
        "perplexity": perplexity,
        "codes_used": float((occurrences_K > 0).sum()),
        "codes_dead": float((occurrences_K == 0).sum()),
        "top_code_share": float(occurrences_K.max() / occurrences_K.sum()),
        "is_collapsed": float(is_collapsing(occurrences_K)),
    }
    return metrics, occurrences_K


def is_collapsing(occurrences_K: Tensor) -> bool:
    """Whether few tokens do all the work. A few pictures are expected to use at most one in 16 of their tokens."""
    size, num_used = len(occurrences_K), int((occurrences_K > 0).sum())
    if codebook_perplexity(occurrences_K) < max(2.0, COLLAPSED_SHARE * size):
        return True
    return num_used < USED_SHARE * min(size, int(occurrences_K.sum()) // 16)


@torch.no_grad()
def reconstructions(model: DVAE, pictures: ImageBatches) -> NDArray[np.uint8]:
    """A row of validation pictures above the same pictures rebuilt from their tokens, [H, W, 3]."""
    device = next(model.parameters()).device
    originals = next(pictures.in_order(SHOWN_PAIRS)).images
    rebuilt = model.decode_tokens(model.tokenize(as_floats(as_tensor(originals).to(device))))
    rows = [np.concatenate(list(row), axis=1) for row in (originals, as_bytes(rebuilt))]
    return np.concatenate(rows)


def save_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG."""
    with atomic_path(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG")


def draw_usage(path: Path, occurrences_K: Tensor) -> None:
    """Write a PNG: the tokens from the most to the least used, a bar's height the logarithm of its count; dead tokens are blank."""
    counts = np.sort(occurrences_K.numpy())[::-1]
    columns = counts[np.arange(CHART_WIDTH) * len(counts) // CHART_WIDTH]
    heights = np.ceil(np.log1p(columns) / max(np.log1p(counts[0]), 1e-9) * CHART_HEIGHT).astype(int)
    is_bar = np.arange(CHART_HEIGHT)[::-1, None] < heights
    save_picture(path, np.where(is_bar[..., None], np.array([40, 90, 160]), 255).astype(np.uint8))
