"""Agreement of pictures with their prompts as a table, from the result of the job `evaluate`."""

from collections.abc import Mapping
from typing import Any


def agreement_table(evaluated: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per prompt set: the share with all attributes right for one picture, for CLIP's best of n, and for any of n."""
    found = {n for shares in evaluated["agreement"].values() for n in shares}
    numbers = sorted(found, key=lambda n: (n == "any", int(n.removeprefix("n=")) if n != "any" else 0))
    names = {n: f"best of {n.removeprefix('n=')}" for n in numbers} | {"n=1": "one picture", "any": "any of them"}
    return [
        {"prompts": prompt_set.replace("_", " ")} | {names[n]: f"{shares[n]['all']:.2f}" if n in shares else "" for n in numbers}
        for prompt_set, shares in evaluated["agreement"].items()
    ]
