"""The prompt folder: drop a file, get a batch; what cannot be drawn says why, beside the file."""

import json
import os

import pytest
from PIL import Image

from dalle_model.config.presets import preset
from flows import draw_prompt_folder as module
from flows.runtime.prompts import ask_for
from flows.runtime.upstream import inputs_of


@pytest.fixture
def draw(catalogued_root, monkeypatch):
    """The flow on a data root whose batch of pictures stands for whatever is asked for; `draw.asked` are the prompts' ids."""
    layout, asked = catalogued_root.layout, []
    made = json.loads((layout.run("generate-images-8") / "result.json").read_text()) | {"contact_sheet": "sheet.png"}
    (layout.root / "sheet.png").write_bytes(b"sheet")

    def run_stage(job, config, inputs):
        asked.append(inputs["prompts_id"])
        return {**made, "run_id": f"generate-images-{inputs['prompts_id'][:4]}"}

    monkeypatch.setattr(module, "choose_file", lambda config, path: ask_for(config, prompts_file=str(path)))
    monkeypatch.setattr(module, "inputs_of", lambda job, config, **given: given)
    monkeypatch.setattr(module, "run_stage", run_stage)
    monkeypatch.setattr(module, "catalogue", lambda *_: None)
    monkeypatch.setattr(module, "publish_catalog", lambda *_: None)

    def run(**overrides):
        return module.draw_prompt_folder.fn("demo", {"paths.data_root": str(layout.root), **overrides})

    run.asked, run.folder = asked, layout.root / "prompt_folder"
    return run


def drop(path, text):
    path.write_text(text)
    os.utime(path, (0, 0))


def test_a_file_gets_pictures_once_and_again_when_it_changes(draw):
    assert draw() == {}  # and makes the folder
    drop(draw.folder / "prompts.csv", "prompt\nan owl\n")
    drop(draw.folder / "notes.md", "an owl")
    first = draw()
    batch = draw.folder / "prompts.csv.pictures"
    assert first == {"prompts.csv": json.loads((batch / "batch.json").read_text())["run_id"]}
    pictures = list(batch.glob("*-[1-4].png"))
    assert len(pictures) == 6 * 4
    assert Image.open(pictures[0]).size == (32, 32)
    assert (batch / "sheet.png").read_bytes() == b"sheet"
    (batch / "mark").touch()
    assert draw() == first
    assert (batch / "mark").exists(), "the same pictures were copied again"
    drop(draw.folder / "prompts.csv", "prompt\na cat\n")
    assert draw() != first
    assert not (batch / "mark").exists()


def test_a_broken_file_says_why_once_and_does_not_keep_the_others_waiting(draw):
    draw()
    drop(draw.folder / "a.csv", "nothing\n1\n")
    drop(draw.folder / "b.txt", "an owl\n")
    with pytest.raises(ValueError, match="a.csv"):
        draw()
    error = draw.folder / "a.csv.error.txt"
    assert "a.csv" in error.read_text()
    assert (draw.folder / "b.txt.pictures").is_dir()
    assert list(draw()) == ["b.txt"], "what was said already does not fail again"
    drop(draw.folder / "a.csv", "prompt\na cat\n")
    assert list(draw()) == ["a.csv", "b.txt"]
    assert not error.exists()


def test_a_file_that_is_being_written_waits(draw):
    draw()
    (draw.folder / "prompts.txt").write_text("an owl\na c")
    assert draw() == {}
    assert not draw.asked


def test_files_wait_while_there_is_no_network(draw, monkeypatch):
    draw()
    drop(draw.folder / "prompts.csv", "prompt\nan owl\n")
    notes = []
    monkeypatch.setattr(module, "note", notes.append)
    with monkeypatch.context() as patch:
        patch.setattr(module, "inputs_of", inputs_of)
        assert draw(seed=7) == {}
    assert not draw.asked
    assert [note.partition(":")[0] for note in notes] == ["prompts.csv waits"]
    assert list(draw()) == ["prompts.csv"]


def test_the_folder_can_lie_anywhere(tmp_path):
    config = preset("demo", {"paths.data_root": str(tmp_path / "data"), "flow.prompt_folder": str(tmp_path / "shared")})
    assert module.prompt_folder(config) == tmp_path / "shared"
