"""A training continues from files that others may have written: they are data, and nothing in them runs."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dalle_model.training.checkpoints import Checkpointer
from dalle_model.training.parallel import World
from dalle_model.training.state_files import TENSORS

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


class Bomb:
    """A pickle that makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "boom")


def make(run_dir: Path) -> Checkpointer:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpointer(run_dir, model, optimizer, None, WORLD, keep=2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A state of a training."""
    with make(tmp_path) as states:
        states.save(1, {"loss": 0.5}, {"sums": torch.arange(3.0)})
    return tmp_path / "checkpoints" / "step-000001"


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file as somebody would who knows of the hashes."""
    (folder / name).write_bytes(content)
    state = json.loads((folder / "state.json").read_text())
    state["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "state.json").write_text(json.dumps(state))


def test_a_state_round_trips_without_a_pickle(saved: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["__0_0.distcp", "state.json", TENSORS]
    with make(tmp_path) as states:
        weight = states.model.weight.clone()
        with torch.no_grad():
            states.model.weight.zero_()
        found = states.load()
        assert found is not None
        assert found[0]["loss"] == 0.5
        assert found[1]["sums"].tolist() == [0.0, 1.0, 2.0]
        assert torch.equal(states.model.weight, weight)


def test_a_planted_pickle_is_not_read(saved: Path, tmp_path: Path) -> None:
    boom = tmp_path / "boom"
    for name in (".metadata", "__0.metadata"):
        put(saved, name, pickle.dumps(Bomb(boom)))
    with make(tmp_path) as states:
        assert states.load() is not None
    assert not boom.exists()


def test_tensors_that_are_a_program_are_refused(saved: Path, tmp_path: Path) -> None:
    boom = tmp_path / "boom"
    torch.save(Bomb(boom), tmp_path / "bomb.pt")
    content = (tmp_path / "bomb.pt").read_bytes()
    tensors = json.loads((saved / TENSORS).read_text())
    for said in tensors.values():
        for piece in said["pieces"]:
            piece["bytes"] = [0, len(content)]
    put(saved, TENSORS, json.dumps(tensors).encode())
    put(saved, "__0_0.distcp", content)
    with (
        make(tmp_path) as states,
        pytest.raises(ValueError, match=r"step-000001 cannot be read \(.*; delete it to continue from the check"),
    ):
        states.load()
    assert not boom.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"dtype": "__class__"},
        {"shape": [2**40]},
        {"shape": [-1]},
        {"shape": "12"},
        {"shape": [True]},
        {"pieces": None},
        {"pieces": [{"offsets": [0], "shape": [2], "file": "../../../secret.distcp", "bytes": [0, 10]}]},
        {"pieces": [{"offsets": [0], "shape": [2], "file": "/etc/passwd", "bytes": [0, 10]}]},
        {"pieces": [{"offsets": [0], "shape": [2], "file": "__0_0.distcp", "bytes": [0, 2**60]}]},
        {"pieces": [{"offsets": [0], "shape": [2], "file": "__0_0.distcp", "bytes": [0, "x"]}]},
    ],
)
def test_a_list_of_tensors_that_we_cannot_have_written_is_refused(saved: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    tensors = json.loads((saved / TENSORS).read_text())
    tensors["extra.sums"].update(change)
    put(saved, TENSORS, json.dumps(tensors).encode())
    with (
        make(tmp_path) as states,
        pytest.raises(ValueError, match=r"tensors\.json is no list of tensors of a training .*; delete .*step-000001"),
    ):
        states.load()


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'{"a": 1}', b"\xff"])
def test_what_is_no_list_at_all_is_refused(saved: Path, tmp_path: Path, content: bytes) -> None:
    put(saved, TENSORS, content)
    with make(tmp_path) as states, pytest.raises(ValueError, match=r"tensors\.json is no list of tensors"):
        states.load()
