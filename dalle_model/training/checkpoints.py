"""The states from which a training continues: `checkpoints/step-NNNNNN`, written while training goes on.

Every process writes its share through `torch.distributed.checkpoint`, so any number of processes can read it, cut in any way. What is
written is a copy made between two updates. A folder gets its name when all of it is on disk with its hashes; what a process
was writing when it was killed is begun anew. Reading runs nothing of what the files hold (`dalle_model.training.state_files`).
"""

import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from dalle_datasets.store.ids import file_sha256
from dalle_model.training.fitting import check_shapes
from dalle_model.training.parallel import World
from dalle_model.training.state_files import TENSORS, StateReader, StateWriter

warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is no reason to warn

STATE, EXTRA = "state.json", "extra."
SECONDS_TO_FINISH = 20.0
"""How long a training that fails waits for the checkpoint that is being written: less than torchrun waits before it kills."""

Tensors = dict[str, Any]
T = TypeVar("T")


def list_training_states(run_dir: Path) -> list[Path]:
    """Whole training states, oldest first."""
    return sorted((path for path in (run_dir / "checkpoints").glob("step-*") if path.suffix != ".partial"), key=_step_of)


class Checkpointer:
    """Saves and loads the states of one training; use it as a context, so that what is being written gets finished."""

    def __init__(
        self,
        run_dir: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor] | None,
        world: World,
        keep: int,
    ) -> None:
        self.run_dir, self.world, self.keep = run_dir, world, keep
        self.model, self.optimizer, self.average = model, optimizer, average
        # Of its own, because it is used beside the training's and the order of messages within a group must be the same everywhere.
        self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if world.size > 1 else None
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif self._writing is not None:
            self._writing.join(SECONDS_TO_FINISH)

    def save(self, step: int, state: Mapping[str, Any], extra: Mapping[str, Tensor] | None = None) -> None:
        """Copy everything, begin to write it, and return. Waits for the state before. Afterwards all but the newest `keep` are deleted.

        `extra` are tensors that are the same in every process. Raises `OSError` when the state before could not be written.
        """
        self.wait()
        copied = self._copied({**self._tensors(), **{EXTRA + name: value for name, value in (extra or {}).items()}})
        # A daemon: a process that must end does not wait for others that may never answer.
        self._writing = threading.Thread(target=self._write, args=(step, copied, dict(state)), daemon=True, name="checkpoint")
        self._writing.start()

    def check(self) -> None:
        """Raises `OSError` when a state could not be written."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Return when nothing is being written. Raises `OSError` when it could not be written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.check()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Fill model, optimizer and average from the newest state; returns what else was saved, `state` and `extra`.

        None when there is none. Raises `ValueError` when its files are damaged.
        """
        states = self._agree(lambda: list_training_states(self.run_dir))
        if not states:
            return None
        newest = states[-1]
        state = json.loads((newest / STATE).read_text())
        if TENSORS not in state["sha256"]:
            raise ValueError(f"{newest} is of an earlier version, which cannot be continued; delete {newest.parent} to begin the run anew")
        self._verify(newest, state["sha256"])
        reader = StateReader(newest)
        found = reader.shapes()
        extra = {name: torch.empty(size) for name, size in found.items() if name.startswith(EXTRA)}
        wanted = {**self._tensors(), **extra}
        remedy = "a run directory belongs to one configuration: delete its checkpoints, or prepare another run"
        check_shapes(_of_the_model({name: value.shape for name, value in wanted.items()}), _of_the_model(found), newest, remedy)
        try:
            load(wanted, storage_reader=reader, process_group=self._group, no_dist=self._group is None)  # into the tensors themselves
        except CheckpointException as error:
            raise ValueError(f"{newest} cannot be read ({_reasons(error)}); delete it to continue from the checkpoint before it") from error
        return state, {name.removeprefix(EXTRA): value for name, value in extra.items()}

    def _tensors(self) -> Tensors:
        """The tensors of model, optimizer and average by name, not copied."""
        weights, moments = get_state_dict(self.model, self.optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
        groups: dict[str, Mapping[str, Any]] = {"model": weights, "optimizer": moments, "average": self.average or {}}
        return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items() if isinstance(value, Tensor)}

    def _copied(self, tensors: Tensors) -> Tensors:
        """In this machine's memory, pinned where a GPU copies. Torch 2.11 lets a stager copy only once."""
        is_cuda = self.world.device.type == "cuda"
        options = StagingOptions(is_cuda, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=is_cuda)
        stager = DefaultStager(options)
        try:
            return cast(Tensors, stager.stage(tensors))
        finally:
            stager.close()

    def _write(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        final = self.run_dir / "checkpoints" / f"step-{step:06d}"
        partial = final.with_name(final.name + ".partial")
        try:
            self._agree(lambda: _make_anew(partial))
            writer = StateWriter(partial)
            save(tensors, storage_writer=writer, process_group=self._group, no_dist=self._group is None)
            hashes = self._gather({path.name: file_sha256(path) for path in partial.glob(f"__{self.world.rank}_*")})
            self._agree(lambda: self._finish(partial, final, {"step": step, "sha256": hashes, **state}))
        except (Exception, CheckpointException) as error:  # the second is no `Exception`
            reasons = _reasons(error) if isinstance(error, CheckpointException) else str(error)
            self._error = OSError(
                f"{partial}: the checkpoint of step {step} could not be written ({reasons}); the one before it is kept, so make room on "
                "the disk and run the same command again"
            )

    def _finish(self, partial: Path, final: Path, state: Mapping[str, Any]) -> None:
        hashes = {**state["sha256"], TENSORS: file_sha256(partial / TENSORS)}
        with (partial / STATE).open("w") as file:
            json.dump({**state, "sha256": hashes}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in list_training_states(self.run_dir)[: -self.keep]:
            shutil.rmtree(old)

    def _verify(self, directory: Path, hashes: Mapping[str, str]) -> None:
        """Each process reads its share of the files."""
        own = sorted(hashes)[self.world.rank :: self.world.size]
        damaged = [name for name in own if not (directory / name).exists() or file_sha256(directory / name) != hashes[name]]
        for name in self._gather(dict.fromkeys(damaged, "")):
            raise ValueError(
                f"{directory / name} does not match the SHA-256 in {STATE}; delete {directory} to continue from the checkpoint before it"
            )

    def _agree(self, act: Callable[[], T]) -> T:
        """What `act` returns, or raises, in the first process."""
        if self._group is None:
            return act()
        said: list[Any] = [None, None]
        if self.world.is_main:
            try:
                said[0] = act()
            except Exception as error:
                said[1] = error
        dist.broadcast_object_list(said, 0, group=self._group)
        if said[1] is not None:
            raise said[1]
        return cast(T, said[0])

    def _gather(self, own: dict[str, str]) -> dict[str, str]:
        """The entries of all processes."""
        if self._group is None:
            return own
        entries: list[dict[str, str]] = [{}] * self.world.size
        dist.all_gather_object(entries, own, group=self._group)
        return {name: value for part in entries for name, value in part.items()}


def _reasons(error: CheckpointException) -> str:
    causes = {rank: str(cause).strip().splitlines() or [type(cause).__name__] for rank, (cause, _) in error.failures.items()}
    return "; ".join(f"{lines[0]} in process {rank}" for rank, lines in causes.items())


def _of_the_model(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    return {name.removeprefix("model."): shape for name, shape in shapes.items() if name.startswith("model.")}


def _step_of(state: Path) -> int:
    return int(state.name.removeprefix("step-"))


def _make_anew(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
