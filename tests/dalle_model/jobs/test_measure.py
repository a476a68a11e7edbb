"""What `evaluate` measures with an evaluator: against figures made by hand, for every kind of set, and again
for the same bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from dalle_datasets.prompts.read import text_prompts
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import iter_batches, read_parquet, write_parquet, write_parts
from dalle_datasets.store.schemas import CLIP_SCORES, FIGURES, GENERATION_EMBEDDINGS, GENERATIONS, PAIRS, PROMPTS, TRAINING_SET
from dalle_model.clip import build_clip, save_clip
from dalle_model.dvae import load_dvae
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.evaluation import estimates
from dalle_model.evaluation import measure as module
from dalle_model.evaluation.distances import all_distances
from dalle_model.evaluation.retrieval import first_among
from dalle_model.sampling.rerank import load_scorer
from dalle_model.text import BpeTokenizer, normalize_caption


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """Intervals of distances are looked at in the tests of their own; here they only take time."""
    monkeypatch.setattr(estimates, "DISTANCE_SAMPLES", 20)


@pytest.fixture
def batch(tmp_path, pairs, networks, make_config, run_job):
    """Pictures for three captions of validation pairs, one of a training pair, and one that is in no pair;
    and a second CLIP."""
    rows = pa.Table.from_batches(iter_batches(tmp_path / "pairs/emoji", PAIRS, ["pair_id", "caption", "split"], 1_000))
    captions = {split: rows.filter(pc.equal(rows["split"], split))["caption"].to_pylist() for split in ("train", "validation")}
    asked = [*captions["validation"][:3], captions["train"][0].upper(), "nothing of the kind"]
    write_parquet(tmp_path / "prompts.parquet", text_prompts(asked).prompts, PROMPTS)
    prompts = {"prompts": "prompts.parquet", "prompts_id": "1"}
    config = make_config({"sampling.truncate_prompts": True})
    made = run_job("generate_images", config, {**prompts, **networks})
    torch.manual_seed(7)
    evaluator_id = save_clip(tmp_path / "evaluator", build_clip(config.clip, BpeTokenizer.load(tmp_path / "bpe")))
    of_batch = {"generations": made["generations"], "generations_run": made["run_id"]}
    scored = run_job("score_generations", config, {**of_batch, "clip": "evaluator", "clip_id": evaluator_id})
    inputs = {
        **of_batch, **prompts, **pairs, "evaluator": "evaluator", "evaluator_id": evaluator_id,
        "evaluator_embeddings": scored["image_embeddings"], "image_embeddings": made["image_embeddings"],
        **{name: networks[name] for name in ("clip_id", "dvae", "dvae_id")},
    }  # fmt: skip
    return inputs, captions, asked


def figures_of(tmp_path, made):
    return read_parquet(tmp_path / made["figures"], FIGURES).to_pylist()


def find(rows, figure, pictures, **wanted):
    (row,) = (row for row in rows if (row["figure"], row["pictures"]) == (figure, pictures) and all(row[n] == v for n, v in wanted.items()))
    return row


def training_set(tmp_path, networks, batch, num_copied=0):
    """A training set of all pairs, with their real tokens; some of which are those of the best pictures; and
    the CLIP's scores."""
    inputs = batch[0]
    pairs = pa.Table.from_batches(iter_batches(tmp_path / "pairs/emoji", PAIRS, ["pair_id", "caption", "split"], 1_000)).to_pylist()
    drawn = read_parquet(tmp_path / inputs["generations"], GENERATIONS).to_pylist()
    best = [row["image_tokens"] for row in drawn if row["rank"] == 1]
    rows, scores = [], []
    for i, pair in enumerate(sorted(pairs, key=lambda row: row["split"])):
        tokens = best[i] if i < num_copied else np.random.default_rng(i).integers(0, 16, 64).tolist()
        rows.append({**pair, "text_tokens": [1], "image_tokens": tokens})
        vector = np.random.default_rng(i).normal(size=32)
        scores.append(
            {
                "pair_id": pair["pair_id"],
                "clip_score": 0.0,
                "image_embedding": (vector / np.linalg.norm(vector)).astype(np.float16).tolist(),
            }
        )
    write_parts(
        tmp_path / "set", pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET, rows_per_part=25, row_group_size=10
    )
    write_parquet(tmp_path / "scores/part.parquet", pa.Table.from_pylist(scores, CLIP_SCORES.with_metadata(None)), CLIP_SCORES)
    return {**inputs, "training_set": "set", "training_set_id": "ab", "clip_scores": "scores"}


