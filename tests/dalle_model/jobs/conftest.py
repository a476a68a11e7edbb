"""A small world for the job tests: a data root with pairs of emoji scenes, and jobs run as a flow would run them."""

import hashlib
import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from dalle_datasets.demo.emoji_scenes import Scene, all_scenes, caption_scene, draw_scene
from dalle_datasets.store.ids import pair_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.running.run_dir import execute, prepare
from dalle_model.text import BpeTokenizer
from dalle_model.transformer import DALLETransformer, save_transformer

RunJob = Callable[..., dict[str, Any]]
TINY = {
    "tokenizer.vocab_size": 300, "tokenizer.max_text_tokens": 16,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.patch_size": 8, "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16,
    "sampling.num_images": 4, "sampling.batch_size": 8,
}  # fmt: skip


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


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """Trainings round the least numbers to 0 in their whole process, where Hypothesis refuses to make any."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, str]:
    """The inputs `pairs` and `pairs_id` of 60 scenes in three parts under the data root `tmp_path`."""
    scenes = random.Random(0).sample(all_scenes(), 60)
    write_parts(Layout(tmp_path).pairs("emoji"), pairs_table(scenes), PAIRS, rows_per_part=20, row_group_size=10)
    return {"pairs": "pairs/emoji", "pairs_id": "a1b2c3"}


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """The demo's configuration with tiny networks and overrides, in `tmp_path`."""
    return lambda overrides=None: preset("demo", {"paths.data_root": str(tmp_path), **TINY, **(overrides or {})})


@pytest.fixture
def run_job() -> RunJob:
    """Prepare a run directory and execute the job in this process; returns its result."""

    def run(job: str, config: Config, inputs: dict[str, str]) -> dict[str, Any]:
        return execute(job, prepare(job, config, inputs))

    return run


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, str]:
    """The inputs of `generate_images`: an untrained transformer, dVAE and CLIP with their tokenizer, under the data root."""
    torch.manual_seed(0)
    config = preset("demo", {"paths.data_root": str(tmp_path), **TINY})
    tokenizer = BpeTokenizer.train([caption_scene(s, random.Random(i)) for i, s in enumerate(all_scenes()[::50])], config.tokenizer)
    tokenizer.save(tmp_path / "bpe")
    dvae_id = save_dvae(tmp_path / "dvae", DVAE(config.dvae))
    clip_id = save_clip(tmp_path / "clip", build_clip(config.clip, tokenizer))
    transformer = DALLETransformer(config.transformer, replace(config.stream, text_vocab_size=tokenizer.vocab_size))
    made_from = {"dvae_id": dvae_id, "tokenizer_id": tokenizer.id}
    transformer_id = save_transformer(tmp_path / "transformer", transformer, made_from)
    return {
        "tokenizer": "bpe", "tokenizer_id": tokenizer.id, "dvae": "dvae", "dvae_id": dvae_id, "clip": "clip", "clip_id": clip_id,
        "transformer": "transformer", "transformer_id": transformer_id,
    }  # fmt: skip
