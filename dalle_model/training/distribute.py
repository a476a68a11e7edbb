"""A network that several processes train together: replicated (DDP) or cut into parts (FSDP2).

Replicated, each process holds everything and gradients are averaged while the backward pass goes on, whole or compressed
(`dalle_model.training.compression`). Cut, each process holds its share of every tensor of the training's state: a part of the
network is gathered before it computes and let go afterwards, and of its gradient each process keeps its share. In `hybrid` sharding
the shares are those of a group of processes, and groups average their gradients: within a machine the traffic is heavy, between
machines it is not.
"""

import copy
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from dalle_model.config.training import TrainConfig
from dalle_model.precision import SHORT_DTYPES
from dalle_model.training.compression import GradientCompression
from dalle_model.training.parallel import World

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]
ComputeLoss = Callable[[nn.Module, Batch, int], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class ShardUnit:
    """A module whose weights are gathered together when the network is cut into parts."""

    module: nn.Module
    methods: tuple[str, ...] = ()
    """Methods besides `forward` by which it is called from outside."""
    is_low_precision: bool = False
    """Whether all that its matrices do is products: then they are gathered in the type of autocast, which is half the traffic."""


ShardUnits = Callable[[nn.Module], Sequence[ShardUnit]]
"""The parts of a network, inner ones first. Together they hold all of its parameters."""


class DistributedNetwork:
    """The network that this process computes with, and how its gradients meet the others'."""

    def __init__(self, model: nn.Module, compute_loss: ComputeLoss, config: TrainConfig, world: World, parts: ShardUnits | None) -> None:
        """Moves the network to the device and takes over the first process's weights: elsewhere the same seed may round differently.

        Sharded, `self.model` is another object than `model` in the first process, where `model` waits for the trained weights.
        """
        self.kept, self.model, self.world = model, model, world
        self.compute_loss = compute_loss
        self.compression: GradientCompression | None = None
        self._replicas: DistributedDataParallel | None = None
        self.is_sharded = world.size > 1 and config.sharding != "replicated"
        if world.size > 1:
            _share_weights(model, world)
        if self.is_sharded:
            if parts is None:
                raise ValueError(f"sharding={config.sharding} is not known for a {type(model).__name__}; set sharding=replicated")
            self.model = copy.deepcopy(model) if world.is_main else model
            _shard(parts(self.model), _mesh(config, world), config)
            self.model.to(world.device)
            return
        model.to(world.device)
        if world.size > 1:
            # With `find_unused_parameters` the buckets are never rebuilt, so what compression remembers of them fits after a restart.
            is_compressing = config.powersgd_rank > 0
            self._replicas = DistributedDataParallel(
                _Loss(model, compute_loss),
                init_sync=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=is_compressing,
                **_own_buffers(),
            )
            if is_compressing:
                self.compression = GradientCompression(config, world)
                self.compression.attach(self._replicas)

    @contextmanager
    def exchanging(self, is_last: bool) -> Iterator[None]:
        """Forward and backward pass of one microbatch; gradients are exchanged with the other replicas' after the last one."""
        if self._replicas is not None and not is_last:
            with self._replicas.no_sync():
                yield
            return
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_all_reduce(is_last)
        yield

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """What `compute_loss` returns, prepared for the backward pass."""
        if self._replicas is not None:
            losses: Mapping[str, Tensor] = self._replicas(batch, step)
            return losses
        return self.compute_loss(self.model, batch, step)

    def weights(self) -> dict[str, Tensor]:
        """All weights, whole. Every process takes part; sharded, only the first one gets them."""
        if not self.is_sharded:
            return dict(self.model.state_dict())
        whole = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return whole  # type: ignore[return-value]

    def give_back(self) -> None:
        """Put the weights into the network that was given, in the first process."""
        if self.is_sharded and (weights := self.weights()):
            self.kept.to(self.world.device).load_state_dict(weights)


class _Loss(nn.Module):
    """The loss as a forward pass, because that is where DDP begins its work."""

    def __init__(self, model: nn.Module, compute_loss: ComputeLoss) -> None:
        super().__init__()
        self.model, self.compute_loss = model, compute_loss

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return dict(self.compute_loss(self.model, batch, step))


def _share_weights(model: nn.Module, world: World) -> None:
    """Tensor by tensor: the whole network may be larger than a device."""
    for value in model.state_dict().values():
        packed = value.to(world.device).contiguous()
        dist.broadcast(packed, 0)
        value.copy_(packed)


def _mesh(config: TrainConfig, world: World) -> DeviceMesh:
    """One axis for `full`, replicas by shares for `hybrid`. Raises `ValueError` when the processes do not divide into groups."""
    if config.sharding == "full":
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("share",))
    group = config.shard_group or int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    if world.size % group:
        raise ValueError(f"shard_group={group} does not divide the {world.size} processes; choose a divisor")
    return init_device_mesh(world.device.type, (world.size // group, group), mesh_dim_names=("replica", "share"))


def _shard(parts: Sequence[ShardUnit], mesh: DeviceMesh, config: TrainConfig) -> None:
    """Cut every part. Numbers stay what they are in one process: vectors, and what is summed over processes, are float32."""
    low_precision = _low_precision(config.precision)
    for part in parts:
        part.module.to(memory_format=torch.contiguous_format)  # FSDP2 cuts no other
        policy = low_precision if part.is_low_precision else MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(part.module, mesh=mesh, mp_policy=policy)
        for method in part.methods:
            register_fsdp_forward_method(part.module, method)


def _own_buffers() -> dict[str, Any]:
    """What tells DDP that buffers are never exchanged: torch 2.13 renamed it."""
    is_new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if is_new else "broadcast_buffers": False}


def _low_precision(precision: str) -> MixedPrecisionPolicy:
    """Matrices are gathered in a short type, vectors as they are. Where torch cannot tell them apart, all are gathered in float32."""
    settings: dict[str, Any] = {"cast_forward_inputs": False}
    if precision in SHORT_DTYPES:
        if "param_dtype_override_fn" in inspect.signature(MixedPrecisionPolicy).parameters:
            settings |= {
                "param_dtype": SHORT_DTYPES[precision],
                "reduce_dtype": torch.float32,
                "param_dtype_override_fn": lambda parameter: None if parameter.ndim >= 2 else parameter.dtype,
            }
        else:
            text = "torch %s gathers the network in float32, twice the traffic of %s; a newer torch halves it"
            log.warning(text, torch.__version__, precision)
    return MixedPrecisionPolicy(**settings)
