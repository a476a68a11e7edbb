"""`dalle bench scenes`: verdicts of a painter that knows everything, and of one that knows little; rows, resuming, refusals."""

import csv

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.demo.scene_judge import SceneJudge
from dalle_datasets.demo.scene_questions import QUESTIONS
from dalle_model.evaluation.scenes import ask, asked_scenes, figures, judge_truth
from flows.cli.bench import keep_row, print_rows, read_rows
from flows.cli.main import main


@pytest.fixture(scope="module")
def judge():
    return SceneJudge()


def share(found, question, split, best_of=1):
    return next(f for f in found if (f["question"], f["split"], f["best_of"]) == (question, split, best_of))


def test_a_painter_of_truth_gets_everything_right_and_one_of_first_things_only_single_ones(judge, tmp_path):
    asked = asked_scenes(4)
    assert judge_truth(judge, asked, 32) == 0
    pictures = {scene.caption(): Image.fromarray(scene.draw()) for scene in asked}
    blank = Image.new("RGB", (64, 64), "white")
    rows = list(ask(lambda caption: [pictures[caption], blank], judge, asked, tmp_path / "a.jsonl", "knows"))
    found = figures(rows)
    assert {(f["question"], f["right"]) for f in found if f["best_of"] == 2} == {(name, 1.0) for name in (*QUESTIONS, "all")}
    one = share(found, "all", "held_out")
    assert (one["right"], one["num_prompts"]) == (0.5, 24), "of two candidates one is blank"
    best = share(found, "colours", "seen", 2)
    assert 0.3 < best["low"] < best["high"] == 1, "four prompts prove little"
    alone = {s.caption(): Image.fromarray(type(s)("one_object", s.things[:1], s.background).draw()) for s in asked}
    few = figures(list(ask(lambda caption: [alone[caption]], judge, asked, tmp_path / "a.jsonl", "few")))
    assert [share(few, name, "seen")["right"] for name in QUESTIONS] == [1, 0, 0, 1, 0, 0]


def test_an_interrupted_bench_goes_on_where_it_was(judge, tmp_path):
    asked, drawn = asked_scenes(2), []

    def draw(caption):
        if len(drawn) == 10:
            raise KeyboardInterrupt
        drawn.append(caption)
        return [Image.new("RGB", (32, 32), "white")]

    with pytest.raises(KeyboardInterrupt):
        list(ask(draw, judge, asked, tmp_path / "v.jsonl", "k"))
    with (tmp_path / "v.jsonl").open("a") as file:
        file.write('{"key": "k", "capt')
    drawn.clear()
    rows = list(ask(lambda caption: drawn.append(caption) or [Image.new("RGB", (32, 32))], judge, asked, tmp_path / "v.jsonl", "k"))
    assert (len(rows), len(drawn)) == (len(asked), len(asked) - 10)
    assert list(ask(lambda caption: 1 / 0, judge, asked, tmp_path / "v.jsonl", "k")) == rows


def test_a_leaderboard_replaces_a_row_of_the_same_model_and_settings(judge, tmp_path, capsys):
    def row(model_id, right, **more):
        cells = [
            {"question": name, "split": split, "best_of": 1, "right": right, "low": 0.0, "high": 1.0, "num_prompts": 2}
            for name in (*QUESTIONS, "all")
            for split in ("seen", "unseen", "held_out")
        ]
        about = {"name": model_id, "model_id": model_id, "version": 1, "num_images": 1, "num_prompts": 2, "seed": 0, "sampling": "s"}
        return {**about, "parameters": {"dvae": 10**6}, "training_s": 90.0, "budget": "", "judge_error": 0.0, "figures": cells, **more}

    path = tmp_path / "leaderboard.json"
    for made in (row("a", 0.25), row("b", 0.75), row("a", 0.5), row("a", 0.5, seed=1)):
        keep_row(path, made)
    assert [(r["model_id"], r["seed"], r["figures"][0]["right"]) for r in read_rows(path)] == [("b", 0, 0.75), ("a", 0, 0.5), ("a", 1, 0.5)]
    print_rows(read_rows(path))
    said = capsys.readouterr().out
    assert "0.75 [0.00, 1.00]" in said
    assert "at most 0.0% of rendered truth wrong" in said
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"leaderboard.json is no leaderboard of `dalle bench scenes`"):
        read_rows(path)


def test_training_pictures_are_a_folder_that_is_trained_on(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "scenes", "--write", str(tmp_path / "corpus"), "--num-pairs", "30"])
    assert "next: dalle train" in capsys.readouterr().out
    with (tmp_path / "corpus/metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert np.asarray(Image.open(tmp_path / "corpus" / rows[7]["file_name"])).shape == (64, 64, 3)
    (tmp_path / "corpus/notes.txt").write_text("mine")
    for arguments, message in {
        ("--write", str(tmp_path / "corpus")): "holds other files; choose a new folder",
        (): "give model folders or data roots to ask, or --write FOLDER",
        (str(tmp_path),): "is no model folder (model.json is missing)",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["bench", "scenes", *arguments, "--leaderboard", str(tmp_path / "l.json")])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
