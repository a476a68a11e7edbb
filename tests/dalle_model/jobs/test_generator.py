"""Pictures from Python are those of the job, pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_datasets.prompts.read import text_prompts
from dalle_datasets.store.parquet import read_parquet, write_parquet
from dalle_datasets.store.schemas import GENERATIONS, PROMPTS
from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.generator import Generator, hold_in
from dalle_model.transformer import DALLETransformer


def test_a_drawn_picture_is_the_one_of_the_job(tmp_path, networks, make_config, run_job):
    write_parquet(tmp_path / "prompts.parquet", text_prompts(["a red apple on white"]).prompts, PROMPTS)
    made = run_job("generate_images", make_config(), {"prompts": "prompts.parquet", "prompts_id": "1", **networks})
    rows = sorted(read_parquet(tmp_path / made["generations"], GENERATIONS).to_pylist(), key=lambda row: row["rank"])
    generator = Generator.open(make_config(), networks)
    drawn = generator.draw(" a red  apple on white")
    assert [picture.seed for picture in drawn] == [row["seed"] for row in rows]
    for picture, row in zip(drawn, rows, strict=True):
        assert np.array_equal(np.asarray(picture.image), np.asarray(Image.open(tmp_path / row["image_path"])))
        assert picture.clip_score == pytest.approx(row["clip_score"], abs=1e-6)
    assert len(generator.draw("an owl", num_images=2)) == 2
    assert generator.draw("an owl", num_images=1, seed=1)[0].seed != generator.draw("an owl", num_images=1)[0].seed


def test_what_cannot_be_drawn_is_an_error(tmp_path, networks, make_config):
    generator = Generator.open(make_config(), networks)
    with pytest.raises(ValueError, match="no picture can be made for '': it has no text"):
        generator.draw("  ")
    with pytest.raises(ValueError, match=r"no picture can be made for 'a red .*: \d+ tokens, but the transformer reads 16; shorten it"):
        generator.draw(" ".join(["a red apple"] * 20))
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; train or import the clip again"):
        Generator.open(make_config(), networks)


@pytest.mark.parametrize("found", ["fp32", "bf16", "fp16"])
def test_auto_samples_with_the_weights_that_are_faster(found, monkeypatch):
    def measure(run, device):
        run("fp32"), run("bf16")
        return found

    monkeypatch.setattr("dalle_model.generator.faster_precision", measure)
    stream = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=4)
    model = DALLETransformer(TransformerConfig(num_layers=2, num_heads=2, d_model=16, conv_kernel_size=3), stream)
    held = hold_in(model, "auto")
    assert held.image_head.weight.dtype == (torch.bfloat16 if found == "bf16" else torch.float32)
    assert held.image_embedding.weight.dtype == torch.float32
