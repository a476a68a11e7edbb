"""`dalle bench scenes`: pictures for the questions of `dalle_datasets.demo.scene_questions`, judged, as shares with intervals.

Verdicts are lines of a file, one for each prompt, so that an interrupted bench goes on and a finished one need not be asked again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.demo.emoji_checker import SIDE
from dalle_datasets.demo.scene_judge import SceneJudge, is_right
from dalle_datasets.demo.scene_questions import QUESTIONS, SPLITS, Scene, scenes
from dalle_model.evaluation.estimates import share_estimate

Draw = Callable[[str], Sequence[Image.Image]]
"""Candidates for a caption, the best by CLIP first."""
Verdicts = Mapping[tuple[str, str], Sequence[Sequence[bool]]]
"""(question, split) -> for each prompt whether its candidates are right, the best by CLIP first."""
ALL = "all"
MAX_ERROR = 0.01
"""Share of rendered truth that the judge may get wrong."""


def asked_scenes(num_prompts: int) -> list[Scene]:
    """`num_prompts` scenes of every question and split, fewer where there are no more."""
    return [scene for question in QUESTIONS for split in SPLITS for scene in islice(scenes(question, split), num_prompts)]


def judge_truth(judge: SceneJudge, asked: Sequence[Scene], side: int) -> float:
    """The share of the asked scenes, rendered and averaged down to the model's pictures, that the judge gets wrong.

    Raises `ValueError` when that is `MAX_ERROR` or more.
    """
    seen = judge.look(np.stack([_readable(Image.fromarray(scene.draw()).resize((side, side), Image.Resampling.BOX)) for scene in asked]))
    error = 1 - float(np.mean([is_right(what, scene) for what, scene in zip(seen, asked, strict=True)]))
    if error >= MAX_ERROR:
        raise ValueError(
            f"the judge gets {error:.1%} of rendered pictures of {side} pixels wrong, and {MAX_ERROR:.0%} is the limit; "
            "a model that draws larger pictures can be judged"
        )
    return error


def ask(draw: Draw, judge: SceneJudge, asked: Sequence[Scene], kept: Path, key: str) -> Iterator[dict[str, Any]]:
    """The verdicts on every asked scene, a row each; those that `kept` has under `key` are not drawn again."""
    known = {row["caption"]: row for row in _read(kept) if row["key"] == key}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        if file.tell() and not kept.read_bytes().endswith(b"\n"):  # a killed bench
            file.write("\n")
        for scene in asked:
            caption = scene.caption()
            row = known.get(caption)
            if row is None:
                seen = judge.look(np.stack([_readable(picture) for picture in draw(caption)]))
                about = {"question": scene.question, "split": scene.split, "caption": caption}
                row = {"key": key, **about, "right": [is_right(what, scene) for what in seen]}
                file.write(json.dumps(row) + "\n")
                file.flush()
            yield row


def figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares with 95% intervals over prompts, for one picture (the mean of all candidates) and for CLIP's best.

    `all` is the mean over questions, each with as many prompts as the one that has the fewest.
    """
    found = []
    for split in SPLITS:
        right = {question: [row["right"] for row in rows if (row["question"], row["split"]) == (question, split)] for question in QUESTIONS}
        least = min(map(len, right.values()))
        if not least:
            continue
        right[ALL] = [verdicts for question in QUESTIONS for verdicts in right[question][:least]]
        for question, verdicts in right.items():
            candidates = np.array(verdicts, np.float64)
            for best_of, values in {1: candidates.mean(1), candidates.shape[1]: candidates[:, 0]}.items():
                share = share_estimate(values)
                about = {"question": question, "split": split, "best_of": best_of, "num_prompts": share.num_samples}
                found.append({**about, "right": share.value, "low": share.low, "high": share.high})
    return found


def _read(kept: Path) -> Iterator[dict[str, Any]]:
    if kept.exists():
        for line in kept.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # the last one, of a bench that was killed
                continue


def _readable(picture: Image.Image) -> NDArray[np.uint8]:
    """The picture at the nearest side that the judge reads."""
    side = max(SIDE, round(picture.width / SIDE) * SIDE)
    pixels: NDArray[np.uint8] = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX), np.uint8)
    return pixels
