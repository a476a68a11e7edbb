"""Where this process computes: its device, and its place among the processes that torchrun started."""

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


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
    """The process's place, from torchrun's environment; joins the process group the first time it is called."""
    rank, size, device = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), own_device()
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return World(rank, size, device)


def wait_for_all(world: World) -> None:
    """Return when every process has come here."""
    if world.size > 1:
        dist.barrier()


def share_weights(model: nn.Module, world: World) -> None:
    """Give every process the first one's parameters and buffers: on other machines the same seed may round differently."""
    if world.size == 1:
        return
    for value in model.state_dict().values():
        packed = value.contiguous()
        dist.broadcast(packed, 0)
        value.copy_(packed)


def average_gradients(model: nn.Module, world: World) -> None:
    """Replace every gradient by its mean over the processes."""
    if world.size == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world.size
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


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
