"""Ballots hide whose a picture is; files of votes are checked before they count, and a voter counts once."""

import json

import pytest

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import VOTES
from dalle_datasets.votes import ballot_for_voters, make_ballot, read_votes

PROMPTS = [f"a picture of {i}" for i in range(12)]


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def ballot(layout, **more):
    sides = tuple({prompt: f"runs/{name}/{i}.png" for i, prompt in enumerate(PROMPTS)} for name in ("a", "b"))
    return make_ballot(layout, ("a", "b"), sides, **{"num_prompts": 10, "seed": 1, **more})


def save(path, rows, choose, voter="voter-0001", **more):
    """The file of a voter who chooses `choose(pair)`: "first" or "second"."""
    votes = [
        {
            "pair": row["pair_number"],
            "question": question,
            "choice": "left" if (choose(row) == "first") == row["is_first_left"] else "right",
        }
        for row in rows
        for question in ("realism", "match")
    ]
    said = {"kind": "open-dalle votes", "version": 1, "ballot_id": rows[0]["ballot_id"], "voter": voter, "votes": votes, **more}
    path.write_text(json.dumps(said))
    return path


def test_the_page_does_not_know_whose_a_picture_is_and_sides_are_mixed(layout):
    rows = ballot(layout)
    assert len({row["prompt"] for row in rows}) == 10
    assert {row["is_first_left"] for row in rows} == {True, False}
    assert ballot(layout) == rows
    assert ballot(layout, seed=2) != rows
    shown = ballot_for_voters(rows)
    assert all(set(pair) == {"pair", "prompt", "left", "right"} for pair in shown)
    for pair, row in zip(shown, rows, strict=True):
        assert {pair["left"], pair["right"]} == {row["first_picture"], row["second_picture"]}
    with pytest.raises(ValueError, match="share no prompt, so there is nothing to compare"):
        make_ballot(layout, ("a", "b"), ({"x": "1"}, {"y": "2"}), 5, 0)
    with pytest.raises(ValueError, match="are the same"):
        make_ballot(layout, ("a", "a"), ({"x": "1"}, {"x": "1"}), 5, 0)


def test_votes_are_for_a_side_not_a_place_and_a_voter_counts_once(layout, tmp_path):
    rows = ballot(layout)
    ballot_id, number = read_votes(layout, save(tmp_path / "v.json", rows, lambda row: "first"))
    (path,) = layout.ballot(ballot_id).glob("votes-*.parquet")
    assert number == 20
    assert set(read_parquet(path, VOTES)["is_for_first"].to_pylist()) == {True}
    read_votes(layout, save(tmp_path / "again.json", rows, lambda row: "second"))
    assert set(read_parquet(path, VOTES)["is_for_first"].to_pylist()) == {False}, "the newest"
    read_votes(layout, save(tmp_path / "other.json", rows, lambda row: "first", voter="voter-0002"))
    assert len(list(layout.ballot(ballot_id).glob("votes-*.parquet"))) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "x"}, "it is no file that the page of `dalle vote page` saved"),
        ({"version": 2}, "it is of version 2, and 1 is read"),
        ({"ballot_id": "../../etc"}, "its ballot_id is none"),
        ({"ballot_id": "0" * 12}, "ballot 000000000000 is not in"),
        ({"voter": "../x"}, "its voter is no id"),
        ({"votes": []}, "it has no votes"),
        ({"votes": [{"pair": True, "question": "realism", "choice": "left"}]}, "is no vote"),
        ({"votes": [{"pair": 99, "question": "realism", "choice": "left"}]}, "there is no pair 99"),
        ({"votes": [{"pair": 1, "question": "match", "choice": "left"}] * 2}, "pair 1 has two votes on match"),
        ({"votes": [{"pair": 1, "question": "beauty", "choice": "left"}]}, "is no vote"),
    ],
)
def test_a_file_that_was_changed_is_refused(layout, tmp_path, changed, message):
    rows = ballot(layout)
    with pytest.raises(ValueError, match=message):
        read_votes(layout, save(tmp_path / "v.json", rows, lambda row: "first", **changed))
    assert not list(layout.ballot(rows[0]["ballot_id"]).glob("votes-*"))


def test_what_is_no_json_is_refused(layout, tmp_path):
    (tmp_path / "v.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="ask the voter to save the votes again"):
        read_votes(layout, tmp_path / "v.json")
