"""How many pictures look copied from one that was learned from, beside how many real pictures do, which are
no copies."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dalle_datasets.store.parquet import iter_batches, iter_file
from dalle_datasets.store.schemas import CLIP_SCORES, GENERATIONS, TRAINING_SET
from dalle_model.evaluation.batch import Drawn, Figures, Numbers, Real, Vectors, embeddings, sets_of
from dalle_model.evaluation.estimates import share_estimate
from dalle_model.evaluation.retrieval import COPY_SHARE, MAX_COMPARISONS, most_equal
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun

COPY_SIMILARITY = 0.99
"""A picture looks copied if it has so high a cosine with a training picture, or `COPY_SHARE` of its tokens."""
MAX_REFERENCES = 2_000
"""Real pictures that are searched for copies."""


def add_copies(table: Figures, run: JobRun, drawn: Drawn, real: Real) -> None:
    """The share of the best pictures that look copied from a training picture, and of real pictures, which
    are no copies.

    Nothing where the training set is not there. The features are those of the CLIP that ranked the pictures.
    """
    if "training_set" not in run.inputs:
        return
    chosen = drawn.winners(drawn.scores.shape[1])
    own = {"drawn": tokens_of(run.input_path("generations"), [drawn.ids[i] for i in chosen]), "real": np.zeros((0, 0), np.uint16)}
    if real.captions:
        own["real"] = np.concatenate(real.tokens)[:MAX_REFERENCES]
    num_training = sum(len(batch) for batch, _ in trained_on(run))
    at_most = max(1, int(MAX_COMPARISONS / max(1, num_training * own["drawn"].shape[1])))
    rng = np.random.default_rng(0)
    searched = {kind: np.sort(rng.permutation(len(tokens))[:at_most]) for kind, tokens in own.items()}
    equal = {kind: np.zeros(len(rows)) for kind, rows in searched.items()}
    learned: set[int] = set()
    done = 0
    for batch, others in trained_on(run, with_tokens=True):
        learned |= set(batch)
        for kind, rows in searched.items():
            if len(rows):
                equal[kind] = np.maximum(equal[kind], most_equal(own[kind][rows], others))
        done += len(batch)
        report_progress(done, num_training, "training pictures")
    alike = nearest_features(run, drawn, chosen, real, searched, learned)
    note = None if len(searched["drawn"]) == len(chosen) else f"{len(searched['drawn']):,} of {len(chosen):,} pictures were searched"
    of = {"space": f"tokens of dvae {run.inputs['dvae_id']}"}
    for kind, rows in searched.items():
        sets = (
            [(name, np.flatnonzero(np.isin(rows, some))) for name, some in sets_of(drawn)]
            if kind == "drawn"
            else [(None, np.arange(len(rows)))]
        )
        for name, places in sets:
            if not len(places):
                continue
            about = {"prompt_set": name, "best_of": drawn.scores.shape[1] if name else None, "note": note if name else None}
            by_tokens = equal[kind][places] >= COPY_SHARE
            table.add("copied_tokens", kind, share_estimate(by_tokens), **about, **of)
            if alike:
                by_features = alike[kind][places] >= COPY_SIMILARITY
                table.add("copied_features", kind, share_estimate(by_features), **about, space=f"clip {run.inputs['clip_id']}")
                by_tokens |= by_features
            table.add("copies", kind, share_estimate(by_tokens), **about, space="tokens or features")


def tokens_of(generations: Path, ids: list[str]) -> NDArray[np.uint16]:
    """Image tokens [P, L] of some pictures."""
    place_of, found = {generation_id: place for place, generation_id in enumerate(ids)}, {}
    for batch in iter_file(generations, GENERATIONS, ["generation_id", "image_tokens"], 4_096):
        for generation_id, tokens in zip(batch["generation_id"].to_pylist(), batch["image_tokens"], strict=True):
            if generation_id in place_of:
                found[place_of[generation_id]] = tokens.values.to_numpy()
    return np.stack([found[place] for place in range(len(ids))])


def trained_on(run: JobRun, with_tokens: bool = False) -> Iterator[tuple[list[int], NDArray[np.uint16]]]:
    """(pair ids, image tokens [T, L] or nothing) of the training rows of the training set."""
    columns = ["pair_id", "split", *(["image_tokens"] if with_tokens else [])]
    for batch in iter_batches(run.input_path("training_set"), TRAINING_SET, columns, 4_096):
        batch = batch.filter(pc.equal(batch["split"], "train"))
        if batch.num_rows:
            tokens = batch["image_tokens"].flatten().to_numpy().reshape(batch.num_rows, -1) if with_tokens else np.zeros((0, 0), np.uint16)
            yield batch["pair_id"].to_pylist(), tokens


def nearest_features(
    run: JobRun, drawn: Drawn, chosen: NDArray[np.int64], real: Real, searched: Mapping[str, NDArray[np.int64]], learned: set[int]
) -> dict[str, Numbers]:
    """The largest cosine of drawn and of real pictures with a training picture, for the CLIP that ranked;
    empty without its scores."""
    if "clip_scores" not in run.inputs:
        return {}
    by_pair: dict[int, Vectors] = {}
    wanted = {real.pair_ids[place] for place in searched["real"].tolist()}
    for ids, vectors in pair_features(run.input_path("clip_scores")):
        by_pair |= {pair_id: vector for pair_id, vector in zip(ids, vectors, strict=True) if pair_id in wanted}
    place_of = {int(place): prompt for prompt, place in enumerate(chosen.tolist())}
    best: dict[int, Vectors] = {}
    for some, vectors in embeddings(run.input_path("image_embeddings"), drawn.ids, 0):
        best |= {place_of[place]: vector for place, vector in zip(some.tolist(), vectors, strict=True) if place in place_of}
    width = len(next(iter(best.values())))
    own = {
        "drawn": np.stack([best[row] for row in searched["drawn"].tolist()]),
        "real": np.stack(
            [by_pair.get(real.pair_ids[row], np.zeros(width, np.float32)) for row in searched["real"].tolist()]
            or [np.zeros(width, np.float32)]
        ),
    }
    alike = {kind: np.full(len(vectors), -1.0) for kind, vectors in own.items()}
    for ids, vectors in pair_features(run.input_path("clip_scores")):
        is_learned = np.array([pair_id in learned for pair_id in ids], bool)
        if is_learned.any():
            for kind in own:
                alike[kind] = np.maximum(alike[kind], (own[kind] @ vectors[is_learned].T).max(1))
    return alike


def pair_features(folder: Path) -> Iterator[tuple[list[int], Vectors]]:
    """(pair ids, features) of scored pairs."""
    for batch in iter_batches(folder, CLIP_SCORES, ["pair_id", "image_embedding"], 4_096):
        if batch.num_rows:
            yield batch["pair_id"].to_pylist(), np.stack(batch["image_embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
