"""What choosing the best of n is worth, by scorer and by the sampler's settings: exact, against every choice there is."""

from itertools import combinations
from statistics import mean

import pytest

RIGHT = [True, False, False, True, False]
FIRST = [0.1, 0.5, 0.3, 0.4, 0.2]
SECOND = [0.5, 0.1, 0.2, 0.3, 0.4]


def expected(scores, values, n):
    """The mean over all choices of n candidates of the value of the best-scored."""
    return mean(values[max(some, key=lambda i: scores[i])] for some in combinations(range(len(scores)), n))


def ranked(scores):
    return [1 + sum(other > score for other in scores) for score in scores]


@pytest.fixture
def batch(catalog):
    """Five judged pictures of one prompt, ranked by two CLIPs."""
    catalog.add(
        "runs", run_id="gen", job="generate_images", config='{"sampling": {"temperature": 0.5, "top_k": 8, "top_p": 1, "guidance": 1}}'
    )
    catalog.add("artifacts", kind="generations", artifact_id="g", path="runs/gen/generations.parquet", made_by="gen")
    for clip, pretrained in (("clip", ""), ("other", "ViT-B-32/laion2b")):
        catalog.add("runs", run_id=f"train-{clip}", config=f'{{"clip": {{"pretrained": "{pretrained}"}}}}')
        catalog.add("artifacts", kind="clip", artifact_id=clip, made_by=f"train-{clip}")
    catalog.add("generations", *({"generation_id": f"g{i}", "candidate_index": i} for i in range(5)))
    for clip, scores, part in (("clip", FIRST, "runs/gen/generations.parquet"), ("other", SECOND, "runs/s/rerank_scores.parquet")):
        rows = ({"generation_id": f"g{i}", "clip_score": scores[i], "rank": ranked(scores)[i]} for i in range(5))
        catalog.add("rerank_scores", *rows, clip_id=clip, part_path=part)
    catalog.add("evaluations", *({"generation_id": f"g{i}", "all_right": right} for i, right in enumerate(RIGHT)))
    return catalog


def test_scorers_stand_side_by_side_for_every_n(batch):
    rows = batch.query("scorers", run_id="gen")
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        *(("clip", "our own", True, n) for n in range(1, 6)),
        *(("other", "ViT-B-32/laion2b", False, n) for n in range(1, 6)),
    ]
    for row in rows:
        scores = FIRST if row[0] == "clip" else SECOND
        assert row[6] == pytest.approx(expected(scores, scores, row[4]), abs=1e-6)
        assert row[7] == pytest.approx(expected(scores, [float(right) for right in RIGHT], row[4]), abs=1e-9)
    assert batch.query("scorers") == rows  # the newest batch


def test_evaluation_is_the_newest_of_the_batch_with_curves_in_order(catalog):
    for run, day in (("old", 1), ("eval", 2), ("late", 3)):
        catalog.add("runs", run_id=run, job="evaluate", started_at=f"2026-01-0{day} 00:00:00")
    catalog.add("figures", run_id="old", value=0.9)
    catalog.add("figures", run_id="late", generations_run="another", value=0.8)
    catalog.add(
        "figures", {"figure": "psnr", "pictures": "reconstructed", "prompt_set": None, "best_of": None}, {"best_of": 4}, {"best_of": 1}
    )
    catalog.add("figures", {"blur_radius": 8}, {"blur_radius": 0}, figure="frechet")
    catalog.add("figures", pictures="chance", prompt_set=None, best_of=None, low=None, high=None)
    rows = catalog.query("evaluation", generations_run="gen")
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("retrieval", "drawn", 1, None), ("retrieval", "drawn", 4, None), ("retrieval", "chance", None, None),
        ("frechet", "drawn", 4, 0), ("frechet", "drawn", 4, 8), ("psnr", "reconstructed", None, None),
    ]  # fmt: skip
    assert catalog.column("evaluation", 5) == [0.8], "of the newest evaluation of all"
    assert catalog.column("evaluation", 4, generations_run="gen", figure="frechet") == [0, 8]
    assert catalog.query("evaluation", generations_run="none") == []


def test_scorers_name_an_evaluator(batch):
    batch.con.execute("update artifacts set kind = 'evaluator' where artifact_id = 'other'")
    batch.con.execute("""update runs set config = '{"clip": {"pretrained": ""}}' where run_id = 'train-other'""")
    assert {row[:2] for row in batch.query("scorers", run_id="gen")} == {("clip", "our own"), ("other", "our evaluator")}


def test_scorers_of_pictures_nobody_judged_have_scores_only(batch):
    batch.con.execute("delete from evaluations")
    assert {row[7] for row in batch.query("scorers")} == {None}
    assert batch.query("scorers", run_id="none") == []


def test_agreement_by_settings_averages_runs_that_differ_in_the_seed_alone(batch):
    batch.add("lineage", child_id="gen", role="transformer", parent_id="tf")
    batch.add("artifacts", kind="transformer", artifact_id="tf", made_by="train-tf")
    batch.add("runs", run_id="train-tf", config='{"train_transformer": {"caption_dropout": 0.1}}')
    rows = batch.query("agreement_by_settings")
    assert [row[:9] for row in rows] == [("training", 0.5, 8, 1.0, 1.0, 0.1, "tf", 1, 1)]
    assert rows[0][9:] == (pytest.approx(0.4), None, None, 1.0)
    batch.add("runs", run_id="again", config='{"sampling": {"temperature": 0.5, "top_k": 8, "top_p": 1, "guidance": 1}}')
    batch.add("lineage", child_id="again", role="transformer", parent_id="tf")
    part = "runs/again/generations.parquet"
    batch.add("generations", generation_id="h", run_id="again", part_path=part)
    batch.add("rerank_scores", generation_id="h", part_path=part)
    batch.add("evaluations", generation_id="h", all_right=True)
    (row,) = batch.query("agreement_by_settings")
    assert (row[7], row[8], row[9]) == (2, 1, pytest.approx(0.7))
    assert batch.query("agreement_by_settings", prompt_set="held_out_pair") == []


def test_dropped_prompts_of_a_batch_with_their_reasons(batch):
    batch.add("dropped_prompts", {"prompt": "a " * 90, "reason": "too_long", "detail": "180 tokens"}, {})
    batch.add("dropped_prompts", run_id="older")
    assert batch.column("dropped_prompts", 1) == ["line 2: it has no text", "180 tokens"]
    assert batch.column("dropped_prompts", 0, reason="too_long") == ["too_long"]
    assert batch.column("dropped_prompts", 0, run_id="older") == ["empty"]


def test_scorers_of_many_candidates_skip_numbers(catalog):
    catalog.add("generations", *({"generation_id": f"g{i}", "candidate_index": i} for i in range(100)))
    catalog.add("rerank_scores", *({"generation_id": f"g{i}", "clip_score": -i, "rank": i + 1} for i in range(100)))
    assert catalog.column("scorers", 4, run_id="gen") == [*range(1, 17), 32, 64, 100]
