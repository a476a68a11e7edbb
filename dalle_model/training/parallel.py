"""Where this process computes: its device, and its place among the processes that torchrun started."""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """One process among `size`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


def own_device() -> torch.device:
    """This process's device: of several processes on a machine (`LOCAL_RANK`) each takes a GPU of its own while there are enough."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def join_world() -> World:
    """The process's place, from torchrun's environment; joins the process group the first time it is called.

    Raises `ValueError` when a machine has fewer GPUs than processes.
    """
    rank, size, device = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), own_device()
    if size > 1 and not dist.is_initialized():
        num_local, num_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if device.type == "cuda" and num_local > num_gpus:
            raise ValueError(
                f"{num_local} processes were started on a machine with {num_gpus} GPU(s), and each needs one; "
                f"start torchrun with --nproc-per-node={num_gpus}"
            )
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return World(rank, size, device)


@contextmanager
def blaming_the_absent(world: World) -> Iterator[None]:
    """Say in plain words that another process is gone. Raises `ConnectionError` for what the communication library raises.

    Often torchrun is quicker and ends this process too, by SIGTERM.
    """
    try:
        yield
    except SystemExit:
        if world.size > 1:
            logger.error(
                "process %d was told to end: the run was cancelled, or another process of this training ended; "
                "run the same command again to continue from the last checkpoint",
                world.rank,
            )
        raise
    except RuntimeError as error:
        if world.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise ConnectionError(
            f"another process of this training ended or cannot be reached ({str(error).splitlines()[0]}); what it said is above, or in the "
            "log of its machine; run the same command again to continue from the last checkpoint"
        ) from error


def average_numbers(numbers: dict[str, float], world: World) -> dict[str, float]:
    """Mean of each figure over the processes."""
    return {name: value / world.size for name, value in sum_numbers(numbers, world).items()}


def sum_numbers(numbers: dict[str, float], world: World) -> dict[str, float]:
    """Sum of each figure over the processes. Every process passes the same names."""
    if world.size == 1:
        return numbers
    values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=world.device)
    dist.all_reduce(values)
    return dict(zip(numbers, values.tolist(), strict=True))
