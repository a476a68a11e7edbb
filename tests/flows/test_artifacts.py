"""What a person who only looks at Prefect is told."""

import pytest
from PIL import Image

from dalle_datasets.layout import Layout
from flows.runtime import artifacts
from flows.runtime.progress import shown_on


class Notes:
    """A display that keeps the notes."""

    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


@pytest.fixture
def made(monkeypatch):
    """The artifacts that would be made, by key."""
    pages = {}
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda page, key, description: pages.update({key: page}))
    return pages


def test_a_collapsed_codebook_is_an_artifact_with_advice_and_the_usage_chart(tmp_path, made):
    (tmp_path / "looks").mkdir()
    for step, side in ((0, 1), (100, 2)):
        Image.new("RGB", (side, side)).save(tmp_path / "looks" / f"step-{step:06d}-usage.png")
    result = {"run_id": "train-dvae-1", "looks": "looks", "alarm": "the codebook is collapsing: perplexity 1.0"}
    with shown_on(notes := Notes()):
        artifacts.raise_codebook_alarm(Layout(tmp_path), result)
    assert notes.texts == ["train dvae: the codebook is collapsing: perplexity 1.0"]
    assert "**the codebook is collapsing: perplexity 1.0**" in made["codebook-alarm"]
    assert artifacts._as_data((tmp_path / "looks" / "step-000100-usage.png").read_bytes()) in made["codebook-alarm"]


def test_a_healthy_codebook_is_no_artifact(tmp_path, made):
    with shown_on(notes := Notes()):
        artifacts.raise_codebook_alarm(Layout(tmp_path), {"run_id": "train-dvae-1", "looks": "looks", "alarm": ""})
    assert not notes.texts
    assert not made
