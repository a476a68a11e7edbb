"""How pictures become image tokens before the transformer is trained."""

from dataclasses import dataclass
from typing import Literal

from dalle_datasets.ranges import check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeImagesConfig:
    """Pre-tokenising with a trained dVAE (section 2.2)."""

    random_crops: int = 0
    """Near-centre crops per picture at random scales (Listing 2), each tokenised; 0 takes the centred square once."""
    batch_size: int = 64
    """Largest number of pictures per forward pass."""
    batch_memory_gb: float = 4.0
    """Memory that a forward pass may take, GB, by an estimate from the dVAE's sizes; batches are made smaller to fit."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Type of the encoder's convolutions; its last layer is always fp32. fp16 is what the released code does on a GPU and changed one
    token in two thousand of a trained demo, bf16 one in two hundred (`benchmarks/RESULTS.md`); fp32 changes none, hence the default. `auto`
    is fp16 on a GPU, elsewhere bf16 if that is measured to be faster."""
    decode_threads: int = 0
    """Threads that decode the next batch while the network works; 0 is one per CPU core. Does not change the tokens."""

    def __post_init__(self) -> None:
        check_ranges(self, random_crops=(0, 30_000), batch_size=(1, 1_000_000), batch_memory_gb=(0.001, 1e6), decode_threads=(0, 10_000))
