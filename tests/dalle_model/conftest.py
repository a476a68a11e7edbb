"""Networks that the published `dall_e` package builds and writes to files itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def published(tmp_path: Path) -> SimpleNamespace:
    """A small published encoder and decoder with random weights, and `save(module, path, **settings)`, which returns the path."""

    def save(module: object, path: Path, **settings: object) -> Path:
        torch.save(module, path, **settings)
        return path

    dall_e = pytest.importorskip("dall_e")
    torch.manual_seed(0)
    encoder, decoder = dall_e.Encoder(n_hid=8, vocab_size=32), dall_e.Decoder(n_init=12, n_hid=8, vocab_size=32)
    with torch.no_grad():  # the package starts biases at 0, the released ones are not
        for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
            if name.endswith(".b"):
                parameter.normal_(std=0.1)
    return SimpleNamespace(
        encoder=encoder, decoder=decoder, save=save,
        encoder_path=save(encoder, tmp_path / "encoder.pkl"), decoder_path=save(decoder, tmp_path / "decoder.pkl"),
    )  # fmt: skip
