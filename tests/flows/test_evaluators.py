"""The CLIP that measures is never the one that chose in silence, and stays the same yardstick while pairs
come and go."""

import json

import pytest

from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from dalle_model.running.networks import history
from dalle_model.running.run_dir import prepare, write_json
from flows.runtime.evaluators import find_evaluator, is_measured, measuring_inputs

DRAWN_WITH = {
    "tokenizer": "bpe", "tokenizer_id": "b1", "dvae": "vae", "dvae_id": "v1", "clip": "runs/c/clip", "clip_id": "c1",
    "transformer": "runs/t/x",
}  # fmt: skip


class Jobs:
    """Leaves what the jobs leave, without training anything."""

    def __init__(self, root):
        self.ran, self.layout, self.evaluator_id = [], Layout(root), "e1"

    def __call__(self, job, config, inputs):
        run_dir = prepare(job, config, inputs)
        (run_dir / "clip").mkdir(exist_ok=True)
        self.ran.append((job, config.clip.pretrained, dict(inputs)))
        made = {"evaluator_id": self.evaluator_id} if job == "train_clip" else {"image_embeddings": "e.parquet"}
        result = {"run_id": run_dir.name, "checkpoint": self.layout.relative(run_dir / "clip"), "started_at": len(self.ran), **made}
        write_json(run_dir / "result.json", result)
        return result


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path)


@pytest.fixture
def config(tmp_path):
    """A collection whose pairs are there, and pictures drawn from it."""
    folder = tmp_path / "pairs" / "birds"
    folder.mkdir(parents=True)
    collect(folder, "p1")
    settings = {
        "source.name": "birds", "source.kind": "image_folders", "source.inputs": ["x"], "flow.check_pairs": False,
        "evaluate.evaluator": "train",
    }  # fmt: skip
    made = preset("demo", {"paths.data_root": str(tmp_path), **settings})
    for name, inputs in {"t": {"training_set": "training_sets/s", "training_set_id": "s"}, "generate-images-1": DRAWN_WITH}.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_json(tmp_path / "runs" / name / "config.json", {"inputs": inputs})
    return made


def collect(folder, pairs_id):
    (folder / "manifest.json").write_text(json.dumps({"result": {"pairs_id": pairs_id}}))


def with_settings(config, **overrides):
    from dalle_model.config.settings_file import overrides_of

    return preset("demo", {**overrides_of(config), **{name.replace("__", "."): value for name, value in overrides.items()}})


GENERATED = {"run_id": "generate-images-1", "generations": "g.parquet", "image_embeddings": "own.parquet"}


def test_a_second_clip_is_trained_once_and_looks_at_the_pictures(config, jobs):
    inputs, made = measuring_inputs(config, GENERATED, jobs)
    assert [job for job, *_ in jobs.ran] == ["train_clip", "score_generations"]
    assert jobs.ran[0][2] == {
        "pairs": "pairs/birds", "pairs_id": "p1", "role": "evaluator", **{name: DRAWN_WITH[name] for name in list(DRAWN_WITH)[:4]},
    }  # fmt: skip
    assert (inputs["evaluator_id"], inputs["clip_id"], inputs["evaluator_embeddings"]) == ("e1", "c1", "e.parquet")
    assert inputs["training_set_id"] == "s"
    assert len(made) == 2
    assert is_measured(config)


def test_new_pairs_keep_the_yardstick_and_other_settings_or_a_lost_one_make_a_new_one(config, jobs):
    first = find_evaluator(config, DRAWN_WITH, jobs)
    collect(jobs.layout.pairs("birds"), "p2")
    assert find_evaluator(config, DRAWN_WITH, jobs) == first
    assert len(jobs.ran) == 1
    find_evaluator(with_settings(config, seed=1), DRAWN_WITH, jobs)
    find_evaluator(with_settings(config, clip__width=64), DRAWN_WITH, jobs)
    find_evaluator(config, {**DRAWN_WITH, "dvae_id": "v2"}, jobs)
    assert len(jobs.ran) == 4
    (jobs.layout.root / first["checkpoint"]).rmdir()
    assert find_evaluator(config, DRAWN_WITH, jobs)["run_id"] != first["run_id"]


def test_an_evaluator_that_is_the_reranker_is_refused_unless_it_is_asked_for(config, jobs):
    jobs.evaluator_id = "c1"
    with pytest.raises(
        ValueError, match=r"evaluate.evaluator=ViT-B-32/openai is CLIP c1, which ranked the pictures of generate-images-1: judged by it"
    ):
        measuring_inputs(with_settings(config, evaluate__evaluator="ViT-B-32/openai"), GENERATED, jobs)
    assert jobs.ran == [("train_clip", "ViT-B-32/openai", {"role": "evaluator"})]
    published = with_settings(config, clip__pretrained="ViT-B-32/openai")
    with pytest.raises(
        ValueError, match="is not trained, so evaluate.evaluator=train would be the CLIP that ranks; name another published one"
    ):
        measuring_inputs(published, GENERATED, jobs)
    inputs, made = measuring_inputs(with_settings(config, evaluate__evaluator="reranker"), GENERATED, jobs)
    assert (inputs["evaluator"], inputs["evaluator_id"], inputs["evaluator_embeddings"], made) == ("runs/c/clip", "c1", "own.parquet", [])
    with pytest.raises(
        ValueError, match="evaluate.evaluator='second' is not one of train, reranker, MODEL/TAG of open_clip, local-dir:PATH"
    ):
        with_settings(config, evaluate__evaluator="second")
    assert not is_measured(preset("demo")), "the demo has its checker"
    assert history(jobs.layout, "clip") == [], "an evaluator never serves"
