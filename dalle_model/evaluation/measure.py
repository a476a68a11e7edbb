"""All figures of a batch of pictures: those that were drawn, beside real pictures, pictures of the training
and chance.

Real are the pictures of validation pairs, which no network learned from, with captions that occur in no
training either. The CLIP that judges is the input `evaluator`; with the CLIP that ranked the pictures in its
place, what it says of its own choice is too good.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.loading.image_batches import ImageBatches
from dalle_datasets.prompts.write import SEEN_CAPTION
from dalle_datasets.store.parquet import iter_batches, write_parquet
from dalle_datasets.store.schemas import FIGURES, PAIRS, TRAINING_SET
from dalle_model.clip import Clip
from dalle_model.dvae import DVAE, load_dvae
from dalle_model.dvae.loss import codebook_perplexity
from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor
from dalle_model.evaluation.batch import BLUR_RADII, Drawn, Figures, Numbers, Real, Row, Vectors, embeddings, read_drawn, sets_of
from dalle_model.evaluation.copies import add_copies
from dalle_model.evaluation.distances import all_distances
from dalle_model.evaluation.estimates import Estimate, mean_estimate, share_estimate
from dalle_model.evaluation.likeness import SSIM_WINDOW, Pixels, blur, psnr, ssim
from dalle_model.evaluation.retrieval import NUM_DISTRACTORS, first_among
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.sampling.rerank import GROUP_SIZES, best_of, load_scorer
from dalle_model.text import known_captions, normalize_caption
from dalle_model.training.parallel import own_device

MAX_CAPTIONS, MAX_REAL = 10_000, 30_000
"""Most captions that distractors come from, and real pictures that are measured."""
FEW, SMALL = 30, 1_000
"""Fewer prompts say little, and fewer pictures make a distance depend on their number."""
AT_ONCE = 256


def measure(run: JobRun) -> Row:
    """Write `figures.parquet` (`schemas.FIGURES`); returns its path and the figures that a person reads
    first, `headline`.

    Raises `ValueError` for pictures, features or networks that are broken or do not belong together.
    """
    device = own_device()
    evaluator, dvae = load_scorer(run.input_path("evaluator")), load_dvae(run.input_path("dvae"), run.inputs["dvae_id"]).to(device)
    evaluator.network.to(device)
    is_reranker = run.inputs["evaluator_id"] == run.inputs["clip_id"]
    drawn = read_drawn(run.input_path("generations"))
    known, own = captions_of(run, drawn)
    drawn.sets[[normalize_caption(prompt, lowercase=True) in known for prompt in drawn.prompts]] = SEEN_CAPTION
    asked = dict.fromkeys(normalize_caption(prompt, lowercase=True) for prompt in drawn.prompts)
    captions = [*asked, *[caption for caption in own if caption not in asked][: max(0, MAX_CAPTIONS - len(asked))]]
    real = look_at_real(run, evaluator, dvae, set(own))
    table = Figures(space=f"clip {run.inputs['evaluator_id']}", is_by_reranker=is_reranker)
    add_likeness(table, real, run.inputs["dvae_id"], dvae.config.codebook_size)
    features = add_retrieval(table, run, evaluator, drawn, real, captions)
    add_distances(table, run, evaluator, drawn, real, features, dvae.config.image_size)
    add_copies(table, run, drawn, real)
    path = run.run_dir / "figures.parquet"
    write_parquet(path, pa.Table.from_pylist(table.rows, FIGURES.with_metadata(None)), FIGURES)
    sets = {str(name): int(number) for name, number in zip(*np.unique(drawn.sets.astype(str), return_counts=True), strict=True)}
    return {
        "figures": run.layout.relative(path),
        "evaluator_is_reranker": is_reranker,
        "measured_prompts": sets,
        "headline": table.headline(drawn.scores.shape[1]),
    }


def captions_of(run: JobRun, drawn: Drawn) -> tuple[set[str], list[str]]:
    """The captions that occur in training, of the prompts and of the validation pairs, and those of the
    validation pairs that do not.

    All are in the spelling of `normalize_caption`, and in file order.
    """

    def of_split(split: str) -> Iterator[list[str]]:
        for batch in iter_batches(run.input_path("pairs"), PAIRS, ["caption", "split"], 10_000):
            yield batch.filter(pc.equal(batch["split"], split))["caption"].to_pylist()

    def of_training() -> Iterator[list[str]]:
        if "training_set" in run.inputs:  # may hold pairs that have been withdrawn since
            for batch in iter_batches(run.input_path("training_set"), TRAINING_SET, ["caption", "split"], 10_000):
                yield batch.filter(pc.equal(batch["split"], "train"))["caption"].to_pylist()

    own = [normalize_caption(caption, lowercase=True) for captions in of_split("validation") for caption in captions]
    known = known_captions([*drawn.prompts, *own], chain(of_split("train"), of_training()))
    return known, [caption for caption in dict.fromkeys(own) if caption not in known]


def look_at_real(run: JobRun, evaluator: Clip, dvae: DVAE, unseen: set[str]) -> Real:
    """Pictures of the validation pairs with unseen captions; all of them where hardly any caption is
    unseen."""
    pairs = ImageBatches(run.input_path("pairs"), "validation", dvae.config.image_size)
    real, total = Real(), min(pairs.num_rows, MAX_REAL)

    def is_wanted(caption: str) -> bool:
        return len(unseen) < FEW or normalize_caption(caption, lowercase=True) in unseen

    for i, batch in enumerate(pairs.in_order(AT_ONCE)):
        wanted = [place for place, caption in enumerate(batch.captions) if is_wanted(caption)]
        if wanted:
            add_pictures(real, evaluator, dvae, batch.images[wanted])
            real.captions += [batch.captions[place] for place in wanted]
            real.pair_ids += batch.pair_ids[wanted].tolist()
        report_progress(min((i + 1) * AT_ONCE, total), total, "real pictures")
        if len(real.captions) >= MAX_REAL:
            break
    return real


def add_pictures(real: Real, evaluator: Clip, dvae: DVAE, images: Pixels) -> None:
    """Measure some pictures [B, S, S, 3] and what the dVAE makes of them."""
    tokens = dvae.tokenize(as_floats(as_tensor(images)).to(next(dvae.parameters()).device))
    rebuilt = as_bytes(dvae.decode_tokens(tokens))
    for radius in BLUR_RADII:
        real.features[radius].append(embed(evaluator, blur(images, radius)))
    real.rebuilt.append(embed(evaluator, rebuilt))
    real.psnr.append(psnr(images, rebuilt))
    if images.shape[1] >= SSIM_WINDOW:
        real.ssim.append(ssim(images, rebuilt))
    real.tokens.append(tokens.cpu().numpy().astype(np.uint16))


def embed(evaluator: Clip, images: Pixels) -> Vectors:
    """Features [B, E], in the half precision in which those of drawn pictures are stored."""
    parts = [evaluator.encode_images(as_floats(as_tensor(images[i : i + AT_ONCE]))) for i in range(0, len(images), AT_ONCE)]
    return np.concatenate([part.cpu().half().float().numpy() for part in parts])


def sizes_of(num_candidates: int) -> list[int]:
    """The n of "best of n": the usual ones, and all candidates."""
    return sorted({n for n in GROUP_SIZES if n <= num_candidates} | {num_candidates})


def add_likeness(table: Figures, real: Real, dvae_id: str, codebook_size: int) -> None:
    """What the dVAE keeps of real pictures, and how much of its codebook it uses for them."""
    if not real.captions:
        return
    table.add("psnr", "reconstructed", mean_estimate(np.concatenate(real.psnr)), space="pixels")
    if real.ssim:
        table.add("ssim", "reconstructed", mean_estimate(np.concatenate(real.ssim)), space="pixels")
    counts = np.bincount(np.concatenate(real.tokens).reshape(-1), minlength=codebook_size)
    of_tokens = {"space": f"tokens of dvae {dvae_id}"}
    few = len(real.captions) * real.tokens[0].shape[1] < 10 * codebook_size
    note = f"{counts.sum():,} tokens are too few to meet all {codebook_size:,} codes" if few else None
    codes = {"codes_used": float(np.count_nonzero(counts)), "perplexity": codebook_perplexity(torch.from_numpy(counts))}
    for figure, value in codes.items():
        table.add(figure, "real", Estimate(value, np.nan, np.nan, len(real.captions)), **of_tokens, note=note)


def add_retrieval(table: Figures, run: JobRun, evaluator: Clip, drawn: Drawn, real: Real, captions: list[str]) -> dict[int, Vectors]:
    """How often a picture's caption comes first among 100, the likeness to it, and how much candidates
    differ.

    Returns the features [P, E] of the best of n for every n. Where there are no 100 captions, all are
    compared.
    """
    if len(captions) < 2:
        raise ValueError(
            f"{run.input_path('generations')} has one prompt, and there are no other captions to tell it from; draw more prompts"
        )
    places = {caption: place for place, caption in enumerate(captions)}
    texts = np.concatenate(
        [evaluator.encode_texts(captions[i : i + AT_ONCE]).float().cpu().numpy() for i in range(0, len(captions), AT_ONCE)]
    )
    spellings = [normalize_caption(prompt, lowercase=True) for prompt in drawn.prompts]
    asked = np.array([places[spelling] for spelling in spellings])
    num_prompts, num_candidates = drawn.scores.shape
    ranked, likeness = np.zeros(drawn.scores.size), np.zeros(drawn.scores.size)
    sums = np.zeros((num_prompts, texts.shape[1]))
    kept = {n: np.zeros((num_prompts, texts.shape[1]), np.float32) for n in sizes_of(num_candidates)}
    prompt_of = {n: np.full(drawn.scores.size, -1) for n in kept}
    for n, prompts in prompt_of.items():
        prompts[drawn.winners(n)] = np.arange(num_prompts)
    for some, vectors in embeddings(run.input_path("evaluator_embeddings"), drawn.ids, texts.shape[1]):
        prompts = some // num_candidates
        ranked[some], likeness[some] = placed(vectors, texts, asked[prompts])
        np.add.at(sums, prompts, vectors)
        for n, winners in prompt_of.items():
            kept[n][winners[some][winners[some] >= 0]] = vectors[winners[some] >= 0]
    first, scores = ranked.reshape(drawn.scores.shape), likeness.reshape(drawn.scores.shape)
    among = min(NUM_DISTRACTORS + 1, len(captions))
    notes = [f"among {among} captions, as there are no more"] if among <= NUM_DISTRACTORS else []
    by_reranker = ["judged by the CLIP that chose, so too good"] if table.is_by_reranker else []
    pairs = num_candidates * (num_candidates - 1)
    for name, rows in sets_of(drawn):
        few = [f"only {len(rows)} prompt{'s' * (len(rows) > 1)}"] if len(rows) < FEW else []
        for n in kept:
            about = {"prompt_set": name, "best_of": n}
            own = best_of(first[rows], drawn.scores[rows], n)
            table.add("retrieval", "drawn", share_estimate(own), **about, note=_joined([*by_reranker, *notes, *few]))
            own = best_of(scores[rows], drawn.scores[rows], n)
            table.add("clip_score", "drawn", mean_estimate(own), **about, note=_joined([*by_reranker, *few]))
        if pairs:
            apart = 1 - (np.square(sums[rows]).sum(1) - num_candidates) / pairs
            table.add("diversity", "drawn", mean_estimate(apart), prompt_set=name, note=_joined(few))
    table.add("retrieval", "chance", Estimate(1 / among, np.nan, np.nan, len(captions)), space="none", note=_joined(notes))
    if not real.captions:
        return kept
    vectors = np.concatenate(real.features[0])
    where = np.array([places.get(normalize_caption(caption, lowercase=True), -1) for caption in real.captions])
    if (where >= 0).any():
        real_first, real_scores = placed(vectors[where >= 0], texts, where[where >= 0])
        table.add("retrieval", "real", share_estimate(real_first), note=_joined(notes))
        table.add("clip_score", "real", mean_estimate(real_scores))
    if len(vectors) > 1:
        number, total = len(vectors), vectors.sum(0, dtype=np.float64)
        apart = 1 - (vectors @ total - 1) / (number - 1)
        table.add("diversity", "real", mean_estimate(apart.astype(np.float64)), note="between pictures of different captions")
    return kept


def placed(vectors: Vectors, texts: Vectors, own: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """(how likely a picture's own caption comes first among 100, cosine with it), each [B]."""
    cosines = vectors @ texts.T
    likeness = cosines[np.arange(len(own)), own]
    num_better = (cosines >= likeness[:, None]).sum(1) - 1
    return first_among(num_better, len(texts) - 1), likeness.astype(np.float64)


def add_distances(
    table: Figures, run: JobRun, evaluator: Clip, drawn: Drawn, real: Real, features: Mapping[int, Vectors], side: int
) -> None:
    """How far drawn pictures are from real ones, one for each prompt: for every n without blur, and for every
    blur with the best of all.

    Beside them as many training pictures, which say how far apart real pictures are at that number, and
    reconstructions.
    """
    if len(real.captions) < 2:
        return
    references = {radius: np.concatenate(parts) for radius, parts in real.features.items()}
    learned = training_pictures(run, evaluator, side, min(MAX_REAL, len(drawn.prompts)))
    most = max(features)
    chosen = drawn.winners(most)
    blurred: dict[int, list[Vectors]] = {radius: [] for radius in BLUR_RADII if radius}
    for start in range(0, len(chosen), AT_ONCE):
        images = [np.asarray(Image.open(run.layout.root / drawn.paths[i]).convert("RGB")) for i in chosen[start : start + AT_ONCE]]
        for radius, parts in blurred.items():
            parts.append(embed(evaluator, blur(np.stack(images), radius)))
    for name, rows in sets_of(drawn):
        if len(rows) < 2:
            continue
        for n, vectors in features.items():
            _add_distances(table, "drawn", vectors[rows], references[0], prompt_set=name, best_of=n, blur_radius=0.0)
        for radius, parts in blurred.items():
            vectors = np.concatenate(parts)[rows]
            _add_distances(table, "drawn", vectors, references[radius], prompt_set=name, best_of=most, blur_radius=float(radius))
        if len(learned) > 1:
            _add_distances(table, "training", learned[: len(rows)], references[0], prompt_set=name, blur_radius=0.0)
    _add_distances(table, "reconstructed", np.concatenate(real.rebuilt), references[0], blur_radius=0.0)


def _add_distances(table: Figures, pictures: str, vectors: Vectors, references: Vectors, **about: Any) -> None:
    smaller, width = min(len(vectors), len(references)), vectors.shape[1]
    of = f"{len(vectors):,} pictures against {len(references):,}"
    if smaller <= width:
        note = f"{of} are fewer than the {width} features: frechet depends on their number; compare with training pictures"
    else:
        note = f"{of} are a small sample" if smaller < SMALL else ""
    for figure, found in all_distances(vectors, references).items():
        table.add(figure, pictures, found, **about, note=note or None)


def training_pictures(run: JobRun, evaluator: Clip, side: int, number: int) -> Vectors:
    """Features of `number` pictures that were learned from, drawn without replacement; fewer where there are
    fewer."""
    try:
        pairs = ImageBatches(run.input_path("pairs"), "train", side)
    except ValueError:
        return np.zeros((0, 0), np.float32)
    number = min(number, pairs.num_rows)
    size = min(number, AT_ONCE)
    batches = islice(pairs.batches(size, run.config.seed), -(-number // size))
    return np.concatenate([embed(evaluator, batch.images) for batch in batches])[:number]


def _joined(notes: Iterable[str]) -> str | None:
    return "; ".join(notes) or None
