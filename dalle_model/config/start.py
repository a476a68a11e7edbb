"""Warm starts: networks whose weights a training begins from, by id."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dalle_datasets.store.identity import LATER

FROZEN_ROLES = ("dvae", "clip")
"""Roles that can be kept as they are: a vocabulary is frozen by `new_tokens`, and a frozen transformer leaves nothing to train."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """Networks that trainings begin from instead of random weights; `--from FOLDER` sets all of it.

    An id is made of sizes and weights, so runs are named by what they began from, wherever that lies.
    """

    tokenizer: str = field(default="", metadata=LATER)
    """Id of the vocabulary to take over; empty learns one from the captions."""
    dvae: str = field(default="", metadata=LATER)
    """Id of the dVAE to begin from."""
    clip: str = field(default="", metadata=LATER)
    """Id of the CLIP to begin from."""
    transformer: str = field(default="", metadata=LATER)
    """Id of the transformer to begin from; needs `tokenizer` and `dvae`, whose tokens it knows."""
    frozen: tuple[str, ...] = field(default=("dvae",), metadata=LATER)
    """Roles of `dvae` and `clip` that are taken over as they are: looked at on the new pairs, not trained. Others are trained on."""
    new_tokens: Literal["refuse", "add"] = field(default="refuse", metadata=LATER)
    """What becomes of words that the vocabulary has no token for. `refuse`: they are spelled with the tokens there are. `add`: merges
    are learned from the new captions on top of the old ones, up to `tokenizer.vocab_size` ids; old ids keep their meaning."""

    def __post_init__(self) -> None:
        for role in ("tokenizer", "dvae", "clip", "transformer"):
            if (network_id := getattr(self, role)) and not re.fullmatch(r"[0-9a-f]{12}", network_id):
                raise ValueError(f"start.{role}={network_id!r} is no id of a network (12 hex digits); `dalle networks` lists them")
        for role in self.frozen:
            if role not in FROZEN_ROLES:
                why = "leaves nothing to train: `dalle import` takes a model as it is" if role == "transformer" else "is not a role"
                raise ValueError(f"start.frozen has {role!r}, which {why}; choose from {', '.join(FROZEN_ROLES)}")
        if self.transformer and not (self.tokenizer and self.dvae):
            raise ValueError(
                f"start.transformer={self.transformer} needs start.tokenizer and start.dvae, the vocabularies whose tokens it knows; set "
                "them, too (`--from FOLDER` does)"
            )
        if self.clip and not self.tokenizer:
            raise ValueError(f"start.clip={self.clip} needs start.tokenizer, the vocabulary that it reads captions with; set it, too")
        if self.new_tokens == "add" and not self.tokenizer:
            raise ValueError("start.new_tokens=add needs start.tokenizer, the vocabulary to add to; set it, or leave new_tokens out")

    def of(self, role: str) -> dict[str, object]:
        """What decides how a role's training begins; empty without a warm start."""
        network_id = getattr(self, role)
        if not network_id:
            return {}
        return {"id": network_id, "is_kept": self.keeps(role)}

    def keeps(self, role: str) -> bool:
        """Whether a network that a role begins from is taken over as it is."""
        return self.new_tokens == "refuse" if role == "tokenizer" else role in self.frozen


def check_sizes(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming the settings in which a network to begin from, `what`, differs from those that are wanted."""
    if different := different_sizes(found, wanted):
        raise ValueError(f"{what} does not fit these settings: {different}; a training goes on with the sizes it began with")


def different_sizes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings in which files differ from those that are wanted, as a list for a message; empty when there are none."""
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name}={wanted.get(name)} (the files have {found.get(name)})" for name in names)
