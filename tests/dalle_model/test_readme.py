"""What the README of dalle_model shows is what happens."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dalle_model


def test_images_become_tokens_and_images_again(published, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (Path(dalle_model.__file__).parent / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save("cat.png")
    names: dict = {}
    exec(code, names)
    assert (names["tokens"].shape, names["tokens"].dtype) == ((1, 1024), torch.int64)
    assert names["pictures"].shape == (1, 3, 256, 256)
    assert 0 <= names["pictures"].min() < names["pictures"].max() <= 1
