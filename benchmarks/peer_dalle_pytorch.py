"""lucidrains' DALLE-pytorch as a peer in `bench_train.py`. It is no dependency of this project; to compare, install it beside it:

    .venv/bin/python -m pip install --no-deps --target PEER \\
        dalle-pytorch==1.6.6 axial_positional_embedding==0.3.12 rotary-embedding-torch==0.9.1 einops
    .venv/bin/python benchmarks/bench_train.py --peer PEER
"""

import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer.masks import layer_kinds

LAYER_TYPES = {"row": "axial_row", "column": "axial_col", "conv": "conv_like"}
"""Its names. Its masks are not the paper's: a row sees itself only, the window is 5 x 5 and does not wrap."""

# What its pretrained picture tokenizers import, which are never used here; `pkg_resources` left setuptools.
UNUSED: dict[str, dict[str, Any]] = {
    "omegaconf": {"OmegaConf": None},
    "taming": {},
    "taming.models": {},
    "taming.models.vqgan": {"VQModel": None, "GumbelVQ": None},
    "pkg_resources": {"get_distribution": lambda name: SimpleNamespace(version=metadata.version(name))},
}


def peer_updates(folder: Path | None, config: TransformerConfig, stream: StreamShape, pairs: int) -> dict[str, Callable[[], object]]:
    """Updates of the peer's network at the same sizes, by name: as it comes, and its fastest options. Empty, with a sentence
    on standard output, when `folder` does not hold it."""
    if folder is None or not (folder / "dalle_pytorch").is_dir():
        where = f"{folder} does not hold it" if folder else "no --peer folder is given"
        print(f"DALLE-pytorch is left out ({where}); the top of {Path(__file__).name} says how to install it")
        return {}
    dalle_pytorch = _import(folder)
    kinds = tuple(LAYER_TYPES[kind] for kind in layer_kinds(config.num_layers))
    plain = {"shift_tokens": False, "rotary_emb": False}

    def update(layer_types: tuple[str, ...], options: dict[str, bool]) -> Callable[[], object]:
        torch.manual_seed(0)
        grid = stream.image_grid_size
        vae = dalle_pytorch.DiscreteVAE(
            image_size=4 * grid, num_layers=2, num_tokens=stream.codebook_size, codebook_dim=32, hidden_dim=8, num_resnet_blocks=0
        )
        model = dalle_pytorch.DALLE(
            dim=config.d_model,
            vae=vae,
            num_text_tokens=stream.text_vocab_size,
            text_seq_len=stream.max_text_tokens,
            depth=config.num_layers,
            heads=config.num_heads,
            dim_head=config.d_head,
            attn_types=layer_types,
            loss_img_weight=7,
            **options,
        )
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
        text = torch.randint(1, stream.text_vocab_size, (pairs, stream.max_text_tokens))
        image = torch.randint(stream.codebook_size, (pairs, stream.num_image_tokens))

        def run() -> None:
            model(text, image, return_loss=True).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    updates = {"DALLE-pytorch, sparse": update(kinds, {}), "DALLE-pytorch, full": update(("full",), {})}
    if pairs > 1:  # its sparse layers crash at one pair without rotary embeddings (an in-place change of a view)
        updates["DALLE-pytorch, sparse, plain"] = update(kinds, plain)
    updates["DALLE-pytorch, full, plain"] = update(("full",), plain)
    return updates


def _import(folder: Path) -> ModuleType:
    sys.path.append(str(folder))
    for name, members in UNUSED.items():
        if name not in sys.modules:
            module = ModuleType(name)
            module.__dict__.update(members)
            sys.modules[name] = module
    return importlib.import_module("dalle_pytorch")
