"""Prompt files: named by content, complete enough to judge the pictures by."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle_datasets.config import SourceConfig
from dalle_datasets.demo.emoji_scenes import PROMPT_SETS, Scene
from dalle_datasets.prompts.read import read_prompts, text_prompts
from dalle_datasets.prompts.write import scene_prompts, validation_prompts, write_prompts
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet, write_parts
from dalle_datasets.store.schemas import DROPPED_PROMPTS, PAIRS, PROMPTS


def test_scene_prompts_know_the_scene_they_ask_for():
    rows = scene_prompts(SourceConfig(kind="emoji_scenes", num_scenes=200), 5).to_pylist()
    assert {row["prompt_set"] for row in rows} == set(PROMPT_SETS)
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    for row in rows:
        scene = Scene(**json.loads(row["expected"]))
        assert scene.object in row["prompt"] or scene.layout == "two"


def test_the_same_prompts_are_the_same_file(tmp_path):
    layout = Layout(tmp_path)
    named = write_prompts(layout, text_prompts(["a red car"]).prompts)
    assert write_prompts(layout, text_prompts(["a red car"]).prompts) == named
    assert write_prompts(layout, text_prompts(["a blue car"]).prompts) != named
    assert read_parquet(tmp_path / named["prompts"], PROMPTS).num_rows == 1


def test_the_query_that_gave_the_prompts_is_kept_with_them(tmp_path):
    layout = Layout(tmp_path)
    named = write_prompts(layout, text_prompts(["a red car"]).prompts, query="select 'a red car' as prompt")
    assert named["prompts_id"] != write_prompts(layout, text_prompts(["a red car"]).prompts)["prompts_id"]
    assert pq.read_metadata(tmp_path / named["prompts"]).metadata[b"query"] == b"select 'a red car' as prompt"


def test_rows_that_are_no_prompts_have_a_file_of_their_own(tmp_path):
    (tmp_path / "p.jsonl").write_text('"an owl"\n5\n')
    found = read_prompts(str(tmp_path / "p.jsonl"))
    named = write_prompts(Layout(tmp_path), found.prompts, found.dropped)
    assert named["prompts_id"] == write_prompts(Layout(tmp_path), text_prompts(["an owl"]).prompts)["prompts_id"]
    assert read_parquet(tmp_path / named["dropped_prompts"], DROPPED_PROMPTS)["reason"].to_pylist() == ["not_text"]


def test_a_picture_whose_name_no_file_can_have_is_a_reason(tmp_path):
    (tmp_path / "p.jsonl").write_text('"an owl"\n{"prompt": "a cat", "image": "\\ud800"}\n')
    found = read_prompts(str(tmp_path / "p.jsonl"))
    assert found.dropped["reason"].to_pylist() == ["bad_image"]


def test_validation_prompts_come_from_the_validation_split(tmp_path):
    empty = {
        "image": b"",
        "width": 1,
        "height": 1,
        "sha256": "",
        "pixel_sha256": "",
        "num_caption_words": 1,
        "aspect_ratio": 1.0,
        "language": "en",
    }
    empty |= {"source": "web", "page_url": "", "image_url": "", "candidate_id": ""}
    rows = [{**empty, "pair_id": i, "caption": f"caption {i}", "split": "validation" if i % 2 else "train"} for i in range(6)]
    write_parts(tmp_path / "pairs", pa.Table.from_pylist(rows, schema=PAIRS.with_metadata(None)), PAIRS, 3, 10)
    assert validation_prompts(tmp_path / "pairs", 2).column("prompt").to_pylist() == ["caption 1", "caption 3"]
    rows[0]["caption"] = "Caption 1"  # of a training pair
    write_parts(tmp_path / "seen", pa.Table.from_pylist(rows, schema=PAIRS.with_metadata(None)), PAIRS, 3, 10)
    assert validation_prompts(tmp_path / "seen", 3).column("prompt").to_pylist() == ["caption 3", "caption 5", "caption 1"]
    with pytest.raises(ValueError, match=r"holds no validation pairs to take prompts from; raise filter\.validation_share"):
        validation_prompts(tmp_path / "none", 2)
