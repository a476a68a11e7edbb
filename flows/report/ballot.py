"""The page on which people vote on pairs of pictures: one file, which loads nothing, sends nothing and does not say whose a picture is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dalle_datasets.votes import KIND, QUESTIONS, VERSION, ballot_for_voters
from flows.report.pictures import embed_file


def ballot_page(rows: Sequence[Mapping[str, Any]], root: Path) -> str:
    """The page for the rows of a ballot; paths of pictures are under `root`, or absolute.

    Raises `ValueError` for a picture that is not there: its pair could be told by it.
    """
    pairs = [{**pair, **{side: _picture(root / pair[side]) for side in ("left", "right")}} for pair in ballot_for_voters(rows)]
    ballot = {"kind": KIND, "version": VERSION, "ballot_id": rows[0]["ballot_id"], "questions": QUESTIONS, "pairs": pairs}
    inside = json.dumps(ballot).replace("<", "\\u003c")  # a prompt must not end the script
    return Path(__file__).with_name("ballot.html").read_text(encoding="utf-8").replace("BALLOT", inside, 1)


def _picture(path: Path) -> dict[str, Any]:
    found = embed_file(path)
    if found is None:
        raise ValueError(f"{path} is missing or cannot be read; draw the pictures again")
    return {"src": found.src, "pixel": found.is_pixel_art}