def test_figures_are_those_made_by_hand_and_the_same_bytes_every_time(tmp_path, networks, batch, make_config, run_job):
    inputs = training_set(tmp_path, networks, batch, num_copied=5)
    made = run_job("evaluate", make_config(), inputs)
    rows = figures_of(tmp_path, made)
    check_retrieval(tmp_path, batch, made, rows)
    check_distances(tmp_path, batch, rows)
    check_copies(rows)
    before = (tmp_path / made["figures"]).read_bytes()
    (Layout(tmp_path).run(made["run_id"]) / "result.json").unlink()
    assert run_job("evaluate", make_config(), inputs)["headline"] == made["headline"]
    assert (tmp_path / made["figures"]).read_bytes() == before


def check_retrieval(tmp_path, batch, made, rows):
    """By the evaluator, on captions that were never seen."""
    inputs, captions, asked = batch
    assert made["measured_prompts"] == {"own": 4, "seen_caption": 1}
    assert not made["evaluator_is_reranker"]
    clip = load_scorer(tmp_path / "evaluator")
    known = {normalize_caption(caption, lowercase=True) for caption in captions["train"]}
    pool = list(
        dict.fromkeys(
            text
            for text in (normalize_caption(caption, lowercase=True) for caption in [*sorted(asked), *captions["validation"]])
            if text not in known or text == asked[3].lower()
        )
    )
    texts = clip.encode_texts(pool).numpy()
    drawn = read_parquet(tmp_path / inputs["generations"], GENERATIONS).to_pylist()
    stored = read_parquet(tmp_path / inputs["evaluator_embeddings"], GENERATION_EMBEDDINGS).to_pylist()
    vectors = {row["generation_id"]: np.array(row["image_embedding"], np.float32) for row in stored}
    expected = []
    for row in drawn:
        if row["prompt"] != asked[3]:
            cosines = texts @ vectors[row["generation_id"]]
            own = cosines[pool.index(row["prompt"].lower())]
            expected.append(first_among(np.array([(cosines >= own).sum() - 1]), len(pool) - 1)[0])
    assert find(rows, "retrieval", "drawn", prompt_set="own", best_of=1)["value"] == pytest.approx(np.mean(expected))
    assert find(rows, "retrieval", "chance")["value"] == 1 / len(pool)
    row = find(rows, "retrieval", "drawn", prompt_set="seen_caption", best_of=4)
    assert row["note"] == f"among {len(pool)} captions, as there are no more; only 1 prompt"
    assert row["high"] - row["low"] > 0.7, "one prompt says little"
    assert row["space"] == f"clip {inputs['evaluator_id']}"
    assert {row["figure"] for row in made["headline"]} == {"retrieval", "copies", "kid", "psnr", "ssim"}


