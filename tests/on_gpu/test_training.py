"""A training on a GPU as a job runs it: a validation first, then updates of a stream long enough for FlexAttention."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.training import TrainConfig
from dalle_model.training.distribute import Batch
from dalle_model.training.loop import train
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.flex import flex_works

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

STREAM = StreamShape(text_vocab_size=50, max_text_tokens=64, codebook_size=64, image_grid_size=24)


def one_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "text": torch.randint(50, (4, STREAM.max_text_tokens), generator=generator),
        "image": torch.randint(64, (4, STREAM.num_image_tokens), generator=generator),
    }


def loss_of(model: Any, batch: Batch, step: int) -> dict[str, torch.Tensor]:
    text_loss, image_loss = model.loss(batch["text"], batch["image"])
    return {"loss": text_loss / 8 + image_loss * 7 / 8}


def validate(model: nn.Module) -> dict[str, float]:
    batch = {name: value[:3].cuda() for name, value in one_batch().items()}
    return {"loss": float(loss_of(model, batch, 0)["loss"])}


def batches(step: int) -> Iterator[Batch]:
    while True:
        yield one_batch()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_that_begins_with_a_validation_learns(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    model = DALLETransformer(TransformerConfig(num_layers=4, num_heads=4, d_model=128, conv_kernel_size=5), STREAM)
    config = TrainConfig(
        max_steps=20, batch_size=4, learning_rate=3e-3, final_learning_rate=1e-3, log_every=1, validate_every=10,
        checkpoint_every=10, clip_norm=1.0, precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip
    result = train(
        model=model, config=config, batches=batches, compute_loss=loss_of, run_dir=tmp_path, seed=0,
        report=lambda *_, **__: None, validate=validate,
    )  # fmt: skip
    assert flex_works(torch.device("cuda", torch.cuda.current_device()))
    assert result.validation["loss"] < math.log(60)
