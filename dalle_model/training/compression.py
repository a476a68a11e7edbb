"""PowerSGD: replicas exchange two thin factors of each gradient matrix instead of the matrix (section 2.5, Appendix E).

What the factors leave out stays in each process and is added to its next gradient. That error is part of a checkpoint, as the mean over
the processes: the exchange is linear, so nothing changes when every process goes on with the mean, and any number of them can.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from dalle_model.config.training import TrainConfig
from dalle_model.training.parallel import World


def _one_bucket_after_the_other(state: PowerSGDState, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """For gloo: the hook sends its second and third message from callbacks, whose order among buckets differs between processes."""
    exchanged = powerSGD_hook(state, bucket)
    exchanged.wait()
    return exchanged


class GradientCompression:
    """Torch's PowerSGD hook with a state that can be saved."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.world = world
        self._state = PowerSGDState(
            process_group=None,
            matrix_approximation_rank=config.powersgd_rank,
            start_powerSGD_iter=config.powersgd_start_step,
            warm_start=config.powersgd_warm_start,
        )

    def attach(self, replicas: DistributedDataParallel) -> None:
        """Use it for the gradients of these replicas."""
        replicas.register_comm_hook(self._state, _one_bucket_after_the_other if self.world.device.type == "cpu" else powerSGD_hook)

    def begin(self, step: int, seed: int) -> None:
        """Before update `step`: the random factors, too, are a function of seed and step."""
        self._state.iter = step
        self._state.rng.seed(seed % 2**32)

    def state_dict(self) -> dict[str, Tensor]:
        """What to save, by kind and bucket. Every process takes part and gets the same."""
        errors = {}
        for bucket, error in self._state.error_dict.items():
            errors[bucket] = error / self.world.size
            dist.all_reduce(errors[bucket])
        kinds = {"error": errors, "p": self._state.p_memory_dict, "q": self._state.q_memory_dict}
        return {f"{kind}.{bucket}": value for kind, buckets in kinds.items() for bucket, value in buckets.items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Continue with the errors and factors of a checkpoint."""
        kinds = {"error": self._state.error_dict, "p": self._state.p_memory_dict, "q": self._state.q_memory_dict}
        for name, value in saved.items():
            kind, bucket = name.split(".")
            kinds[kind][int(bucket)] = value.to(self.world.device, torch.float32)
