"""lucidrains' DALLE-pytorch as a peer in `bench_train.py` and `bench_sampling.py`. It is no dependency of this project; to compare,
install it beside it:

    .venv/bin/python -m pip install --no-deps --target PEER \\
        dalle-pytorch==1.6.6 axial_positional_embedding==0.3.12 rotary-embedding-torch==0.9.1 einops
    .venv/bin/python benchmarks/bench_train.py --peer PEER

Its `generate_images` has no working cache as shipped: without guidance, `use_cache=True` is dropped on the way to the network,
so every token costs a full forward pass. `peer_samplers` also runs it with the cache passed on, which is right for its full
attention and for its row and column attention "optimized for inference"; its other sparse layers then share one cache and go wrong.
"""

import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.utils._pytree import tree_map

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer.masks import layer_kinds

LAYER_TYPES = {"row": "axial_row", "column": "axial_col", "conv": "conv_like"}
"""Its names. Its masks are not the paper's: a row sees itself only, the window is 5 x 5 and does not wrap."""

STEPS = 8
"""Steps in a row that are timed together where there is a cache."""

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
    dalle_pytorch = _import(folder)
    if dalle_pytorch is None:
        return {}
    kinds = tuple(LAYER_TYPES[kind] for kind in layer_kinds(config.num_layers))
    plain = {"shift_tokens": False, "rotary_emb": False}

    def update(layer_types: tuple[str, ...], options: dict[str, bool]) -> Callable[[], object]:
        model = _build(dalle_pytorch, config, stream, layer_types, options)
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


def peer_samplers(folder: Path | None, config: TransformerConfig, stream: StreamShape, candidates: int) -> dict[str, Any]:
    """Ways of sampling `candidates` pictures of one caption with the peer's network, by name. Each is a function that gets ready for a
    position and returns (what does steps from there on, how many)."""
    dalle_pytorch = _import(folder)
    if dalle_pytorch is None:
        return {}
    top_k, gumbel_sample = dalle_pytorch.dalle_pytorch.top_k, dalle_pytorch.dalle_pytorch.gumbel_sample
    text = torch.randint(1, stream.text_vocab_size, (1, stream.max_text_tokens))
    image = torch.randint(stream.codebook_size, (1, stream.num_image_tokens))
    kinds = tuple(LAYER_TYPES[kind] for kind in layer_kinds(config.num_layers))

    def step(model: Any, text: torch.Tensor, image: torch.Tensor, cache: dict[str, Any] | None) -> torch.Tensor:
        """What its `generate_images` does for each token, with its own defaults."""
        logits = model(text, image, cache=cache)[:, -1, :]
        tokens = gumbel_sample(top_k(logits, thres=0.5), temperature=1.0, dim=-1) - model.num_text_tokens
        return torch.cat((image, tokens[:, None]), -1)

    def without_cache(*layer_types: str) -> Callable[[int], tuple[Callable[[], object], int]]:
        model = _build(dalle_pytorch, config, stream, layer_types, {}).eval()
        return lambda position: (lambda: step(model, text, image[:, :position], None), 1)

    def with_cache(layer_types: tuple[str, ...], **options: bool) -> Callable[[int], tuple[Callable[[], object], int]]:
        model = _build(dalle_pytorch, config, stream, layer_types, options).eval()

        def get_ready(position: int) -> tuple[Callable[[], object], int]:
            """Fill the cache with one picture and copy it for all candidates: nothing depends on what they hold."""
            cache: dict[str, Any] = {}
            step(model, text, image[:, :position], cache)
            cache = tree_map(lambda x: x.repeat(candidates, *[1] * (x.ndim - 1)) if torch.is_tensor(x) else x, cache)
            texts, images = text.repeat(candidates, 1), image[:, : position + 1].repeat(candidates, 1)

            def run() -> None:
                now, images_now = dict(cache), images
                for _ in range(num_steps):
                    images_now = step(model, texts, images_now, now)

            num_steps = min(STEPS, stream.num_image_tokens - 1 - position)
            return run, num_steps

        return get_ready

    samplers = {
        "DALLE-pytorch, full, cache mended": with_cache(("full",)),
        "DALLE-pytorch, rows and columns, cache mended": with_cache(
            tuple(kind.replace("conv_like", "axial_row") for kind in kinds), optimize_for_inference=True
        ),
    }
    if candidates == 1:
        samplers["DALLE-pytorch, sparse, as shipped"] = without_cache(*kinds)
        samplers["DALLE-pytorch, full, as shipped"] = without_cache("full")
    return samplers


def _build(
    dalle_pytorch: Any, config: TransformerConfig, stream: StreamShape, layer_types: tuple[str, ...], options: dict[str, bool]
) -> Any:
    """Its network at our sizes, with the smallest picture tokenizer it takes."""
    torch.manual_seed(0)
    vae = dalle_pytorch.DiscreteVAE(
        image_size=4 * stream.image_grid_size,
        num_layers=2,
        num_tokens=stream.codebook_size,
        codebook_dim=32,
        hidden_dim=8,
        num_resnet_blocks=0,
    )
    return dalle_pytorch.DALLE(
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


def _import(folder: Path | None) -> ModuleType | None:
    """The peer's package, or None, with a sentence on standard output, when `folder` does not hold it."""
    if folder is None or not (folder / "dalle_pytorch").is_dir():
        where = f"{folder} does not hold it" if folder else "no --peer folder is given"
        print(f"DALLE-pytorch is left out ({where}); the top of {Path(__file__).name} says how to install it")
        return None
    sys.path.append(str(folder))
    for name, members in UNUSED.items():
        if name not in sys.modules:
            module = ModuleType(name)
            module.__dict__.update(members)
            sys.modules[name] = module
    return importlib.import_module("dalle_pytorch")
