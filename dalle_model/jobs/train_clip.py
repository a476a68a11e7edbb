"""Job: train our own small CLIP on the pairs, or import a published one; either way a checkpoint that needs
nothing else.

The trained CLIP reranks the transformer's samples, which are dVAE decodings with a wrong token here and
there. So a share of the pictures it learns from are reconstructions, with some tokens replaced on purpose.

With the input `role` = "evaluator" it is the CLIP that measures how good the reranked pictures are: trained
in the same way from another seed, and never current in the role `clip`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from dalle_datasets.loading.image_batches import ImageBatch, ImageBatches
from dalle_model.clip import Clip, build_clip, build_network, contrastive_loss, import_pretrained, load_clip, save_clip, start_clip
from dalle_model.config.training import TrainClipConfig
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.image_tokenizer import bytes_per_picture
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.text import BpeTokenizer
from dalle_model.training.distribute import Batch
from dalle_model.training.loop import derive_seed, train
from dalle_model.training.memory import check_fits, pairs_at_once, update_bytes
from dalle_model.training.metrics import log_validation
from dalle_model.training.parallel import World, join_world
from dalle_model.training.settled import settle_precision
from dalle_model.weights import copy_weights, load_start

MAX_VALIDATION_PAIRS = 2_048
MAX_KEPT_TOKENS = 2**26
"""Image tokens remembered from earlier epochs (128 MiB): encoding costs more than an update of a small CLIP."""
EVALUATOR_SEED = 1_000_003
"""Added to the seed of the settings for an evaluator, which thus differs from the CLIP that ranks in weights,
order and noise."""
MEMORY_GB = 4.0
"""That reconstructing may take at a time."""


def run(run: JobRun) -> dict[str, Any]:
    """Train (continuing an interrupted run) or import, and publish weights, configuration and tokenizer."""
    checkpoint, is_evaluator = run.run_dir / "clip", run.inputs.get("role") == "evaluator"
    id_key = "evaluator_id" if is_evaluator else "clip_id"
    if run.config.clip.pretrained:
        clip_id = save_clip(checkpoint, import_pretrained(run.config.clip.pretrained))
        return {id_key: clip_id, "checkpoint": run.layout.relative(checkpoint), "loss": None, "batch_accuracy": None}
    settings, seed, world = run.config.train_clip, run.config.seed + EVALUATOR_SEED * is_evaluator, join_world()
    dvae = load_dvae(run.input_path("dvae")).to(world.device)
    if "clip" in run.inputs:
        return kept(run, dvae, world)
    torch.manual_seed(derive_seed(seed, 0))
    tokenizer = BpeTokenizer.load(run.input_path("tokenizer"))
    if "start" in run.inputs:
        clip = start_clip(run.input_path("start"), run.inputs["start_id"], run.config.clip, tokenizer)
    else:
        clip = build_clip(run.config.clip, tokenizer)
    checkpoint_activations(clip.network, settings.activation_checkpointing)
    reconstructions = Reconstructions(dvae)
    batches = training_batches(ImageBatches(run.input_path("pairs"), "train", dvae.config.image_size), clip, settings, seed, world)

    def compute_loss(network: nn.Module, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return reconstruction_loss(clip, network, batch, reconstructions, run.config.train_clip)

    settings = settle_precision(settings, clip.network, batches, compute_loss, run.run_dir, world)
    check_fits(
        lambda: planned_bytes(replace(run.config, train_clip=settings)),
        world.device,
        "train_clip",
        "set train_clip.activation_checkpointing=true, or train_clip.microbatch_size, which contrasts fewer pairs at a time",
    )
    result = train(
        model=clip.network,
        config=settings,
        batches=batches,
        compute_loss=compute_loss,
        validate=validation(run, clip, reconstructions, settings, world),
        run_dir=run.run_dir,
        seed=seed,
        report=report_progress,
    )
    return {
        id_key: save_clip(checkpoint, clip),
        "checkpoint": run.layout.relative(checkpoint),
        "loss": result.train["loss"],
        "batch_accuracy": result.train["batch_accuracy"],
        "validation_loss": result.validation.get("loss"),
        "validation_batch_accuracy": result.validation.get("batch_accuracy"),
        "num_parameters": sum(parameter.numel() for parameter in clip.network.parameters()),
    }


def kept(run: JobRun, dvae: DVAE, world: World) -> dict[str, Any]:
    """Look at a CLIP that is taken over as it is, and publish it once more."""
    source, checkpoint = run.input_path("clip"), run.run_dir / "clip"
    load_start(source, "clip", run.inputs["clip_id"])
    clip = load_clip(source, BpeTokenizer.load)
    clip.network.to(world.device)
    look = validation(run, clip, Reconstructions(dvae), run.config.train_clip, world)
    with torch.no_grad():
        metrics = look(clip.network) if look else {}
    log_validation(run.run_dir / "metrics.jsonl", metrics)
    copy_weights(source, checkpoint)
    return {
        "clip_id": run.inputs["clip_id"],
        "checkpoint": run.layout.relative(checkpoint),
        "loss": None,
        "batch_accuracy": None,
        "validation_loss": metrics.get("loss"),
        "validation_batch_accuracy": metrics.get("batch_accuracy"),
        "num_parameters": sum(parameter.numel() for parameter in clip.network.parameters()),
        "num_steps": 0,
    }


def planned_bytes(config: Config) -> int:
    """What an update needs on the device."""
    settings, stream, side = config.train_clip, config.tokenizer, config.clip.image_size
    pairs = pairs_at_once(settings, 1)

    def build() -> nn.Module:
        network = build_network(config.clip, stream.max_text_tokens, stream.vocab_size)
        checkpoint_activations(network, settings.activation_checkpointing)
        return network

    def compute_loss(network: nn.Module) -> Tensor:
        texts = torch.zeros(pairs, stream.max_text_tokens + 1, dtype=torch.int64)
        return contrastive_loss(network, torch.zeros(pairs, 3, side, side), texts)["loss"]

    needed = update_bytes(settings, build, compute_loss)
    if settings.activation_checkpointing:  # one layer at a time is computed again
        whole = replace(config, train_clip=replace(settings, activation_checkpointing=False))
        needed += (planned_bytes(whole) - needed) // (config.clip.vision_layers + config.clip.text_layers)
    return needed


def checkpoint_activations(network: nn.Module, is_on: bool) -> None:
    """Whether training keeps only each layer's input and computes the layer again in the backward pass."""
    cast(Any, network).set_grad_checkpointing(is_on)


