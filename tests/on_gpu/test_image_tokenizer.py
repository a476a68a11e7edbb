"""Pictures to tokens on a GPU: batches overlap in time, not in content, and the encoder is one CUDA graph."""

import numpy as np
import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE
from dalle_model.dvae.image_tokenizer import ImageTokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CONFIG = DVAEConfig(image_size=32, codebook_size=64, hidden_width=8, codebook_width=8)


@pytest.fixture
def batches():
    """Full batches of four, and a last one of one."""
    images = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), np.uint8)
    return [images[start : start + 4] for start in range(0, 13, 4)]


def plain_tokens(model, images):
    device = next(model.parameters()).device
    return model.tokenize(torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float().div(255)).cpu().numpy()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_overlapping_batches_do_not_mix(precision):
    torch.manual_seed(0)
    model = DVAE(CONFIG).eval().requires_grad_(False).cuda()
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)
    batches = [images[start : start + 8] for start in range(0, 100, 8)]
    tokenizer = ImageTokenizer(model, precision, batch_size=8)
    made = np.concatenate(list(tokenizer.stream(batches)))
    assert (made == np.concatenate(list(tokenizer.stream(batches)))).all(), "the same again"
    if precision == "fp32":
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            expected = plain_tokens(model, images)
        assert (made == expected).mean() > 0.999
        assert (made == plain_tokens(model.cpu(), images)).mean() > 0.999, "as on a CPU"
    else:
        assert (made == plain_tokens(model, images)).mean() > 0.9


def test_the_next_batch_is_asked_for_while_one_is_at_work(batches):
    model = DVAE(CONFIG).eval().requires_grad_(False).cuda()
    asked = []
    stream = ImageTokenizer(model, batch_size=4).stream(asked.append(i) or images for i, images in enumerate(batches))
    next(stream)
    assert asked == [0, 1]


def test_the_encoder_is_a_cuda_graph(batches):
    model = DVAE(CONFIG).eval().requires_grad_(False).cuda()
    tokenizer = ImageTokenizer(model, batch_size=4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
        list(tokenizer.stream(batches))
    assert any("cudaGraphLaunch" in event.key for event in profile.key_averages())
