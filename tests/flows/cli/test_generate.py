"""`dalle generate` and `dalle rerank`: what is asked for in one way, what is copied, drawn and said."""

import io
import json
import sys

import pytest
from PIL import Image

from dalle_datasets.store.ids import prompt_id
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import GENERATIONS
from flows.cli.generate import copy_best, print_batch, show_best
from flows.cli.main import main
from flows.runtime.best_pictures import best_rows, file_name


@pytest.fixture
def made(catalogued_root):
    """The result of a batch of six prompts with four candidates each."""
    layout = catalogued_root.layout
    result = json.loads((layout.run("generate-images-8") / "result.json").read_text())
    return layout, {**result, "num_prompts": 6, "contact_sheet": "sheet.html", "dropped": {"empty": 1, "too_long": 1_200}}


def test_the_best_of_every_prompt_in_order(made):
    layout, result = made
    rows = list(best_rows(layout, result, 2))
    everything = read_parquet(layout.root / result["generations"], GENERATIONS).to_pylist()
    assert [row["rank"] for row in rows] == [1, 2] * 6
    assert {row["generation_id"] for row in rows} == {row["generation_id"] for row in everything if row["rank"] <= 2}


def test_copies_of_a_batch_have_names_of_their_own(made, tmp_path, capsys):
    layout, result = made
    copy_best(layout, result, 2, tmp_path / "best", alone=False)
    files = list((tmp_path / "best").iterdir())
    assert len(files) == 12
    assert all(Image.open(file).size == (32, 32) for file in files)
    assert capsys.readouterr().out == f"12 pictures copied to {tmp_path / 'best'}\n"


def test_a_batch_says_what_it_made_and_what_it_left_out(made, capsys):
    layout, result = made
    print_batch(layout, result)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"24 pictures for 6 prompts: {layout.root / 'sheet.html'}"
    assert printed[2] == f"left out: 1 empty, 1,200 too_long; why: {layout.root / result['dropped_prompts']}"


def test_pictures_are_drawn_on_terminals_only(made, capsys, monkeypatch):
    layout, result = made
    show_best(layout, result, 2)
    assert "there is none here; the pictures are in the files above" in " ".join(capsys.readouterr().err.split())
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "140"}.items():
        monkeypatch.setenv(name, value)
    show_best(layout, result, 2)
    drawn = terminal.getvalue()
    assert drawn.count("▀") == 12 * 32 * 16
    assert "38;2;" in drawn


@pytest.mark.parametrize("arguments", [[], ["an owl", "--prompts", "-"], ["--prompts", "a.txt", "--query", "select 1"]])
def test_prompts_are_given_in_one_way(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["generate", *arguments])
    assert ended.value.code == 2
    assert "say what to draw in one way: a prompt, --prompts FILE, or --query SQL" in capsys.readouterr().err


def test_rerank_without_a_batch_says_how_to_make_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["rerank", "--set", f"paths.data_root={tmp_path}"])
    assert ended.value.code == 2
    assert "holds no finished batch of pictures; make one with `dalle generate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "prompts", [("猫の写真", "犬の写真"), ("a blue apple", "a blue apple!", "A blue apple"), ("…", "!"), ("é" * 300, "é" * 301)]
)
def test_pictures_of_different_prompts_have_different_names(prompts):
    names = {file_name(prompt, prompt_id(prompt), alone=True) for prompt in prompts}
    assert len(names) == len(prompts)
    assert all(len(f"{name}-0001.webp".encode()) < 255 and "/" not in name for name in names)
    assert file_name("a blue apple", prompt_id("a blue apple"), alone=True) == "a-blue-apple"
    assert file_name("猫の写真", prompt_id("猫の写真"), alone=True) == "猫の写真"
