"""The demo checker's verdict on a picture, in words."""

from collections.abc import Mapping
from typing import NamedTuple

ATTRIBUTE_NAMES = {"object": "object", "color": "colour", "background": "background", "layout": "layout"}


class Verdict(NamedTuple):
    """What the checker says of a picture, in words."""

    is_right: bool
    text: str = ""
    wrong: str = ""


def describe_verdict(verdict: Mapping[str, bool] | None) -> Verdict | None:
    """A verdict by attribute in words; None where nobody has judged."""
    if verdict is None:
        return None
    right = [ATTRIBUTE_NAMES[name] for name, is_right in verdict.items() if is_right]
    wrong = [ATTRIBUTE_NAMES[name] for name, is_right in verdict.items() if not is_right]
    if not wrong:
        return Verdict(True)
    return Verdict(False, ", ".join(wrong) if len(wrong) < 3 else f"only {right[0]} right" if right else "everything", ", ".join(wrong))
