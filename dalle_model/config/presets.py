"""Named sizes: each preset is a function whose body is only numbers."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dalle_datasets.config import DownloadConfig, FilterConfig, PathsConfig, ShardsConfig, SourceConfig
from dalle_model.config.generation import EvaluateConfig, SamplingConfig
from dalle_model.config.model import ClipConfig, DVAEConfig, TokenizerConfig, TransformerConfig
from dalle_model.config.parsing import with_overrides
from dalle_model.config.tokenizing import TokenizeImagesConfig
from dalle_model.config.training import TrainClipConfig, TrainDVAEConfig, TrainTransformerConfig
from dalle_model.config.tree import Config


def demo() -> Config:
    """The whole pipeline on 2 CPU cores in minutes: OpenMoji scenes from a web site on this machine.

    Not as in the paper: the dVAE's codebook starts as k-means over patches of the training pictures (`dalle_model.dvae.codebook`),
    because the few hundred updates that fit here find none from random weights. Its objective is then the paper's, with a smaller
    KL weight (1 for 6.6) and a floor under ln b: at this size both make the pictures sharper.
    No BPE dropout either: with 10% most names of objects fall into pieces, and 500 updates learned half as much.
    """
    return Config(
        preset="demo",
        source=SourceConfig(name="emoji_scenes", kind="emoji_scenes", num_scenes=3_000, scene_size=64),
        download=DownloadConfig(num_processes=1, num_threads=16),
        filter=FilterConfig(min_side=32),
        shards=ShardsConfig(rows_per_part=1_000, row_group_size=250),
        tokenizer=TokenizerConfig(vocab_size=640, max_text_tokens=18, bpe_dropout=0.0),
        dvae=DVAEConfig(
            image_size=32,
            downsample=4,
            codebook_size=1_024,
            hidden_width=64,
            num_groups=2,
            blocks_per_group=1,
            codebook_width=64,
            stem_patch_size=2,
            codebook_init="patch_kmeans",
        ),
        clip=ClipConfig(image_size=32, patch_size=8, embed_width=64, width=128, head_width=32, vision_layers=4, text_layers=2),
        transformer=TransformerConfig(num_layers=3, num_heads=6, d_model=192, conv_kernel_size=5),
        train_dvae=TrainDVAEConfig(
            max_steps=500,
            batch_size=16,
            learning_rate=4e-3,
            final_learning_rate=1e-4,
            warmup_steps=50,
            beta2=0.99,
            weight_decay=1e-4,
            clip_norm=1.0,
            gumbel_temperature_start=0.5,
            gumbel_temperature_end=1 / 16,
            gumbel_anneal_steps=400,
            kl_weight=1.0,
            kl_warmup_steps=200,
            min_log_scale=0.0,
            random_crop=False,
            random_flip=False,
            checkpoint_every=100,
        ),
        train_clip=TrainClipConfig(
            max_steps=450,
            batch_size=128,
            learning_rate=1e-3,
            final_learning_rate=2e-5,
            warmup_steps=50,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.05,
            clip_norm=1.0,
            checkpoint_every=100,
        ),
        train_transformer=TrainTransformerConfig(
            max_steps=1_000,
            batch_size=24,
            learning_rate=2e-3,
            final_learning_rate=4e-5,
            warmup_steps=100,
            beta2=0.96,
            weight_decay=0.05,
            clip_norm=1.0,
            checkpoint_every=200,
        ),
        sampling=SamplingConfig(num_images=32, temperature=1.0, batch_size=128),
        evaluate=EvaluateConfig(num_prompts=64, num_shown=16),
    )


def dalle_12b() -> Config:
    """The paper's shape and schedule on 64 GPUs of 80 GB: 12 billion parameters, 430,000 updates of 1,024 pairs (Appendix A and B).

    The paper crops a picture anew each time it is seen (Listing 2), which is 1.8 times in 430,000 updates over its 250 million pairs; so
    two crops of each are tokenised beforehand.
    As in the paper each machine holds one copy of the weights and the optimiser's state, cut over its devices (`hybrid`). The paper's
    machines then exchange gradients compressed by PowerSGD: rank 896 in all, 112 for each of 8 shards, factors started from one fixed
    random matrix, errors kept in 16 bits. Torch's hook compresses between whole replicas only and starts from the last factors, so
    compression is for networks that fit one device: `sharding=replicated`, `powersgd_rank`, and `powersgd_start_step` past the warm-up.
    """
    return Config(
        preset="dalle-12b",
        filter=FilterConfig(min_side=256, near_duplicates=True),
        tokenizer=TokenizerConfig(vocab_size=16_384, max_text_tokens=256),
        dvae=DVAEConfig(),
        clip=ClipConfig(image_size=256, patch_size=32, embed_width=512, width=512, head_width=64, vision_layers=12, text_layers=12),
        transformer=TransformerConfig(num_layers=64, num_heads=62, d_model=3_968),
        # Appendix A.2; temperature, KL weight and augmentation (Listing 1) are the defaults of `TrainDVAEConfig`.
        train_dvae=TrainDVAEConfig(
            max_steps=3_000_000,
            batch_size=512,
            learning_rate=1e-4,
            final_learning_rate=1.25e-6,
            decay_steps=1_200_000,
            weight_decay=1e-4,
            ema_decay=0.999,
            precision="bf16",
            log_every=100,
            validate_every=5_000,
            checkpoint_every=5_000,
        ),
        tokenize_images=TokenizeImagesConfig(random_crops=2),
        train_clip=TrainClipConfig(
            max_steps=100_000,
            batch_size=4_096,
            learning_rate=5e-4,
            final_learning_rate=5e-6,
            warmup_steps=2_000,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.2,
            precision="bf16",
            activation_checkpointing=True,
            validate_every=1_000,
            checkpoint_every=1_000,
        ),
        train_transformer=TrainTransformerConfig(
            max_steps=430_000,
            batch_size=1_024,
            learning_rate=4.5e-4,
            final_learning_rate=4.5e-4 / 32,
            schedule="plateau",
            warmup_steps=5_000,
            beta2=0.96,
            weight_decay=0.045,
            clip_norm=4.0,
            ema_decay=0.99,
            ema_every=25,
            precision="bf16",
            sharding="hybrid",
            activation_checkpointing=True,
            validate_every=1_000,
            checkpoint_every=1_000,
        ),
        sampling=SamplingConfig(num_images=512, temperature=1.0, batch_size=128, precision="bf16"),
    )


def large() -> Config:
    """1.3 billion parameters, one node of 8 GPUs of 80 GB; everything else as in the paper."""
    base = dalle_12b()
    return replace(
        base,
        preset="large",
        transformer=TransformerConfig(num_layers=24, num_heads=32, d_model=2_048),
        train_transformer=replace(base.train_transformer, microbatch_size=128, activation_checkpointing=False),
        sampling=replace(base.sampling, batch_size=256),
    )


def medium() -> Config:
    """0.3 billion parameters, one data-centre GPU of 80 GB."""
    base = dalle_12b()
    return replace(
        base,
        preset="medium",
        transformer=TransformerConfig(num_layers=24, num_heads=16, d_model=1_024),
        train_dvae=replace(base.train_dvae, max_steps=300_000, decay_steps=0, batch_size=128, microbatch_size=64),
        train_transformer=replace(
            base.train_transformer,
            max_steps=100_000,
            batch_size=512,
            microbatch_size=32,
            sharding="replicated",
            activation_checkpointing=False,
        ),
        sampling=replace(base.sampling, batch_size=256),
    )


def small() -> Config:
    """38 million transformer parameters, 128 x 128 pictures, one consumer GPU of 16 GB in an evening."""
    base = dalle_12b()
    return replace(
        base,
        preset="small",
        filter=FilterConfig(min_side=128, near_duplicates=True),
        tokenizer=TokenizerConfig(vocab_size=4_096, max_text_tokens=64),
        dvae=DVAEConfig(image_size=128, codebook_size=1_024, hidden_width=64),
        clip=ClipConfig(image_size=128, patch_size=16, embed_width=256, width=256, head_width=64, vision_layers=6, text_layers=6),
        transformer=TransformerConfig(num_layers=12, num_heads=8, d_model=512),
        train_dvae=replace(
            base.train_dvae, max_steps=50_000, decay_steps=0, batch_size=64, gumbel_anneal_steps=25_000, validate_every=1_000
        ),
        tokenize_images=TokenizeImagesConfig(),
        train_clip=replace(base.train_clip, max_steps=20_000, batch_size=512, activation_checkpointing=False),
        train_transformer=replace(
            base.train_transformer,
            max_steps=40_000,
            batch_size=128,
            warmup_steps=1_000,
            sharding="replicated",
            activation_checkpointing=False,
        ),
        sampling=SamplingConfig(num_images=32, batch_size=32),
    )


PRESETS: Mapping[str, Callable[[], Config]] = {"demo": demo, "small": small, "medium": medium, "large": large, "dalle-12b": dalle_12b}


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The named preset with dotted overrides; `DALLE_DATA_ROOT` sets `paths.data_root` unless an override does.

    Raises `ValueError` for an unknown preset or setting, with a suggestion.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise ValueError(f"preset {name!r} does not exist; {hint}")
    config = PRESETS[name]()
    if root := os.environ.get("DALLE_DATA_ROOT"):
        config = replace(config, paths=PathsConfig(data_root=root))
    return with_overrides(config, overrides or {})
