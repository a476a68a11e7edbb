"""A small world for the job tests: a data root with pairs of emoji scenes, and jobs run as a flow would run them."""

import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.identity import pair_id
from dalle_datasets.layout import Layout
from dalle_datasets.parquet import write_parts
from dalle_datasets.schemas import PAIRS
from dalle_datasets.sources.emoji_scenes import Scene, all_scenes, caption_scene, draw_scene
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.jobs.contract import execute, prepare

RunJob = Callable[..., dict[str, Any]]


def pairs_table(scenes: list[Scene]) -> pa.Table:
    """`schemas.PAIRS` of scenes; every tenth is in the validation split."""
    rows = []
    for i, scene in enumerate(scenes):
        pixels = draw_scene(scene, 32)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        caption, sha256 = caption_scene(scene, random.Random(i)), hashlib.sha256(file.getvalue()).hexdigest()
        rows.append(
            {
                "pair_id": pair_id(sha256, caption), "caption": caption, "image": file.getvalue(), "width": 32, "height": 32,
                "sha256": sha256, "pixel_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
                "split": "validation" if i % 10 == 9 else "train", "num_caption_words": len(caption.split()), "aspect_ratio": 1.0,
                "language": "en", "source": "emoji", "page_url": "http://127.0.0.1/", "image_url": f"http://127.0.0.1/{i}.png",
                "candidate_id": f"{i:016x}",
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PAIRS.with_metadata(None))


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, str]:
    """The inputs `pairs` and `pairs_id` of 60 scenes in three parts under the data root `tmp_path`."""
    scenes = random.Random(0).sample(all_scenes(), 60)
    write_parts(Layout(tmp_path).pairs("emoji"), pairs_table(scenes), PAIRS, rows_per_part=20, row_group_size=10)
    return {"pairs": "pairs/emoji", "pairs_id": "a1b2c3"}


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """The demo's configuration with overrides, in `tmp_path`."""
    return lambda overrides=None: preset("demo", {"paths.data_root": str(tmp_path), **(overrides or {})})


@pytest.fixture
def run_job() -> RunJob:
    """Prepare a run directory and execute the job in this process; returns its result."""

    def run(job: str, config: Config, inputs: dict[str, str]) -> dict[str, Any]:
        return execute(job, prepare(job, config, inputs))

    return run
