"""The whole configuration of a run, and the checks that span its sections."""

from dataclasses import dataclass, field

from dalle_datasets.config import CatalogConfig, DownloadConfig, FilterConfig, PathsConfig, ShardsConfig, SourceConfig
from dalle_datasets.ranges import check_ranges
from dalle_model.config.flow import FlowConfig
from dalle_model.config.generation import EvaluateConfig, SamplingConfig
from dalle_model.config.model import ClipConfig, DVAEConfig, StreamShape, TokenizerConfig, TransformerConfig
from dalle_model.config.networks import NetworksConfig
from dalle_model.config.safety import SafetyConfig
from dalle_model.config.start import StartConfig
from dalle_model.config.tokenizing import TokenizeImagesConfig
from dalle_model.config.training import TrainClipConfig, TrainDVAEConfig, TrainTransformerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that decides a run's result. Build one with `dalle_model.config.presets.preset`."""

    preset: str
    """Name of the preset this tree started from."""
    seed: int = 0
    """Seed of everything random: initial weights, batches, noise, samples."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dvae: DVAEConfig = field(default_factory=DVAEConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    start: StartConfig = field(default_factory=StartConfig)
    train_dvae: TrainDVAEConfig
    tokenize_images: TokenizeImagesConfig = field(default_factory=TokenizeImagesConfig)
    train_clip: TrainClipConfig
    train_transformer: TrainTransformerConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)

    def __post_init__(self) -> None:
        check_ranges(self, seed=(-(2**63), 2**63 - 1))
        if self.clip.image_size > self.dvae.image_size and not self.clip.pretrained:
            raise ValueError(
                f"clip.image_size={self.clip.image_size} is larger than dvae.image_size={self.dvae.image_size}, "
                "so it would see nothing but enlarged pictures; use at most the dVAE's size"
            )
        if self.transformer.attention == "sparse" and self.transformer.conv_kernel_size > 2 * self.dvae.image_grid_size - 1:
            raise ValueError(
                f"transformer.conv_kernel_size={self.transformer.conv_kernel_size} is wider than the token grid "
                f"(dvae.image_size / dvae.downsample = {self.dvae.image_grid_size}); choose a smaller odd number"
            )
        if self.sampling.guidance != 1 and not self.train_transformer.caption_dropout:
            raise ValueError(
                f"sampling.guidance={self.sampling.guidance} needs a transformer that was trained with empty captions; "
                "set train_transformer.caption_dropout, e.g. 0.1"
            )

        for role, section, name in (("clip", self.clip, "pretrained"), ("dvae", self.train_dvae, "imported")):
            if getattr(self.start, role) and getattr(section, name):
                where = {"clip": "clip", "dvae": "train_dvae"}[role]
                raise ValueError(
                    f"start.{role}={getattr(self.start, role)} and {where}.{name}={getattr(section, name)} both say where the {role} comes "
                    "from; leave one out"
                )

    @property
    def safety_classifier(self) -> str:
        """'none', 'zero_shot' or 'head': `safety.classifier`, with 'auto' decided by whether the CLIP has seen the world."""
        if self.safety.classifier == "auto":
            return "zero_shot" if self.clip.pretrained else "none"
        return self.safety.classifier

    @property
    def stream(self) -> StreamShape:
        """The transformer's sequence: text vocabulary from the tokenizer, image vocabulary from the dVAE's codebook."""
        return StreamShape(
            text_vocab_size=self.tokenizer.vocab_size,
            max_text_tokens=self.tokenizer.max_text_tokens,
            codebook_size=self.dvae.codebook_size,
            image_grid_size=self.dvae.image_grid_size,
        )
