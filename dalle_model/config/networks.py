"""Which network serves in each role, and when a newly trained one takes over. Names no run."""

from dataclasses import dataclass
from typing import Literal

from dalle_datasets.ranges import check_ranges

ROLES = ("tokenizer", "dvae", "clip", "transformer")
"""Roles of a data root, in the order in which a pipeline fills them.

There is none for safety: nothing is trained for it. `score_safety` judges with the current CLIP, by phrases or by the head that
`safety.head` names, and its scores are kept under an id of both; what judges changes with the CLIP or with that setting.
"""

METRICS: dict[str, Literal["lower", "higher"]] = {
    "tokenizer.truncated_share": "lower",
    "dvae.psnr": "higher",
    "dvae.reconstruction_loss": "lower",
    "dvae.perplexity": "higher",
    "clip.validation_loss": "lower",
    "clip.validation_batch_accuracy": "higher",
    "transformer.validation_image_loss": "lower",
    "transformer.validation_text_loss": "lower",
}
"""ROLE.METRIC that `if_better` can look at -> which of two values is better. Metrics are results of trainings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworksConfig:
    """Which networks tokenise, score, generate and choose training sets, and what a new one must be to take over."""

    chosen_by: Literal["registry", "settings"] = "registry"
    """`registry`: the current network of each role for these settings, whatever pairs it was made from. `settings`: the one that
    these settings and the present pairs make, as in `run_pipeline`."""
    use: tuple[str, ...] = ()
    """ROLE=ID of registered networks to use instead of the current ones, e.g. `dvae=3f0c…`; `dalle networks` lists them."""
    policy: Literal["manual", "if_better", "always"] = "always"
    """When a network that was trained anew becomes current: `manual` leaves that to `dalle networks use`, `if_better` compares
    `metrics`, each recorded on the validation pairs of its training. The first of a role becomes current in any case."""
    metrics: tuple[str, ...] = (
        "tokenizer.truncated_share", "dvae.psnr", "clip.validation_loss", "transformer.validation_image_loss",
    )  # fmt: skip
    """What `if_better` compares, ROLE.METRIC, one for each role; a role without one keeps its network."""
    retrain: tuple[str, ...] = ROLES
    """Roles that the flow `retrain_networks` trains."""
    retrain_growth: float = 0.0
    """Share by which the pairs must have grown since a role's last training before `retrain_networks` trains it anew; 0 always does."""

    def named(self) -> list[tuple[str, str]]:
        """(role, network id) of everything in `use`."""
        return [(role, network_id) for role, _, network_id in (text.partition("=") for text in self.use)]

    def __post_init__(self) -> None:
        for text in self.use:
            role, equals, network_id = text.partition("=")
            if role not in ROLES or not equals or not network_id:
                raise ValueError(f"networks.use has {text!r}; say ROLE=ID with a role of {', '.join(ROLES)}")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"networks.metrics has {name!r}, which no training reports; choose from {', '.join(METRICS)}")
        roles = [name.partition(".")[0] for name in self.metrics]
        if len(set(roles)) < len(roles):
            raise ValueError(f"networks.metrics={','.join(self.metrics)} has two metrics of one role; name one for each")
        for role in self.retrain:
            if role not in ROLES:
                raise ValueError(f"networks.retrain has {role!r}; the roles are {', '.join(ROLES)}")
        if self.retrain_growth < 0:
            raise ValueError(f"networks.retrain_growth={self.retrain_growth} must be at least 0, e.g. 0.2 for a fifth more pairs")
        check_ranges(self, retrain_growth=(0, 1e6))
