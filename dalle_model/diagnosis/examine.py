"""All checks of a data root or of one run: finds the evidence and hands it to the rules."""

from collections.abc import Iterator
from pathlib import Path

from dalle_datasets.store.layout import Layout
from dalle_model.config.tree import Config
from dalle_model.diagnosis.evidence import (
    TRAININGS,
    PairFacts,
    Training,
    find_run,
    read_copies,
    read_pairs,
    read_tokens,
    read_training,
)
from dalle_model.diagnosis.reference import Reference, make_reference, stored_reference
from dalle_model.diagnosis.rules import Check, captions_fit, diagnose_copies, diagnose_pairs, diagnose_training
from dalle_model.running.networks import current, num_pairs_now, pairs_of, role_of
from dalle_model.running.run_dir import is_under_way


def examine_root(layout: Layout, config: Config) -> Iterator[Check]:
    """The pairs, the networks that are current for these settings, and trainings that are going on.

    Raises `ValueError` when there is neither pair nor training.
    """
    trainings = list(_trainings(layout, config))
    pairs = read_pairs(layout.pairs(config.source.name))
    if pairs is None and not trainings:
        raise ValueError(
            f"{layout.root} holds no pairs of {config.source.name} and no training with these settings; `dalle status` says what is there"
        )
    if pairs is not None:
        yield from diagnose_pairs(config.source.name, pairs)
    for training in trainings:
        yield from _examine(layout, training, stored_reference(training), pairs, trainings)


def examine_run(layout: Layout, name: str, against: str | None = None) -> Iterator[Check]:
    """One training, compared with the stored one of its size or with another run.

    Raises `ValueError` when a name means no training, or the two are of different jobs.
    """
    training = read_training(layout, find_run(layout, name))
    reference = stored_reference(training)
    if against is not None:
        other = read_training(layout, find_run(layout, against))
        if other.job != training.job:
            raise ValueError(
                f"{other.run_id} is a run of {other.job} and {training.run_id} one of {training.job}; name two of the same job"
            )
        reference = make_reference(other, other.run_id)
    folder = _pairs_folder(layout, training)
    pairs = read_pairs(folder) if folder is not None else None
    if pairs is not None and folder is not None:
        yield from diagnose_pairs(folder.name, pairs)
    clips = [clip for clip in _all(layout, "train_clip") if pairs_of(layout, clip.inputs) == pairs_of(layout, training.inputs)]
    yield from _examine(layout, training, reference, pairs, clips)


def _examine(
    layout: Layout, training: Training, reference: Reference | None, pairs: PairFacts | None, beside: list[Training]
) -> Iterator[Check]:
    if training.job != "train_transformer":
        yield from diagnose_training(training, reference, pairs)
        return
    tokens = read_tokens(layout.root / training.inputs.get("training_set", "none"), training.config)
    fits = [fit for clip in beside if clip.job == "train_clip" and (fit := captions_fit(clip, pairs)) is not None]
    yield from diagnose_training(training, reference, pairs, tokens, fits[-1] if fits else None)
    if copies := read_copies(layout, training):
        yield diagnose_copies(copies)


def _trainings(layout: Layout, config: Config) -> Iterator[Training]:
    """What is current for these settings, else the newest run, and what is going on, in the order of the pipeline."""
    for job in TRAININGS:
        role = role_of(job)
        serving = current(layout, role, config) if role is not None else None
        wanted = {serving.run_id} if serving is not None and layout.run(serving.run_id).is_dir() else set()
        begun = [path for path in _run_dirs(layout, job) if (path / "metrics.jsonl").exists()]
        if not wanted and begun:
            wanted = {max(begun, key=lambda path: (path / "metrics.jsonl").stat().st_mtime_ns).name}
        wanted |= {path.name for path in begun if is_under_way(path)}
        for run_id in sorted(wanted):
            try:
                yield read_training(layout, run_id)
            except ValueError:  # an imported network was trained elsewhere
                continue


def _all(layout: Layout, job: str) -> Iterator[Training]:
    for path in _run_dirs(layout, job):
        try:
            yield read_training(layout, path.name)
        except ValueError:
            continue


def _run_dirs(layout: Layout, job: str) -> list[Path]:
    return sorted(layout.runs.glob(f"{job.replace('_', '-')}-*"))


def _pairs_folder(layout: Layout, training: Training) -> Path | None:
    """Where the pairs of a training lie, if they are still those that it learned from."""
    wanted = pairs_of(layout, training.inputs)
    if "pairs" in training.inputs:
        folder = layout.root / training.inputs["pairs"]
        return folder if folder.is_dir() else None
    return next((folder for folder in sorted((layout.root / "pairs").glob("*/")) if num_pairs_now(layout, folder.name)[0] == wanted), None)
