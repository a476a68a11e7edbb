"""However the encoder is made fast, the tokens are those of the plain encoder, batch by batch and in order."""

import logging
from functools import partial

import numpy as np
import pytest
import torch

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE
from dalle_model.dvae.image_tokenizer import ImageTokenizer

CONFIG = DVAEConfig(image_size=32, codebook_size=64, hidden_width=8, codebook_width=8)
COMPILE_EAGER = partial(torch.compile, backend="eager", fullgraph=True, dynamic=False)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DVAE(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def batches():
    """Full batches of four, and a last one of one."""
    images = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), np.uint8)
    return [images[start : start + 4] for start in range(0, 13, 4)]


def plain_tokens(model, images):
    device = next(model.parameters()).device
    return model.tokenize(torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float().div(255)).cpu().numpy()


@pytest.mark.parametrize("compiler", [None, COMPILE_EAGER], ids=["plain", "compiled"])
def test_tokens_are_those_of_the_plain_encoder_in_order(model, batches, compiler):
    made = list(ImageTokenizer(model, batch_size=4, compiler=compiler).stream(batches))
    assert [len(tokens) for tokens in made] == [4, 4, 4, 1]
    assert {tokens.dtype for tokens in made} == {np.dtype(np.uint16)}
    for tokens, images in zip(made, batches, strict=True):
        assert (tokens == plain_tokens(model, images)).all()


def test_the_encoder_is_one_graph_of_one_shape(model, batches):
    compiled = []

    def compiler(graph, inputs):
        compiled.append([value.shape for value in inputs if isinstance(value, torch.Tensor) and value.dtype == torch.uint8])
        return graph.forward

    list(
        ImageTokenizer(model, batch_size=4, compiler=partial(torch.compile, backend=compiler, fullgraph=True, dynamic=False)).stream(
            batches
        )
    )
    assert compiled == [[(4, 32, 32, 3)]], "a smaller last batch must not be compiled anew"


def test_an_encoder_that_cannot_be_compiled_runs_all_the_same(model, batches, caplog):
    def no_compiler(graph, inputs):
        raise RuntimeError("no C compiler")

    with caplog.at_level(logging.WARNING):
        made = list(ImageTokenizer(model, batch_size=4, compiler=partial(torch.compile, backend=no_compiler)).stream(batches))
    assert "the encoder could not be compiled (BackendCompilerFailed: backend='no_compiler'" in caplog.text
    assert (made[3] == plain_tokens(model, batches[3])).all()


@pytest.mark.parametrize("compiler", [None, COMPILE_EAGER], ids=["plain", "compiled"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_short_types_change_few_tokens(model, precision, compiler):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    (tokens,) = ImageTokenizer(model, precision, batch_size=64, compiler=compiler).stream([images])
    assert 0.9 < (tokens == plain_tokens(model, images)).mean() < 1, "rounding changes some tokens, else it was not done"


def test_a_batch_that_is_too_large_is_refused(model, batches):
    with pytest.raises(ValueError, match=r"a batch of 4 pictures is larger than batch_size=3; cut it"):
        list(ImageTokenizer(model, batch_size=3).stream(batches))


def test_pictures_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"images have shape \[1, 3, 16, 16\], but this dVAE reads \[B, 3, 32, 32\]"):
        list(ImageTokenizer(model, batch_size=1).stream([np.zeros((1, 16, 16, 3), np.uint8)]))


def test_tf32_is_off_for_fp32_and_settings_are_put_back(model, batches, monkeypatch):
    before, seen = torch.backends.cudnn.allow_tf32, {}
    tokenize = DVAE.tokenize
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(
            DVAE, "tokenize",
            lambda model, images, precision=precision: seen.update({precision: torch.backends.cudnn.allow_tf32}) or tokenize(model, images),
        )  # fmt: skip
        list(ImageTokenizer(model, precision, batch_size=4).stream(batches[:1]))
    assert seen == {"fp32": False, "bf16": True}
    assert torch.backends.cudnn.allow_tf32 == before
