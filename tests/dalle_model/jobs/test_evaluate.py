"""The agreement table says what the checker saw and what CLIP's choice gained."""

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.demo.emoji_scenes import Scene, draw_scene
from dalle_datasets.prompts.read import text_prompts
from dalle_datasets.store.parquet import read_parquet, write_parquet
from dalle_datasets.store.schemas import EVALUATIONS, GENERATIONS, PROMPTS

ASKED = [Scene("apple", "red", "white", "big"), Scene("owl", "blue", "pink", "two")]


@pytest.fixture
def inputs(tmp_path):
    """Two prompts with four candidates each: CLIP prefers a right one for the first and a wrong colour for the second."""
    prompts = [
        {"prompt_id": f"p{i}", "prompt": f"prompt {i}", "prompt_set": "held_out_pair", "expected": json.dumps(asdict(scene))}
        for i, scene in enumerate(ASKED)
    ]
    prompts.append({"prompt_id": "free", "prompt": "a feeling", "prompt_set": "own", "expected": None})
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(prompts, PROMPTS.with_metadata(None)), PROMPTS)
    apple, owl = ASKED
    shown = [
        [(apple, 0.9), (replace(apple, color="green"), 0.1), (replace(apple, object="pear"), 0.2), (replace(apple, layout="two"), 0.3)],
        [(owl, 0.1), (owl, 0.2), (replace(owl, color="red"), 0.8), (replace(owl, background="blue"), 0.3)],
        [(apple, 0.5)] * 4,
    ]
    rows = []
    for prompt, candidates in zip(prompts, shown, strict=True):
        for i, (scene, score) in enumerate(candidates):
            path = f"{prompt['prompt_id']}-{i}.png"
            Image.fromarray(draw_scene(scene, 32)).save(tmp_path / path)
            rows.append(
                {
                    "generation_id": f"{prompt['prompt_id']}-{i}", "prompt_id": prompt["prompt_id"], "prompt": prompt["prompt"],
                    "prompt_set": prompt["prompt_set"], "candidate_index": i, "seed": i, "image_tokens": [0], "clip_score": score,
                    "rank": 1, "image_path": path,
                }
            )  # fmt: skip
    np.random.default_rng(0).shuffle(rows)  # the order of rows in the file must not matter
    write_parquet(tmp_path / "generations.parquet", pa.Table.from_pylist(rows, GENERATIONS.with_metadata(None)), GENERATIONS)
    return {"generations": "generations.parquet", "generations_run": "generate-images-1", "prompts": "prompts.parquet"}


def test_the_table_compares_clip_s_choice_with_chance(inputs, make_config, run_job):
    result = run_job("evaluate", make_config(), inputs)
    table = result["agreement"]["held_out_pair"]
    assert set(result["agreement"]) == {"held_out_pair"}  # nobody knows what free text should show
    assert table["n=1"] == {"object": 7 / 8, "color": 6 / 8, "background": 7 / 8, "layout": 7 / 8, "all": 3 / 8}
    assert table["n=4"] == {"object": 1, "color": 0.5, "background": 1, "layout": 1, "all": 0.5}
    assert table["any"] == {"object": 1, "color": 1, "background": 1, "layout": 1, "all": 1}
    assert list(table) == ["n=1", "n=4", "any"]
    assert result["lift"]["held_out_pair"]["n=4"]["mean"] == pytest.approx(0.5 - 3 / 8)
    assert result["num_prompts"] == {"held_out_pair": 2}


def test_every_picture_s_verdict_is_stored(tmp_path, inputs, make_config, run_job):
    result = run_job("evaluate", make_config(), inputs)
    rows = {row["generation_id"]: row for row in read_parquet(tmp_path / result["evaluations"], EVALUATIONS).to_pylist()}
    assert len(rows) == 8
    assert rows["p0-0"]["all_right"]
    assert not rows["p0-1"]["color_right"]
    assert not rows["p0-2"]["object_right"]
    assert not rows["p0-3"]["layout_right"]
    assert not rows["p1-3"]["background_right"]
    assert rows["p1-3"]["color_right"]


def test_nothing_to_judge_is_an_error(tmp_path, inputs, make_config, run_job):
    write_parquet(tmp_path / "prompts.parquet", text_prompts(["a feeling"]).prompts, PROMPTS)
    with pytest.raises(ValueError, match="was made for a prompt whose scene is known; nothing can be judged"):
        run_job("evaluate", make_config(), inputs)
