"""What a person who only looks at Prefect is told."""

import base64
import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import iter_batches
from dalle_datasets.store.schemas import CLIP_SCORES
from dalle_model.config.presets import preset
from flows.report.collection_data import collect_collection
from flows.report.curves import Logged
from flows.runtime import artifacts, stage_artifacts
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
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda table, key, description: pages.update({key: table}))
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


def test_a_training_is_an_artifact_with_its_figures_and_curves(made, catalogued_root):
    config = preset("demo", {"paths.data_root": str(catalogued_root.layout.root)})
    artifacts.show_training(config, {"job": "train_transformer", "run_id": "train-transformer-7"})
    page = made["train-transformer-curves"]
    assert "190 steps in 2 s on 1 process · 16,400 tokens/s · 1.0% of the time waiting for data · 1.00 GiB at most" in page
    assert "| image_loss | 0.6646 nats, 0.9588 bits | " in page, "the last numbers of training and validation"
    assert "| gradient_norm | 0.9646 | " in page
    titles = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]
    assert titles == [
        "Loss per image token", "Loss per text token", "Gradient norm before clipping", "Gradient norm by layer, at the end",
        "Tokens per second",
        "Waiting for data, share of time", "Memory at most",
    ]  # fmt: skip
    assert page.count("](data:image/svg+xml;base64,") == len(titles)


def test_a_training_that_logged_nothing_has_a_page_too():
    page = artifacts.training_page("train-clip-1", "train_clip", Logged({}, {}, {}))
    assert page.startswith("# train-clip-1\n")


def test_a_collection_is_an_artifact_with_what_stands_out_and_two_tables(made, catalogued_root):
    data = collect_collection(catalogued_root.layout)
    row = {
        "change": "newly left out",
        "source": "web",
        "outcome": "x | ![](http://evil)",
        "was": "kept",
        "num_candidates": 3,
        "example_urls": [],
    }
    artifacts.show_collection(replace(data, changes=[row]), catalogued_root.layout.collection_report)
    page = made["collection-report"]
    assert "- 3 pairs of the last collection are left out now, most for x" in page
    assert "| kept | 12 | 3 |" in page
    assert "| pairs of last time that are left out now | web | kept | x      (http://evil) | 3 |" in page, "no markup of strangers"
    assert made["collection-hosts"][0]["host"] == "127.0.0.1"
    assert {row["reason"] for row in made["drop-reasons"]} >= {"caption_short", "robots_txt"}


def test_gradients_by_layer_are_a_chart_and_no_rows_of_the_table():
    curves = {
        ("attention_00", "gradients"): [(0, 9.0), (10, 1.0)],
        ("attention_01", "gradients"): [(10, 2.0)],
        ("mlp_00", "gradients"): [(10, 3.0)],
    }
    page = artifacts.training_page("train-transformer-1", "train_transformer", Logged(curves, {}, {}))
    assert "### Gradient norm by layer, at the end" in page
    assert "| attention_00 |" not in page


def test_tokens_scores_and_pictures_are_artifacts_with_histograms_and_samples(made, catalogued_root):
    layout = catalogued_root.layout
    results = {path.parent.name.rsplit("-", 1)[0]: json.loads(path.read_text()) for path in layout.runs.glob("*/result.json")}
    num_scores = sum(batch.num_rows for batch in iter_batches(layout.clip_scores("clip0"), CLIP_SCORES, ["clip_score"], 100))
    stage_artifacts.show_tokens(layout, {"num_images": 12, "codes_used": 8, "perplexity": 12.5, **results["tokenize-images"]})
    stage_artifacts.show_scores(layout, {"mean_score": 0.25, "num_scores": num_scores, **results["score-pairs"]})
    stage_artifacts.show_safety(
        layout, {"num_scores": num_scores, "mean_nsfw_score": 0.1, "mean_watermark_score": 0.2, **results["score-safety"]}
    )
    stage_artifacts.show_pictures(layout, {"num_prompts": 6, "images_per_s": 1.5, **results["generate-images"]})
    assert "| perplexity | 12.5 |" in made["image-tokens"]
    assert "| mean score | 0.25 |" in made["clip-scores"]
    assert made["safety-scores"].count("data:image/svg+xml;base64,") == 2
    assert "![best picture of each prompt](data:image/png;base64," in made["pictures"]
    svg = base64.b64decode(made["clip-scores"].partition("base64,")[2].partition(")")[0]).decode()
    shown = [int(said.replace(",", "")) for said in re.findall(r"to [-\d.]+: ([\d,]+)</title>", svg)]
    assert sum(shown) == num_scores, "every pair is in a bar"
