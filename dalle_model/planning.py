"""What to train in a given time: sizes, steps and a finish time, from the pairs and from how fast this machine is.

The rule and what it rests on are in docs/sizing.md. Nothing here measures (`dalle_model.measuring` does) or imports a network.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MIN_PAIRS = 200
"""With fewer pairs nothing but copies can be learned."""
MIN_UPDATES, MIN_PASSES = 600, 3
"""Updates of the transformer, and passes over the pairs, below which a smaller size is the better choice."""
LEAST_UPDATES = 100
"""Updates below which no size is worth beginning."""
MAX_PASSES = 60
"""Passes over the pairs after which more time teaches nothing but the pairs by heart."""
PARAMETERS_PER_TOKEN = 12
"""Most parameters of the transformer for each image token there is to learn from; the demo has 10."""
SHARES = {"train dvae": 0.15, "train clip": 0.12, "train transformer": 0.61, "train evaluator": 0.12}
"""How the time that is left for training is divided. The evaluator is a second CLIP with the steps of the
first."""
DRAWING_SHARE = 0.10
RESERVE = 0.10
"""Share of the budget that is not planned: for what a measurement of seconds cannot know."""
NUM_JOBS = 11
FLOW_S = 15.0
"""Catalogue, report and a private Prefect server, seconds on two cores."""
START_RATE = 1e-3
"""Peak step size of a transformer that begins from trained weights: half of that from random ones."""
LOOKS = 20
"""Looks at the validation split in a training."""


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to learn from."""

    num_pairs: int
    num_validation: int
    num_captions: int
    """Different ones."""
    num_words: int
    """Different ones."""
    longest_caption: int
    """In tokens of a vocabulary of `vocab_size`."""
    vocab_size: int
    median_side: int
    """Of the short sides, pixels."""
    cut_share: float = 0.0
    """Share of captions that the vocabulary to begin from cuts, because it has fewer text positions than they take."""

    @property
    def num_training(self) -> int:
        """Pairs to train on."""
        return self.num_pairs - self.num_validation


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine is and does."""

    device: str
    num_devices: int
    num_cores: int
    memory_bytes: int
    fp32_flops: float
    """Of matrix products, per second and device."""
    bf16_flops: float

    @property
    def has_gpu(self) -> bool:
        """Whether trainings run on a GPU."""
        return self.device != "cpu"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, measured on this machine with the networks of one size."""

    startup_s: float
    """From starting Python to the first update."""
    dvae_s: float
    """An update."""
    clip_s: float
    transformer_s: float
    encode_s: float
    """Tokenising and scoring a picture."""
    draw_s: float
    """Sampling, decoding and scoring a picture."""


@dataclass(frozen=True, slots=True)
class Size:
    """One step of the ladder of sizes: everything that grows together."""

    name: str
    image_size: int
    downsample: int
    codebook_size: int
    dvae_width: int
    num_layers: int
    d_model: int
    num_heads: int
    batch_size: int

    @property
    def grid(self) -> int:
        """Side of the token grid."""
        return self.image_size // self.downsample

    @property
    def parameters(self) -> int:
        """Of the transformer's blocks, which are most of it."""
        return 12 * self.num_layers * self.d_model**2

    @property
    def work(self) -> float:
        """FLOPs of an update of the transformer, roughly: to compare sizes before one is measured."""
        return 6.0 * self.parameters * (self.grid**2 + 32) * self.batch_size