class Reconstructions:
    """Pictures as the dVAE gives them back. Remembers the tokens of pictures it has seen, up to `MAX_KEPT_TOKENS`."""

    def __init__(self, dvae: DVAE) -> None:
        self.dvae = dvae
        self._kept: dict[int, Tensor] = {}
        self._at_once = max(1, int(MEMORY_GB * 1e9 / bytes_per_picture(dvae.config, "fp32")))

    def tokens(self, pair_ids: Tensor, images: Tensor) -> Tensor:
        """Image tokens, int64 [B, num_image_tokens], of the pictures [B, 3, H, W] of these pairs."""
        ids = pair_ids.tolist()
        new = [i for i, pair_id in enumerate(ids) if pair_id not in self._kept]
        made = {}
        if new:
            tokens = [self.dvae.tokenize(some).to(torch.int32).cpu() for some in torch.split(images[new], self._at_once)]
            made = dict(zip((ids[i] for i in new), torch.cat(tokens), strict=True))
            if (len(self._kept) + len(made)) * self.dvae.config.num_image_tokens <= MAX_KEPT_TOKENS:
                self._kept |= made
        return torch.stack([made[i] if i in made else self._kept[i] for i in ids]).to(images.device, torch.int64)

    def decode(self, tokens: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] of tokens [B, num_image_tokens], some at a time: a batch of CLIP's is larger than the dVAE can take."""
        return torch.cat([self.dvae.decode_tokens(some) for some in torch.split(tokens, self._at_once)])


