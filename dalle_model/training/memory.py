"""Whether a training fits its device, known before it begins: its loss is computed once on tensors that have shapes but no contents."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dalle_model.config.training import TrainConfig
from dalle_model.precision import autocast

STATE_BYTES = 16
"""Of each weight: itself, its gradient and AdamW's two moments, in float32."""
AVERAGE_BYTES = 4


def pairs_at_once(config: TrainConfig, world_size: int) -> int:
    """Pairs that one device computes at a time."""
    return max(1, (config.microbatch_size or config.batch_size) // world_size)


def update_bytes(config: TrainConfig, build: Callable[[], nn.Module], compute_loss: Callable[[nn.Module], Tensor]) -> int:
    """Bytes that a device needs for an update of the network that `build` makes, weights and optimiser included.

    `compute_loss` makes its own batch. Counted is what autograd keeps, as if gradients came when all activations are still there, so it
    is a few percent too much; the allocator's fragments and the framework come on top.
    """
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        held.append(tensor)  # so that no other storage gets its address
        return tensor

    with FakeTensorMode():
        model = build().train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(config.precision, torch.device("cpu")):
            compute_loss(model)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        num_weights = sum(parameter.numel() for parameter in model.parameters())
    activations = sum(size for storage, size in kept.items() if storage not in weights)
    return num_weights * (STATE_BYTES + (AVERAGE_BYTES if config.ema_decay else 0)) + activations


def device_bytes(device: torch.device) -> int | None:
    """Memory of a GPU; None for a CPU, whose memory is not ours alone and can be swapped."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def check_fits(planned: Callable[[], int], device: torch.device, job: str, remedy: str) -> None:
    """Raises `ValueError` with both figures and the `remedy` when a GPU has less memory than is `planned`."""
    available = device_bytes(device)
    if available is not None and (needed := planned()) > available:
        raise ValueError(f"{job} needs {needed / 2**30:.1f} GiB on each device and {device} has {available / 2**30:.1f} GiB; {remedy}")
