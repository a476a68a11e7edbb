"""Evidence is read from files as they are: copies among generated pictures, leaks, runs that were continued."""

import json

import pyarrow as pa
import pytest

from dalle_datasets.demo.emoji_scenes import all_scenes
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import GENERATIONS, PAIRS, TRAINING_SET
from dalle_model.config.presets import preset
from dalle_model.diagnosis.evidence import PairFacts, Training, read_copies, read_pairs, read_tokens, read_training
from dalle_model.running.run_dir import prepare
from tests.dalle_model.jobs.conftest import pairs_table

SEEN, OTHER, NEW = [1] * 16, [1, 2] * 8, [3, 4] * 8


def row(number, split, caption, image_tokens):
    return {
        "pair_id": number, "crop": 0, "split": split, "caption": caption, "source": "x", "page_url": "", "text_tokens": [number % 2],
        "image_tokens": image_tokens,
    }  # fmt: skip


def generation(number, prompt, image_tokens, rank=1):
    return {
        "generation_id": f"g{number}", "prompt_id": "p", "prompt": prompt, "prompt_set": "own", "candidate_index": number, "seed": 0,
        "image_tokens": image_tokens, "clip_score": 0.1, "rank": rank, "image_path": "x.png",
    }  # fmt: skip


@pytest.fixture
def layout(tmp_path):
    """A training set of two pictures, of which one is kept apart too, and pictures drawn for three captions."""
    rows = [row(0, "train", "a dot", SEEN), row(1, "train", "a line", OTHER), row(2, "validation", "A  dot", SEEN)]
    rows += [row(3, "validation", "a ring", OTHER), row(4, "validation", "a star", NEW)]
    folder = tmp_path / "training_sets/t"
    write_parquet(folder / "part-00000.parquet", pa.Table.from_pylist(rows, TRAINING_SET.with_metadata(None)), TRAINING_SET)
    drawn = [
        generation(0, "a dot", SEEN),
        generation(1, "a blue dot", SEEN),
        generation(2, "a moon", NEW),
        generation(3, "a moon", SEEN, 2),
    ]
    path = tmp_path / "runs/generate-images-1/generations.parquet"
    write_parquet(path, pa.Table.from_pylist(drawn, GENERATIONS.with_metadata(None)), GENERATIONS)
    (path.parent / "config.json").write_text(json.dumps({"job": "generate_images", "inputs": {"transformer_id": "tf"}, "config": {}}))
    made = {"generations": "runs/generate-images-1/generations.parquet", "started_at": 1.0}
    (path.parent / "result.json").write_text(json.dumps(made))
    return Layout(tmp_path)


def test_copies_are_counted_among_the_best_pictures_for_captions_that_training_never_saw(layout):
    inputs, result = {"training_set": "training_sets/t"}, {"transformer_id": "tf"}
    transformer = Training(job="train_transformer", run_id="r", config=preset("demo"), state="done", inputs=inputs, result=result)
    facts = read_copies(layout, transformer)
    assert facts is not None
    assert (facts.run_id, facts.num_drawn, facts.num_copies) == ("generate-images-1", 2, 1)
    assert (facts.num_kept_apart, facts.num_kept_apart_alike) == (3, 2)
    other = Training(
        job="train_transformer", run_id="r", config=preset("demo"), state="done", inputs=inputs, result={"transformer_id": "x"}
    )
    assert read_copies(layout, other) is None


def test_a_leak_is_the_same_picture_with_the_same_caption_whatever_its_case_and_spaces(layout):
    facts = read_tokens(layout.training_set("t"), preset("demo"))
    assert facts is not None
    assert (facts.num_train, facts.num_validation, facts.num_leaked, facts.num_same_picture) == (2, 3, 1, 2)
    assert facts.image_nats == pytest.approx(0.5623, abs=1e-4)  # 24 ones and 8 twos
    assert facts.text_nats == pytest.approx(0.6931, abs=1e-4)
    assert read_tokens(layout.training_set("none"), preset("demo")) is None


def test_pairs_are_compared_by_their_pixels_and_their_captions(tmp_path):
    table = pairs_table(all_scenes()[:20]).to_pylist()  # the tenth and the twentieth are kept apart
    table[9]["pixel_sha256"], table[19]["caption"] = table[0]["pixel_sha256"], table[3]["caption"].upper()
    write_parquet(tmp_path / "part-00000.parquet", pa.Table.from_pylist(table, PAIRS.with_metadata(None)), PAIRS)
    assert read_pairs(tmp_path) == PairFacts(num_train=18, num_validation=2, num_leaked=1, num_known_captions=1)
    assert read_pairs(tmp_path / "none") is None


def test_a_step_that_a_continued_training_repeated_counts_once(tmp_path):
    run_dir = prepare("train_clip", preset("demo", {"paths.data_root": str(tmp_path)}), {"pairs": "pairs/x", "pairs_id": "p"})
    lines = [{"step": 10, "data_wait_share": 0.5}, {"step": 20, "data_wait_share": 0.4}, {"step": 10, "data_wait_share": 0.1}]
    (run_dir / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i, name in enumerate(("step-000007-0", "step-000007-1", "step-000009-0")):
        (run_dir / "spikes").mkdir(exist_ok=True)
        (run_dir / "spikes" / f"{name}.safetensors").write_bytes(bytes(i))
    found = read_training(Layout(tmp_path), run_dir.name)
    assert found.speed["data_wait_share"] == [(10, 0.1), (20, 0.4)]
    assert found.num_spikes == 2  # updates, whichever processes kept their batch


def test_what_is_no_run_of_this_edition_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json, so it is no run; `dalle status` lists the runs"):
        read_training(Layout(tmp_path), "train-clip-1")
    (tmp_path / "runs/train-clip-1").mkdir(parents=True)
    (tmp_path / "runs/train-clip-1/config.json").write_text('{"job": "train_clip", "config": {"warp": 9}, "inputs": {}}')
    with pytest.raises(ValueError, match=r"config.json cannot be read \(.*it is damaged, or of another edition of open-dalle"):
        read_training(Layout(tmp_path), "train-clip-1")
