"""How each network is trained: steps, batches, optimiser, schedules."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from dalle_datasets.ranges import LONG_S, MANY, check_ranges
from dalle_datasets.store.identity import LATER, OPERATIONAL

Sharding = Literal["replicated", "full", "hybrid"]
"""`replicated`: every process holds everything (DDP). `full`: weights, gradients, AdamW's moments and the average are cut into as many
shares as there are processes (FSDP2). `hybrid`: into shares within a group of processes, usually those of a machine, and replicated
between groups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What every training has in common."""

    max_steps: int
    """Optimiser updates."""
    batch_size: int
    """Pairs per update, over all devices."""
    microbatch_size: int = 0
    """Pairs per forward pass; 0 means the whole batch. Gradients are accumulated."""
    learning_rate: float
    """Peak step size."""
    final_learning_rate: float
    """Step size at the end of the schedule."""
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """`plateau` halves the step size when the validation loss stops falling (Appendix B.2)."""
    decay_steps: int = 0
    """Updates over which `cosine` falls to `final_learning_rate`, then held; 0 means all of `max_steps`."""
    warmup_steps: int = 0
    """Linear warm-up from 0."""
    beta1: float = 0.9
    """AdamW's first moment decay."""
    beta2: float = 0.999
    """AdamW's second moment decay."""
    epsilon: float = 1e-8
    """AdamW's denominator constant."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices, convolutions and embeddings, positions and pads too; not of gains, biases, `start`."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, 0 keeps none. The average is what is used afterwards. Its n-th step decays by
    (1 + n) / (10 + n) where that is less, so that the random start is soon forgotten."""
    ema_every: int = 1
    """Updates between two steps of the average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Autocast type of matrix products. `auto` measures the training's own updates, once in a run: bf16 where the machine is clearly faster
    with it, e.g. on CPUs with matrix units; on a GPU its short type."""
    log_every: int = 10
    """Updates between two lines of metrics.jsonl."""
    validate_every: int = 100
    """Updates between two looks at the validation split."""
    checkpoint_every: int = 500
    """Updates between two checkpoints."""
    checkpoint_every_s: float = dataclasses.field(default=900.0, metadata=OPERATIONAL | LATER)
    """Seconds between two checkpoints where `checkpoint_every` updates take longer; 0 goes by updates alone. Does not change what is
    computed."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep while training."""
    keep_weights: Literal["best", "last"] = dataclasses.field(default="best", metadata=LATER)
    """Which weights are published: those with the least validation loss, or those of the last update. Without validation, the last."""
    patience: int = dataclasses.field(default=5, metadata=LATER)
    """Looks at the validation split in a row that find nothing better, the last of them 2% worse than the best, after which training
    stops: what it learns from there on, it learns by heart. 0 never stops."""
    skip_spikes: bool = dataclasses.field(default=False, metadata=LATER)
    """Leave out an update whose loss or gradient norm is far above the last ones'; otherwise it is reported and its batch kept."""
    sharding: Sharding = dataclasses.field(default="replicated", metadata=LATER)
    """How several processes share the training's state; nothing in one process."""
    shard_group: int = dataclasses.field(default=0, metadata=LATER)
    """Processes that share one copy of the state in `hybrid` sharding; 0 means those of one machine."""
    powersgd_rank: int = dataclasses.field(default=0, metadata=LATER)
    """Rank to which replicated processes compress each gradient matrix before they exchange it (section 2.5); 0 exchanges it whole."""
    powersgd_start_step: int = dataclasses.field(default=1_000, metadata=LATER)
    """Updates before compression begins."""
    powersgd_warm_start: bool = dataclasses.field(default=True, metadata=LATER)
    """Begin from the last update's factors instead of random ones."""

    def __post_init__(self) -> None:
        if self.microbatch_size and self.batch_size % self.microbatch_size:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of microbatch_size={self.microbatch_size}")
        if self.checkpoint_every_s < 0:
            raise ValueError(f"checkpoint_every_s={self.checkpoint_every_s} must be at least 0; 0 goes by updates alone")
        if self.decay_steps < 0:
            raise ValueError(f"decay_steps={self.decay_steps} must be at least 0; 0 means all of max_steps={self.max_steps}")
        if self.patience < 0:
            raise ValueError(f"patience={self.patience} must be at least 0; 0 never stops before max_steps={self.max_steps}")
        if self.shard_group < 0 or (self.shard_group and self.sharding != "hybrid"):
            raise ValueError(f"shard_group={self.shard_group} is the number of processes that share one copy in sharding=hybrid; set both")
        if self.powersgd_rank < 0 or self.powersgd_start_step < 2:
            raise ValueError(
                f"powersgd_rank={self.powersgd_rank} must be at least 0 and powersgd_start_step={self.powersgd_start_step} at least 2"
            )
        if self.powersgd_rank and self.sharding != "replicated":
            raise ValueError(
                f"powersgd_rank={self.powersgd_rank} compresses what replicated processes exchange, and sharding={self.sharding} has none; "
                "set powersgd_rank=0 or sharding=replicated"
            )
        if self.powersgd_rank and self.precision == "fp16":
            raise ValueError(
                f"powersgd_rank={self.powersgd_rank} keeps what it left out of each gradient, which one overflow in fp16 would spoil for "
                "good; set precision=bf16 or powersgd_rank=0"
            )
        check_ranges(
            self, max_steps=(1, MANY), batch_size=(1, MANY), microbatch_size=(0, MANY), learning_rate=(1e-12, 1e3),
            final_learning_rate=(0, 1e3), decay_steps=(0, MANY), warmup_steps=(0, MANY), beta1=(0, 0.999_999), beta2=(0, 0.999_999_999),
            epsilon=(1e-20, 1), weight_decay=(0, 1e3), clip_norm=(0, 1e9), ema_decay=(0, 0.999_999_999), ema_every=(1, MANY),
            log_every=(1, MANY), validate_every=(1, MANY), checkpoint_every=(1, MANY), keep_checkpoints=(1, MANY), shard_group=(0, MANY),
            powersgd_rank=(0, 1_000_000), powersgd_start_step=(2, MANY), patience=(0, MANY), checkpoint_every_s=(0, LONG_S),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainDVAEConfig(TrainConfig):
    """Training of the discrete VAE (section 2.1, Appendix A.2)."""

    keep_weights: Literal["best", "last"] = dataclasses.field(default="last", metadata=LATER)
    """Which weights are published: those with the least validation loss, or those of the last update. The loss of the validation split is
    that of hard tokens alone, which the annealed objective reaches last."""
    patience: int = dataclasses.field(default=0, metadata=LATER)
    """As in the other trainings; off, because validation may well get worse for a while as temperature falls and the KL term comes in."""
    gumbel_temperature_start: float = 1.0
    """Temperature of the Gumbel-softmax relaxation at the first update."""
    gumbel_temperature_end: float = 1 / 16
    """Temperature at the end of the annealing, then held."""
    gumbel_anneal_steps: int = 150_000
    """Updates over which the temperature falls (cosine)."""
    kl_weight: float = 6.6
    """beta: weight of the KL term, as the sum over positions divided by the number of pixel values (Appendix A.2)."""
    kl_warmup_steps: int = 5_000
    """Updates over which the KL weight rises from 0 (cosine)."""
    min_log_scale: float | None = None
    """Soft floor of ln b of the logit-Laplace likelihood; none in the paper. Keeps flat backgrounds from taking all the gradient."""
    random_crop: bool = True
    """Random squares at random scales (Listing 1); without, the centred square at exactly `dvae.image_size`."""
    random_flip: bool = True
    """Horizontal flips in the augmentation (Listing 1)."""
    decode_threads: int = 0
    """Threads that decode pictures; 0 decodes in the training's own thread. Does not change what is computed."""
    straight_through: bool = dataclasses.field(default=False, metadata=LATER)
    """Decode hard tokens and let the gradient of the soft sample through; the paper decodes the soft sample."""
    imported: str = ""
    """Run that took over published weights, as `dalle import-weights` prints it; they are used as they are and nothing is trained."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        for field in ("gumbel_temperature_start", "gumbel_temperature_end"):
            if getattr(self, field) <= 0:
                raise ValueError(f"train_dvae.{field}={getattr(self, field)} must be positive: samples are one-hot only in the limit")
        if self.random_flip and not self.random_crop:
            raise ValueError(
                "train_dvae.random_flip=true is part of the augmentation that train_dvae.random_crop=false turns off; set both"
            )
        if self.kl_weight < 0 or self.decode_threads < 0:
            raise ValueError(
                f"train_dvae.kl_weight={self.kl_weight} and train_dvae.decode_threads={self.decode_threads} must be at least 0"
            )
        check_ranges(
            self, gumbel_temperature_start=(1e-6, 1e6), gumbel_temperature_end=(1e-6, 1e6), gumbel_anneal_steps=(0, MANY),
            kl_weight=(0, 1e9), kl_warmup_steps=(0, MANY), min_log_scale=(-100, 100), decode_threads=(0, 10_000),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClipConfig(TrainConfig):
    """Training of our own small CLIP."""

    reconstruction_share: float = 0.5
    """Share of the pictures that are seen as the dVAE reconstructs them, because that is what is reranked."""
    max_replaced_tokens: float = 0.0
    """Largest share of a reconstruction's image tokens that are replaced by another picture's; each picture draws its own share."""
    activation_checkpointing: bool = dataclasses.field(default=False, metadata=LATER)
    """As in `train_transformer`. A smaller `microbatch_size` would also save memory, but contrasts fewer pairs."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        check_ranges(self, reconstruction_share=(0, 1), max_replaced_tokens=(0, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTransformerConfig(TrainConfig):
    """Training of the transformer (section 2.2, Appendix B.2)."""

    text_loss_weight: float = 1 / 8
    """Weight of the mean text cross entropy; the mean image cross entropy has the rest."""
    caption_dropout: float = 0.0
    """Share of captions replaced by an empty one, for classifier-free guidance; 0 in the paper."""
    shown_prompts: tuple[str, ...] = dataclasses.field(default=(), metadata=OPERATIONAL | LATER)
    """Prompts that are drawn while it trains; empty takes captions of the validation split. What is learned does not depend on it."""
    num_shown: int = dataclasses.field(default=4, metadata=OPERATIONAL | LATER)
    """How many prompts are drawn while it trains, at the start and at ten moments, one picture each; 0 draws nothing."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and compute the layer again in the backward pass: a third more work for a fraction of the memory."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        check_ranges(self, text_loss_weight=(0, 1), caption_dropout=(0, 0.999), num_shown=(0, 64))