def check_distances(tmp_path, batch, rows):
    """Of one picture a prompt, beside training pictures, at every blur."""
    inputs, _, asked = batch
    clip, dvae = load_scorer(tmp_path / "evaluator"), load_dvae(tmp_path / "dvae")
    real = module.ImageBatches(tmp_path / "pairs/emoji", "validation", 32)
    (images,) = (batch.images for batch in real.in_order(100))
    references = module.embed(clip, images)
    drawn = read_parquet(tmp_path / inputs["generations"], GENERATIONS).to_pylist()
    stored = read_parquet(tmp_path / inputs["evaluator_embeddings"], GENERATION_EMBEDDINGS).to_pylist()
    vectors = {row["generation_id"]: np.array(row["image_embedding"], np.float32) for row in stored}
    best = [row for row in sorted(drawn, key=lambda row: row["prompt_id"]) if row["rank"] == 1 and row["prompt"] != asked[3]]
    expected = all_distances(np.stack([vectors[row["generation_id"]] for row in best]), references)
    for figure in ("frechet", "kid", "cmmd"):
        row = find(rows, figure, "drawn", prompt_set="own", best_of=4, blur_radius=0)
        assert (row["value"], row["low"], row["num_samples"]) == pytest.approx((*expected[figure][:2], 4))
        assert "4 pictures against 6 are fewer than the 32 features" in row["note"]
        assert find(rows, figure, "training", prompt_set="own")["num_samples"] == 4
        assert find(rows, figure, "reconstructed")["num_samples"] == 6
        found = [row["blur_radius"] for row in rows if (row["figure"], row["pictures"], row["best_of"]) == (figure, "drawn", 4)]
        assert found == [0, 1, 2, 4, 8], "none for the set of one prompt"
    rebuilt = module.as_bytes(dvae.decode_tokens(dvae.tokenize(as_floats(as_tensor(images)))))
    error = np.square((images.astype(float) - rebuilt) / 255).mean((1, 2, 3))
    assert find(rows, "psnr", "reconstructed")["value"] == pytest.approx(np.mean(-10 * np.log10(error)))
    assert find(rows, "codes_used", "real")["value"] == len(np.unique(dvae.tokenize(as_floats(as_tensor(images))).numpy()))


def check_copies(rows):
    """All five best pictures are in the training set; real pictures are copies of nothing."""
    assert find(rows, "copied_tokens", "drawn", prompt_set="own")["value"] == 1
    assert find(rows, "copied_features", "drawn", prompt_set="own")["value"] == 0
    assert find(rows, "copies", "drawn", prompt_set="seen_caption")["value"] == 1
    copied = find(rows, "copies", "real")
    assert (copied["value"], copied["low"], copied["num_samples"]) == (0, 0, 6)
    assert 0.3 < copied["high"] < 0.5, "six pictures prove little"


def test_the_clip_that_chose_says_so_when_it_judges(tmp_path, networks, batch, make_config, run_job):
    inputs = batch[0] | {"evaluator": "clip", "evaluator_id": networks["clip_id"], "evaluator_embeddings": batch[0]["image_embeddings"]}
    made = run_job("evaluate", make_config(), inputs)
    assert made["evaluator_is_reranker"]
    assert (
        "judged by the CLIP that chose, so too good"
        in find(figures_of(tmp_path, made), "clip_score", "drawn", best_of=4, prompt_set="own")["note"]
    )


def test_broken_inputs_are_refused(tmp_path, batch, make_config, run_job):
    inputs = batch[0]
    table = read_parquet(tmp_path / inputs["evaluator_embeddings"], GENERATION_EMBEDDINGS)

    def refused(message, rows=None, **changed):
        if rows is not None:
            write_parquet(tmp_path / "odd.parquet", rows, GENERATION_EMBEDDINGS)
            changed["evaluator_embeddings"] = "odd.parquet"
        with pytest.raises(ValueError, match=message):
            run_job("evaluate", make_config(), {**inputs, "try": message, **changed})

    def with_vectors(vectors):
        column = pa.array(vectors, GENERATION_EMBEDDINGS.field("image_embedding").type)
        return table.set_column(2, GENERATION_EMBEDDINGS.field("image_embedding"), column)

    vectors = [np.array(vector, np.float16) for vector in table["image_embedding"].to_pylist()]
    refused(r"odd.parquet: features of pictures are not numbers; delete the run", with_vectors([v * np.float16("nan") for v in vectors]))
    refused(r"features of pictures have length 3, not 32", with_vectors([v[:3] for v in vectors]))
    refused(r"odd.parquet has features of 7 of 20 pictures; score the pictures again", table.slice(0, 7))
    drawn = read_parquet(tmp_path / inputs["generations"], GENERATIONS)
    write_parquet(tmp_path / "uneven.parquet", drawn.slice(1), GENERATIONS)
    refused(r"uneven.parquet has 3 to 4 candidates for a prompt, but a batch has as many for each", generations="uneven.parquet")
    write_parquet(tmp_path / "empty.parquet", drawn.slice(0, 0), GENERATIONS)
    refused(r"empty.parquet holds no pictures", generations="empty.parquet")
