"""`dalle vote`: from two folders of pictures to a page, from a saved file to the table."""

import csv
import json
import re

import pytest
from PIL import Image

from flows.cli.main import main


def dalle(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code


def put_folder(folder, color, *captions):
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "caption"])
        for i, caption in enumerate(captions):
            Image.new("RGB", (8, 8), color).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", caption])
    return folder


def test_a_page_is_made_votes_are_read_and_the_table_is_asked_for(tmp_path, capsys):
    new, old = put_folder(tmp_path / "new", "red", "an owl", "a cat"), put_folder(tmp_path / "old", "blue", "a cat", "a dog", "an owl")
    where = ("--set", f"paths.data_root={tmp_path / 'data'}")
    assert dalle("vote", "page", new, old, "-o", tmp_path / "vote.html", *where) == 0
    assert "2 pairs, two questions each" in capsys.readouterr().out
    ballot = json.loads(re.search(r'id="ballot">(.*?)</script>', (tmp_path / "vote.html").read_text(), re.DOTALL)[1])
    votes = [{"pair": pair["pair"], "question": "match", "choice": "left"} for pair in ballot["pairs"]]
    said = {name: ballot[name] for name in ("kind", "version", "ballot_id")} | {"voter": "voter-0001", "votes": votes}
    (tmp_path / "votes.json").write_text(json.dumps(said))
    assert dalle("vote", "read", tmp_path / "votes.json", *where) == 0
    assert f"2 votes on ballot {ballot['ballot_id']}" in capsys.readouterr().out
    assert dalle("query", "human_votes", "--param", "min_votes=1", "-f", "json", *where) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["first"], row["question"], row["num_prompts"]) == (str(new), "match", 2)
    (old / "metadata.csv").write_text("file_name,caption\n../new/0.png,an owl\n")
    assert dalle("vote", "page", new, old, "-o", tmp_path / "vote.html", *where) == 2
    assert "which lies outside of its folder; put the pictures into it" in capsys.readouterr().err
