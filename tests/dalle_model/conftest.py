"""The published `dall_e` package's classes, rewritten so that pickles made of them name the same things.

`written_by_dall_e` registers them under their names while a file is written. They differ from the original only in how they are
built (the original needs `attrs`); what a pickle holds is the same: class names, `_parameters`, `_modules` and sizes.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Module):
    def __init__(self, n_in: int, n_out: int, kw: int, use_float16: bool = True) -> None:
        super().__init__()
        self.n_in, self.n_out, self.kw, self.use_float16 = n_in, n_out, kw, use_float16
        self.device, self.requires_grad = torch.device("cpu"), False
        self.w = nn.Parameter(torch.randn(n_out, n_in, kw, kw) / (n_in * kw**2) ** 0.5)
        self.b = nn.Parameter(0.1 * torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, n_layers: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.n_hid, self.post_gain = n_out // 4, 1 / n_layers**2
        self.id_path = Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        sizes = [n_in, self.n_hid, self.n_hid, self.n_hid, n_out]
        layers: list[tuple[str, nn.Module]] = []
        for i, kernel in enumerate(kernels):
            layers += [(f"relu_{i + 1}", nn.ReLU()), (f"conv_{i + 1}", Conv2d(sizes[i], sizes[i + 1], kernel))]
        self.res_path = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


class EncoderBlock(_Block):
    def __init__(self, n_in: int, n_out: int, n_layers: int) -> None:
        super().__init__(n_in, n_out, n_layers, (3, 3, 3, 1))


class DecoderBlock(_Block):
    def __init__(self, n_in: int, n_out: int, n_layers: int) -> None:
        super().__init__(n_in, n_out, n_layers, (1, 3, 3, 3))


class _Network(nn.Module):
    def build(
        self, block: type[_Block], first: Conv2d, n_in: int, widths: list[int], n_blk: int, between: tuple[str, nn.Module], last: Conv2d
    ) -> None:
        groups: list[tuple[str, nn.Module]] = [("input", first)]
        for g, width in enumerate(widths):
            parts: list[tuple[str, nn.Module]] = []
            for i in range(n_blk):
                parts.append((f"block_{i + 1}", block(n_in, width, n_blk * len(widths))))
                n_in = width
            groups.append((f"group_{g + 1}", nn.Sequential(OrderedDict([*parts, between] if g < len(widths) - 1 else parts))))
        self.blocks = nn.Sequential(OrderedDict([*groups, ("output", nn.Sequential(OrderedDict([("relu", nn.ReLU()), ("conv", last)])))]))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Encoder(_Network):
    def __init__(self, n_hid: int = 256, n_blk_per_group: int = 2, vocab_size: int = 8192) -> None:
        super().__init__()
        self.n_hid, self.vocab_size, self.device = n_hid, vocab_size, torch.device("cpu")
        last = Conv2d(8 * n_hid, vocab_size, 1, use_float16=False)
        pool = ("pool", nn.MaxPool2d(kernel_size=2))
        self.build(EncoderBlock, Conv2d(3, n_hid, 7), n_hid, [n_hid * 2**g for g in range(4)], n_blk_per_group, pool, last)


class Decoder(_Network):
    def __init__(self, n_init: int = 128, n_hid: int = 256, n_blk_per_group: int = 2, vocab_size: int = 8192) -> None:
        super().__init__()
        self.n_hid, self.vocab_size, self.device = n_hid, vocab_size, torch.device("cpu")
        first, last = Conv2d(vocab_size, n_init, 1, use_float16=False), Conv2d(n_hid, 6, 1)
        upsample = ("upsample", nn.Upsample(scale_factor=2, mode="nearest"))
        self.build(DecoderBlock, first, n_init, [n_hid * 2**g for g in reversed(range(4))], n_blk_per_group, upsample, last)


@contextmanager
def written_by_dall_e() -> Iterator[None]:
    """Within the block the classes answer to the names that the published package has."""
    homes = {"dall_e.encoder": (Encoder, EncoderBlock), "dall_e.decoder": (Decoder, DecoderBlock), "dall_e.utils": (Conv2d,)}
    before = {cls: cls.__module__ for classes in homes.values() for cls in classes}
    sys.modules["dall_e"] = ModuleType("dall_e")
    for name, classes in homes.items():
        sys.modules[name] = ModuleType(name)
        for cls in classes:
            setattr(sys.modules[name], cls.__name__, cls)
            cls.__module__ = name
    try:
        yield
    finally:
        for cls, module in before.items():
            cls.__module__ = module
        for name in ("dall_e", *homes):
            del sys.modules[name]


@pytest.fixture
def published(tmp_path: Path) -> SimpleNamespace:
    """A small encoder and decoder with random weights, and `save(module, path, **settings)`, which pickles one as the package would."""

    def save(module: object, path: Path, **settings: object) -> Path:
        with written_by_dall_e():
            torch.save(module, path, **settings)
        return path

    torch.manual_seed(0)
    encoder, decoder = Encoder(n_hid=8, vocab_size=32), Decoder(n_init=12, n_hid=8, vocab_size=32)
    return SimpleNamespace(
        encoder=encoder, decoder=decoder, save=save,
        encoder_path=save(encoder, tmp_path / "encoder.pkl"), decoder_path=save(decoder, tmp_path / "decoder.pkl"),
    )  # fmt: skip
