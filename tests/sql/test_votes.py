"""What people voted is counted by majorities of five, with an interval over prompts."""

import pyarrow as pa
import pytest

from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import VOTES


def put_votes(root, voter, choices, question="realism"):
    rows = [
        {
            "ballot_id": "b1", "pair_number": pair, "prompt": f"p{pair}", "first": "new", "second": "old", "question": question,
            "voter": voter, "is_for_first": is_for_first,
        }
        for pair, is_for_first in choices.items()
    ]  # fmt: skip
    write_parquet(root / f"votes/b1/votes-{voter}-{question}.parquet", pa.Table.from_pylist(rows, VOTES.with_metadata(None)), VOTES)


def test_a_majority_of_five_decides_a_prompt(catalog, tmp_path):
    for voter in range(5):
        put_votes(tmp_path, f"v{voter}", {1: True, 2: voter < 3, 3: voter < 2, 4: True} | ({5: True} if voter < 4 else {}))
    put_votes(tmp_path, "v9", {1: False}, "match")
    match, realism = catalog.query("human_votes", root=str(tmp_path))[::-1]
    assert match[:7] == ("b1", "new", "old", "match", 1, 0, 1)
    assert match[7:] == (None, None, None, None)
    ballot, first, second, question, voters, prompts, fewer, share, low, high, unanimous = realism
    assert (ballot, first, second, question, voters, prompts, fewer) == ("b1", "new", "old", "realism", 5, 4, 1)
    assert (share, unanimous) == (0.75, 0.5)
    assert (low, high) == (pytest.approx(0.301, abs=1e-3), pytest.approx(0.954, abs=1e-3)), "Wilson's"
    ((*_, num_prompts, num_fewer, for_first, _, _, _),) = [
        row for row in catalog.query("human_votes", root=str(tmp_path), min_votes=4) if row[3] == "realism"
    ]
    assert (num_prompts, num_fewer, for_first) == (5, 0, 0.8)


def test_a_tie_counts_half(catalog, tmp_path):
    for voter in range(4):
        put_votes(tmp_path, f"v{voter}", {1: voter < 2})
    assert [row[7] for row in catalog.query("human_votes", root=str(tmp_path), min_votes=4)] == [0.5]


def test_votes_are_one_row_for_each_voter_and_question(catalog, tmp_path):
    put_votes(tmp_path, "v1", {1: True, 2: False})
    found = catalog.con.execute("select voter, pair_number, is_for_first from votes($root) order by all", {"root": str(tmp_path)})
    assert found.fetchall() == [("v1", 1, True), ("v1", 2, False)]
