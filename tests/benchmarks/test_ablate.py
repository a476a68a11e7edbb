"""Ablations: every variant is a setting that exists, and the table compares prompt by prompt."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from dalle_model.config.presets import preset


@pytest.fixture
def ablate(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    yield importlib.import_module("ablate")
    sys.modules.pop("ablate", None)
    sys.modules.pop("bench_quality", None)


def test_every_variant_changes_a_setting_of_the_demo(ablate):
    plain = preset("demo")
    for _, variants in ablate.ABLATIONS.values():
        for name, changes in variants.items():
            assert preset("demo", dict(changes)) != plain, name


def test_variants_are_compared_prompt_by_prompt_over_seeds(ablate, capsys):
    first = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0]])  # right by rank, for two prompts
    better = np.ones((2, 4))
    drawn = {
        ablate.AS_IT_IS: [{"unseen_scene": first}, {"unseen_scene": first}],
        "new": [{"unseen_scene": better}, {"unseen_scene": first}],
    }
    rows = {(row["variant"], row["best_of"]): row for row in ablate.figures(drawn)}
    assert rows[ablate.AS_IT_IS, 1]["right"] == 0.375
    assert rows[ablate.AS_IT_IS, 4]["right"] == 1.0
    assert rows["new", 1]["by_seed"] == [1.0, 0.375]
    assert rows["new", 1]["gain"] == pytest.approx((0.75 + 0.5) / 2 / 2)
    assert (rows["new", 4]["gain"], rows["new", 4]["gain_low"], rows["new", 4]["gain_high"]) == (0, 0, 0)
    ablate.print_table(drawn)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "| variant | prompts | best of 1 | best of 4 | difference at 1 | at 4 |"
    assert said[3].startswith("| new | unseen scene | 0.688 [")
    assert "| +0.312 [" in said[3]


def test_a_finished_variant_is_not_made_again(ablate, monkeypatch, tmp_path):
    asked = []
    account = {"results": {"generate_images": {"generations": "g"}, "evaluate": {"evaluations": "e"}}}
    monkeypatch.setattr(ablate, "finished_pipeline", lambda layout, config: asked.append(config.seed) or account)
    monkeypatch.setattr(ablate, "prefect_flows", lambda config: pytest.fail("it is finished"))
    monkeypatch.setattr(ablate, "sorted_by_rank", lambda *paths: paths)
    assert ablate.draw({"paths.data_root": str(tmp_path), "seed": 2}) == (tmp_path / "g", tmp_path / "e")
    assert asked == [2]


def test_what_is_only_drawn_anew_needs_no_pipeline(ablate, monkeypatch, tmp_path):
    made = {"generate_images": {"generations": "g", "run_id": "r"}, "evaluate": {"evaluations": "e"}}
    ran = []
    monkeypatch.setattr(ablate, "find_networks", lambda config: {"transformer": "t"})
    monkeypatch.setattr(ablate, "prefect_flows", lambda config: pytest.fail("the networks are there"))
    monkeypatch.setattr(ablate, "run_job", lambda job, config, inputs: ran.append((job, config.sampling.temperature, inputs)) or made[job])
    monkeypatch.setattr(ablate, "sorted_by_rank", lambda *paths: paths)
    overrides = {"paths.data_root": str(tmp_path), "sampling.temperature": 0.5, "evaluate.num_prompts": 4}
    assert ablate.draw(overrides) == (tmp_path / "g", tmp_path / "e")
    assert [(job, temperature) for job, temperature, _ in ran] == [("generate_images", 0.5), ("evaluate", 0.5)]
    assert ran[0][2]["transformer"] == "t"
    assert ran[1][2]["generations_run"] == "r"