def training_batches(
    pairs: ImageBatches, clip: Clip, settings: TrainClipConfig, seed: int, world: World
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    """This process's batches from any step on. Each process contrasts the pairs of its own share."""

    def batches(start_step: int) -> Iterator[dict[str, Tensor]]:
        for batch in pairs.batches(settings.batch_size, seed, start_step, world.rank, world.size):
            yield _tensors(batch, clip)

    return batches


def reconstruction_loss(
    clip: Clip, network: nn.Module, batch: Mapping[str, Tensor], reconstructions: Reconstructions, settings: TrainClipConfig
) -> dict[str, Tensor]:
    """The contrastive loss of a batch, some of its pictures as the dVAE reconstructs them from partly wrong tokens."""
    images = as_floats(batch["images"])
    is_reconstructed = torch.rand(len(images), device=images.device) < settings.reconstruction_share
    if is_reconstructed.any():
        tokens = replace_tokens(reconstructions.tokens(batch["pair_ids"], images), settings.max_replaced_tokens)
        images[is_reconstructed] = reconstructions.decode(tokens[is_reconstructed])
    return contrastive_loss(network, clip.prepare_images(images), batch["texts"])


def replace_tokens(tokens: Tensor, max_share: float) -> Tensor:
    """Tokens [B, num_image_tokens] with some taken from the same places of the next picture in the batch.

    Each picture has its own share, uniform up to `max_share`: the network learns to be less sure of a picture the more of
    it is wrong, which is what reranking needs and what no real picture teaches.
    """
    share = max_share * torch.rand(len(tokens), 1, device=tokens.device)
    return torch.where(torch.rand(tokens.shape, device=tokens.device) < share, tokens.roll(1, 0), tokens)


def validation(
    run: JobRun, clip: Clip, reconstructions: Reconstructions, settings: TrainClipConfig, world: World
) -> Callable[[nn.Module], dict[str, float]] | None:
    """Loss, accuracy and what guessing would reach within batches of pairs that are never trained on; None when there are none."""
    try:
        pairs = ImageBatches(run.input_path("pairs"), "validation", reconstructions.dvae.config.image_size)
    except ValueError:
        return None

    def validate(network: nn.Module) -> dict[str, float]:
        sums, num_batches = {"loss": 0.0, "batch_accuracy": 0.0, "chance_accuracy": 0.0}, 0
        for batch in equal_batches(pairs, settings.microbatch_size or settings.batch_size):
            tensors = {name: value.to(world.device) for name, value in _tensors(batch, clip).items()}
            images = clip.prepare_images(as_floats(tensors["images"]))
            for name, value in contrastive_loss(network, images, tensors["texts"]).items():
                sums[name] += float(value)
            sums["chance_accuracy"] += 1 / len(batch)
            num_batches += 1
        return {name: value / num_batches for name, value in sums.items()}

    return validate


def equal_batches(pairs: ImageBatches, batch_size: int) -> Iterator[ImageBatch]:
    """Up to `MAX_VALIDATION_PAIRS` pairs in file order. Batches have one size, since guessing gets harder with it: what is left
    over is left out, unless it is all there is."""
    for i, batch in enumerate(pairs.in_order(batch_size)):
        if i and (len(batch) < batch_size or (i + 1) * batch_size > MAX_VALIDATION_PAIRS):
            return
        yield batch


def _tensors(batch: ImageBatch, clip: Clip) -> dict[str, Tensor]:
    return {
        "pair_ids": torch.tensor(batch.pair_ids),
        "images": as_tensor(batch.images).contiguous(),
        "texts": clip.tokenize(batch.captions),
    }
