"""The table of jobs: what each reads and makes, how it is spread over processes, and which flow runs it.

A new stage is an entry here and a file `dalle_model/jobs/<name>.py`. Nothing here imports a job, so that naming
a run costs no import of torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One kind of job."""

    name: str
    """Name of its module in `dalle_model.jobs`."""
    sections: tuple[str, ...]
    """Sections of the configuration that decide its result; other settings do not change the run's id."""
    version: int
    """Edition of its code: a higher one makes every result anew."""
    reads: tuple[str, ...] = ()
    """Kinds of artefact that flows find for it; each is the inputs `<kind>` (a path) and `<kind>_id`."""
    places: tuple[str, ...] = ()
    """Inputs that only say where something lies. They do not decide the result, and so not the run's id; their `<kind>_id` does."""
    makes: Mapping[str, str] = field(default_factory=dict)
    """Kind of artefact it makes -> name of the result that holds its path."""
    spread: Literal["one", "torchrun", "units"] = "one"
    """Processes that may run it: one; several under torchrun, each with its part of every batch, the first of which
    writes the run directory; or any number, on any machines, that share its units of work
    (`dalle_model.running.claims`). The module of a job made of units has `work(run)`, which returns when every unit
    is made, and `finish(run, worked)`, which one process calls to put the result together; every other module has
    `run(run)`."""
    needs_gpu: bool = False
    """Whether it is worth sending to a machine with a GPU; other jobs stay beside their flow."""
    late_imports: tuple[str, ...] = ()
    """Modules that take seconds to import and that it imports while it works; a process that forks jobs imports them before."""
    flow: str | None = None
    """The flow that runs it; None when a command does."""
    is_stage: bool = False
    """Whether its run directory follows from the settings alone, so that `dalle status` shows it."""


_TABLE = (
    Job(
        name="train_bpe",
        sections=("tokenizer",),
        version=1,
        reads=("pairs",),
        places=("start", "tokenizer"),
        makes={"tokenizer": "tokenizer"},
        flow="train_tokenizers",
        is_stage=True,
    ),
    Job(
        name="train_dvae",
        sections=("dvae", "train_dvae"),
        version=1,
        reads=("pairs",),
        places=("start", "dvae"),
        makes={"dvae": "checkpoint"},
        spread="torchrun",
        needs_gpu=True,
        late_imports=("torch._dynamo",),
        flow="train_tokenizers",
        is_stage=True,
    ),
    Job(
        name="tokenize_images",
        sections=("tokenize_images", "shards"),
        version=1,
        reads=("pairs", "dvae"),
        makes={"image_tokens": "image_tokens", "codebook_usage": "codebook_usage"},
        spread="units",
        needs_gpu=True,
        flow="tokenize_pairs",
        is_stage=True,
    ),
    Job(
        name="tokenize_captions",
        sections=("shards",),
        version=1,
        reads=("pairs", "tokenizer"),
        makes={"text_tokens": "text_tokens"},
        flow="tokenize_pairs",
        is_stage=True,
    ),
    Job(
        name="train_clip",
        sections=("clip", "train_clip"),
        version=1,
        reads=("pairs", "tokenizer", "dvae"),
        places=("start", "clip"),
        makes={"clip": "checkpoint", "evaluator": "checkpoint"},  # one of them: the input `role` says which
        needs_gpu=True,
        late_imports=("torch._dynamo", "open_clip"),
        flow="train_clip",
        is_stage=True,
    ),
    Job(
        name="score_pairs",
        sections=("shards",),
        version=2,
        reads=("pairs", "clip"),
        makes={"clip_scores": "clip_scores"},
        spread="units",
        needs_gpu=True,
        late_imports=("open_clip",),
        flow="score_pairs",
        is_stage=True,
    ),
    Job(
        name="score_safety",
        sections=("safety", "clip", "shards"),
        version=2,
        reads=("pairs", "clip"),
        makes={"safety": "safety_scores"},
        late_imports=("open_clip",),
        flow="score_pairs",
    ),
    Job(
        name="train_transformer",
        sections=("tokenizer", "dvae", "transformer", "train_transformer"),
        version=1,
        reads=("training_set", "dvae", "tokenizer"),
        places=("start",),
        makes={"transformer": "checkpoint"},
        spread="torchrun",
        needs_gpu=True,
        late_imports=("torch._dynamo",),
        flow="train_transformer",
        is_stage=True,
    ),
    Job(
        name="generate_images",
        sections=("sampling",),
        version=2,
        reads=("transformer", "dvae", "clip", "tokenizer"),
        makes={"generations": "generations", "image_embeddings": "image_embeddings"},
        spread="units",
        needs_gpu=True,
        late_imports=("open_clip",),
        flow="generate_images",
    ),
    Job(
        name="score_generations",
        sections=(),
        version=2,
        makes={"rerank_scores": "rerank_scores"},
        needs_gpu=True,
        late_imports=("open_clip",),
        flow="score_generations",
    ),
    Job(
        name="evaluate",
        sections=(),
        version=1,
        makes={"evaluations": "evaluations", "figures": "figures"},
        flow="evaluate_model",
    ),
    Job(name="import_weights", sections=("dvae",), version=1, makes={"dvae": "checkpoint"}),
    Job(name="import_model", sections=(), version=1),
    Job(name="reconstruct", sections=(), version=2),
)

JOBS = {job.name: job for job in _TABLE}
"""Name -> job, in the order in which a pipeline runs them."""

SPREAD_JOBS = tuple(job.name for job in _TABLE if job.spread != "one")
"""Jobs that can run in several processes."""

MADE_BY = {kind: (job.name, key) for job in _TABLE if job.flow for kind, key in job.makes.items()}
"""Kind -> the job of a flow that makes it, and the name of the result that has its path."""


def find_job(name: str) -> Job:
    """The entry of a job. Raises `ValueError` for an unknown one."""
    if name not in JOBS:
        raise ValueError(f"job {name!r} does not exist; choose one of {', '.join(JOBS)}")
    return JOBS[name]
