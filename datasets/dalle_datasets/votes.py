"""People's votes on pairs of pictures, after the paper's protocol (section 3): which looks more real, which fits the caption better.

A ballot says which picture of a prompt stands left; what voters see does not. Their votes come back as JSON files, which are checked.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dalle_datasets.store.ids import content_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet, write_parquet
from dalle_datasets.store.schemas import BALLOTS, VOTES

QUESTIONS = {"realism": "Which picture looks more realistic?", "match": "Which picture matches the caption better?"}
KIND, VERSION = "open-dalle votes", 1
MAX_BYTES = 16 * 2**20
_BALLOT_ID, _VOTER = re.compile(r"[0-9a-f]{12}"), re.compile(r"[A-Za-z0-9-]{8,64}")


def make_ballot(
    layout: Layout, names: tuple[str, str], pictures: tuple[Mapping[str, str], Mapping[str, str]], num_prompts: int, seed: int
) -> list[dict[str, Any]]:
    """Write the ballot of two sides, each prompt -> path of a picture, for prompts that both have; returns its rows in the order of voting.

    Sides and order are random, the same for the same seed. Raises `ValueError` when there is nothing to compare.
    """
    shared = sorted(pictures[0].keys() & pictures[1].keys())
    if names[0] == names[1] or not shared:
        what = "are the same" if names[0] == names[1] else "share no prompt"
        raise ValueError(f"{names[0]} and {names[1]} {what}, so there is nothing to compare; draw the same prompts with two models")
    rng = random.Random(seed)
    chosen = rng.sample(shared, min(num_prompts, len(shared)))
    ballot_id = content_id("ballot", *names, str(seed), *(f"{prompt} {side[prompt]}" for prompt in chosen for side in pictures))[:12]
    rows = [
        {
            "ballot_id": ballot_id,
            "pair_number": number,
            "prompt": prompt,
            "first": names[0],
            "second": names[1],
            "first_picture": pictures[0][prompt],
            "second_picture": pictures[1][prompt],
            "is_first_left": rng.random() < 0.5,
        }
        for number, prompt in enumerate(chosen)
    ]
    write_parquet(layout.ballot(ballot_id) / "ballot.parquet", pa.Table.from_pylist(rows, BALLOTS.with_metadata(None)), BALLOTS)
    return rows


def read_votes(layout: Layout, path: Path) -> tuple[str, int]:
    """Keep a file that a voter saved, in place of an earlier one of the same voter; returns the ballot and how many votes it has.

    Raises `ValueError` for what is no such file, of a ballot that is not in this data root, or with votes that do not fit it.
    """
    said = _checked(path)
    ballot_id, voter = said["ballot_id"], said["voter"]
    ballot = layout.ballot(ballot_id) / "ballot.parquet"
    if not ballot.exists():
        raise ValueError(f"{path}: ballot {ballot_id} is not in {layout.root}; read the votes where `dalle vote page` made the page")
    pairs = {row["pair_number"]: row for row in read_parquet(ballot, BALLOTS).to_pylist()}
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for vote in said["votes"]:
        pair = pairs.get(vote["pair"])
        if pair is None:
            raise ValueError(f"{path}: there is no pair {vote['pair']} on ballot {ballot_id}; the file was changed")
        if (vote["pair"], vote["question"]) in rows:
            raise ValueError(f"{path}: pair {vote['pair']} has two votes on {vote['question']}; the file was changed")
        is_first = (vote["choice"] == "left") == pair["is_first_left"]
        about = {name: pair[name] for name in ("ballot_id", "pair_number", "prompt", "first", "second")}
        rows[vote["pair"], vote["question"]] = {**about, "question": vote["question"], "voter": voter, "is_for_first": is_first}
    target = layout.ballot(ballot_id) / f"votes-{hashlib.sha256(voter.encode()).hexdigest()[:16]}.parquet"
    write_parquet(target, pa.Table.from_pylist(list(rows.values()), VOTES.with_metadata(None)), VOTES)
    return ballot_id, len(rows)


def _checked(path: Path) -> dict[str, Any]:
    """What a file of votes says. Raises `ValueError` for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        said = json.loads(path.read_text(encoding="utf-8"))
        _expect(isinstance(said, dict) and said.get("kind") == KIND, "it is no file that the page of `dalle vote page` saved")
        _expect(said.get("version") == VERSION, f"it is of version {said.get('version')!r}, and {VERSION} is read")
        _expect(isinstance(said.get("ballot_id"), str) and bool(_BALLOT_ID.fullmatch(said["ballot_id"])), "its ballot_id is none")
        _expect(isinstance(said.get("voter"), str) and bool(_VOTER.fullmatch(said["voter"])), "its voter is no id")
        _expect(isinstance(said.get("votes"), list) and bool(said["votes"]), "it has no votes")
        for vote in said["votes"]:
            is_vote = isinstance(vote, dict) and type(vote.get("pair")) is int and vote.get("question") in QUESTIONS
            _expect(is_vote and vote.get("choice") in ("left", "right"), f"{str(vote)[:80]} is no vote")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; ask the voter to save the votes again") from None
    return dict(said)


def _expect(is_so: bool, problem: str) -> None:
    if not is_so:
        raise ValueError(problem)


def ballot_for_voters(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the page may know: for each pair its number, the prompt, and the pictures left and right."""
    return [
        {
            "pair": row["pair_number"],
            "prompt": row["prompt"],
            "left": row["first_picture" if row["is_first_left"] else "second_picture"],
            "right": row["second_picture" if row["is_first_left"] else "first_picture"],
        }
        for row in rows
    ]