SIZES = (
    Size("32 px, coarse", 32, 4, 512, 32, 2, 128, 4, 24),
    Size("32 px", 32, 4, 1_024, 64, 3, 192, 6, 24),
    Size("64 px, 8 x 8 tokens", 64, 8, 1_024, 64, 4, 256, 8, 32),
    Size("64 px, 16 x 16 tokens", 64, 4, 1_024, 64, 6, 256, 8, 32),
    Size("128 px", 128, 8, 2_048, 96, 8, 384, 6, 32),
    Size("128 px, wide", 128, 8, 4_096, 128, 12, 512, 8, 64),
    Size("256 px", 256, 8, 8_192, 128, 16, 768, 12, 128),
    Size("256 px, wide", 256, 8, 8_192, 256, 24, 1_024, 16, 256),
)
"""The ladder, smallest first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be trained, and how long each stage takes."""

    size: Size
    overrides: Mapping[str, Any]
    """Dotted settings on top of the preset `demo`."""
    stages: Mapping[str, float]
    """Stage -> seconds."""
    num_parameters: int
    passes: float
    """Of the transformer over the training pairs."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def total_s(self) -> float:
        """Seconds for everything."""
        return sum(self.stages.values())


def choose_plan(
    look: Look,
    machine: Machine,
    budget_s: float,
    measure: Callable[[Mapping[str, Any]], Times],
    spent_s: float = 0.0,
    start: Mapping[str, Any] | None = None,
) -> Plan:
    """The largest size that learns enough in what is left of `budget_s`, with its steps. `measure` times a size, given its settings.

    `start` are the settings of a warm start: its sizes are taken, and what it freezes gets no time.
    Raises `ValueError` when there are too few pairs, or too little time for the smallest size.
    """
    if look.num_pairs < MIN_PAIRS:
        raise ValueError(
            f"{look.num_pairs} pairs are too few to learn from: below {MIN_PAIRS} a network repeats them and draws nothing new; find more "
            "pictures, look what was dropped (report/collection.html), or go on with --force"
        )
    left_s = budget_s - spent_s
    sizes, start = sizes_for(start or {}), start or {}

    def plan_of(size: Size) -> Plan:
        return _plan(size, look, machine, left_s, measure({**size_settings(size, look, machine), **start}), start)

    fitting = [size for size in sizes if size == sizes[0] or _is_worth(size, look)]
    smallest = plan_of(sizes[0])
    for size in reversed(fitting[1:]):
        faster = size.work / sizes[0].work
        updates = (smallest.overrides["train_transformer.max_steps"] if smallest.stages else 0) / faster
        if updates * 2 < MIN_UPDATES:  # a larger network uses a machine up to twice as well as the smallest
            continue
        plan = plan_of(size)
        if plan.overrides["train_transformer.max_steps"] >= MIN_UPDATES and (
            plan.passes >= MIN_PASSES or look.num_training > MIN_UPDATES * size.batch_size
        ):
            return plan
    if smallest.overrides["train_transformer.max_steps"] < LEAST_UPDATES:
        missing = LEAST_UPDATES - smallest.overrides["train_transformer.max_steps"]
        needed = spent_s + (smallest.total_s + missing * _per_update(smallest) / SHARES["train transformer"]) / (1 - RESERVE)
        raise ValueError(
            f"a budget of {duration(budget_s)} is too short: {duration(spent_s)} are spent, starting the stages takes "
            f"{duration(smallest.stages['start-up'])} here, and the smallest networks need {duration(needed)} in all; give "
            f"--budget {math.ceil(needed / 60)}m or more"
        )
    return smallest


def sizes_for(start: Mapping[str, Any]) -> tuple[Size, ...]:
    """The sizes to choose from: that of a transformer to begin from, those that fit a dVAE to begin from, or all.

    Raises `ValueError` when none fits the dVAE.
    """
    if not start.get("start.dvae"):
        return SIZES
    image_size, downsample = int(start["dvae.image_size"]), int(start["dvae.downsample"])
    codebook_size, width = int(start["dvae.codebook_size"]), int(start["dvae.hidden_width"])
    if start.get("start.transformer"):
        layers, d_model, heads = (int(start[f"transformer.{name}"]) for name in ("num_layers", "d_model", "num_heads"))
        batch_size = next((size.batch_size for size in SIZES if size.d_model >= d_model), SIZES[-1].batch_size)
        return (Size("as it was", image_size, downsample, codebook_size, width, layers, d_model, heads, batch_size),)
    fitting = [size for size in SIZES if (size.image_size, size.downsample) == (image_size, downsample)]
    if not fitting:
        raise ValueError(
            f"dVAE {start['start.dvae']} draws {image_size} x {image_size} pictures of {image_size // downsample} x "
            f"{image_size // downsample} tokens, for which no size of transformer is known; begin from a model with a transformer, or "
            "train with `dalle run run_pipeline`"
        )
    return tuple(replace(size, codebook_size=codebook_size, dvae_width=width) for size in fitting)


def _is_worth(size: Size, look: Look) -> bool:
    """Whether there are pixels and pairs enough for a size."""
    return size.image_size <= 1.5 * look.median_side and size.parameters <= PARAMETERS_PER_TOKEN * look.num_training * size.grid**2


def _per_update(plan: Plan) -> float:
    return plan.stages["train transformer"] / max(1, int(plan.overrides["train_transformer.max_steps"]))


def size_settings(size: Size, look: Look, machine: Machine) -> dict[str, Any]:
    """The settings that a size stands for, but for steps."""
    stem = 2 if size.downsample == 4 else 4
    poolings = int(math.log2(size.downsample // stem))
    kernel = {8: 5, 16: 7, 32: 11}.get(size.grid, 3)
    precision = "bf16" if machine.has_gpu else "fp32"
    return {
        "tokenizer.vocab_size": look.vocab_size,
        "tokenizer.max_text_tokens": min(128, max(8, look.longest_caption + 2)),
        "tokenizer.bpe_dropout": 0.0,
        "dvae.image_size": size.image_size,
        "dvae.downsample": size.downsample,
        "dvae.codebook_size": size.codebook_size,
        "dvae.hidden_width": size.dvae_width,
        "dvae.stem_patch_size": stem,
        "dvae.num_groups": poolings + 1,
        "clip.image_size": size.image_size,
        "clip.patch_size": size.image_size // 8 if size.image_size <= 64 else 16,
        "transformer.num_layers": size.num_layers,
        "transformer.num_heads": size.num_heads,
        "transformer.d_model": size.d_model,
        "transformer.conv_kernel_size": kernel,
        "train_dvae.batch_size": 16,
        "train_clip.batch_size": min(128, max(16, look.num_training // 8)),
        "train_transformer.batch_size": size.batch_size,
        **{f"train_{network}.precision": precision for network in ("dvae", "clip", "transformer")},
        **({"flow.num_processes": machine.num_devices} if machine.num_devices > 1 else {}),
    }


def _plan(size: Size, look: Look, machine: Machine, budget_s: float, times: Times, start: Mapping[str, Any]) -> Plan:
    settings = {**size_settings(size, look, machine), **start}
    frozen = [f"train {role}" for role in ("dvae", "clip") if start.get(f"start.{role}") and role in start.get("start.frozen", ())]
    shares = {stage: 0.0 if stage in frozen else share for stage, share in SHARES.items()}
    shares["train transformer"] += 1 - sum(shares.values())
    stages = {"start-up": NUM_JOBS * times.startup_s + FLOW_S, "tokenise and score": look.num_pairs * times.encode_s}
    left = max(0.0, budget_s * (1 - RESERVE) - sum(stages.values()))
    num_prompts, num_images = 64, 32
    while num_prompts * num_images * times.draw_s > DRAWING_SHARE * left and num_prompts * num_images > 32:
        num_prompts, num_images = (num_prompts // 2, num_images) if num_prompts > num_images else (num_prompts, num_images // 2)
    stages["draw"] = num_prompts * num_images * times.draw_s
    looked_at = num_prompts * num_images + 5 * num_prompts + 6 * look.num_validation  # candidates, the best blurred, real ones
    stages["measure"] = looked_at * times.encode_s
    left = max(0.0, left - stages["draw"] - stages["measure"])
    per_update = {"train dvae": times.dvae_s, "train clip": times.clip_s, "train transformer": times.transformer_s}
    steps, passes, dropout = {}, 0.0, 0.0
    for stage in per_update:
        section = stage.replace(" ", "_")
        share = SHARES["train evaluator"] if stage == "train clip" else shares[stage]  # as long, even where CLIP itself is kept
        batch = settings[f"{section}.batch_size"]
        looking_s = LOOKS * min(4_096, look.num_validation) / batch * per_update[stage] / 3
        affordable = int(max(0.0, share * left - looking_s) / per_update[stage])
        useful = math.ceil(MAX_PASSES * look.num_training / batch)
        steps[section] = max(1, min(affordable, useful))
        training_s = steps[section] * per_update[stage] + looking_s
        stages[stage] = looking_s / LOOKS if stage in frozen else training_s
        if stage == "train clip":
            stages["train evaluator"] = training_s
        passes = steps[section] * batch / look.num_training
        dropout = 0.0 if passes < 10 else 0.1 if passes < 30 else 0.2
    overrides = {
        **settings,
        "transformer.dropout": dropout,
        **({"train_transformer.learning_rate": START_RATE} if start.get("start.transformer") else {}),
        "evaluate.num_prompts": num_prompts,
        "evaluate.num_shown": min(16, num_prompts),
        "evaluate.evaluator": "train",
        "sampling.num_images": num_images,
        **{name: value for section, number in steps.items() for name, value in _schedule(section, number).items()},
    }
    return Plan(size, overrides, stages, size.parameters, passes, tuple(_warnings(look, passes)))


def _schedule(section: str, steps: int) -> dict[str, Any]:
    """Everything that is counted in updates."""
    counted: dict[str, Any] = {
        "max_steps": steps,
        "warmup_steps": steps // 10,
        "validate_every": max(10, steps // LOOKS),  # each look draws pictures and keeps the best weights, too
        "checkpoint_every": max(20, steps // 10),
        "log_every": max(1, min(10, steps // 50)),
    }
    if section == "train_dvae":
        counted |= {"gumbel_anneal_steps": max(1, steps * 4 // 5), "kl_warmup_steps": max(1, steps * 2 // 5)}
    return {f"{section}.{name}": value for name, value in counted.items()}


def _warnings(look: Look, passes: float) -> list[str]:
    warnings = []
    if not look.num_validation:
        warnings.append("no pair is kept apart for validation, so nobody will know what was learned by heart (filter.validation_share)")
    if look.num_pairs < 5 * MIN_PAIRS:
        warnings.append(f"{look.num_pairs:,} pairs are few: expect pictures like those it saw")
    if passes > MAX_PASSES / 2:
        warnings.append(f"it sees every pair {passes:.0f} times; more pictures would help more than more time")
    if look.cut_share:
        warnings.append(
            f"{look.cut_share:.0%} of the captions are longer than the text positions of the model it begins from, and lose their end; "
            "--set start.new_tokens=add spells their words with fewer tokens"
        )
    if passes < 1:
        warnings.append(f"it sees {passes:.0%} of the pairs; more time would help")
    return warnings


def parse_budget(text: str) -> float:
    """Seconds of `90s`, `20m`, `1.5h` or `1d`. Raises `ValueError` for anything else."""
    units = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
    try:
        seconds = float(text[:-1]) * units[text[-1:].lower()]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"--budget {text}: give a time such as 90s, 20m, 1.5h or 1d")
    return seconds


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
