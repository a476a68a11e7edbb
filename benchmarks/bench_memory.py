"""The plan's memory against what an update really allocates: `python benchmarks/bench_memory.py`.

Counts the bytes of all tensors alive at the peak of an update (torch's `MemTracker`, which sees every operation), on a CPU. The process's
own memory is larger by what the interpreter, libraries and the allocator's fragments take. With `--world-size` it counts those of one of
several processes with `full` sharding, whose exchanges are simulated: nothing is sent, sizes are real.
"""

import argparse

import torch
import torch.distributed as dist
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.jobs.train_transformer import parts, weighted_loss
from dalle_model.precision import autocast
from dalle_model.training.distribute import Batch, DistributedNetwork
from dalle_model.training.optim import MovingAverage, build_optimizer
from dalle_model.training.parallel import World
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.cost import DeviceMemory, plan_transformer


def peak(config: Config, pairs: int) -> int:
    """Bytes of tensors at the peak of the second update, the first that finds AdamW's moments."""
    settings, device = config.train_transformer, torch.device("cpu")
    torch.manual_seed(0)
    model = DALLETransformer(config.transformer, config.stream)
    model.activation_checkpointing = settings.activation_checkpointing
    optimizer, average = build_optimizer(model, settings), MovingAverage(model, settings.ema_decay)
    text = torch.randint(config.stream.text_vocab_size, (pairs, config.stream.max_text_tokens))
    image = torch.randint(config.stream.codebook_size, (pairs, config.stream.num_image_tokens))
    batch = {"text_tokens": text, "image_tokens": image}

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision, device):
            loss = weighted_loss(model, batch, settings.text_loss_weight)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        average.update(model, 1)

    update()
    optimizer.zero_grad(set_to_none=True)
    tracker = MemTracker()
    tracker.track_external(model, optimizer, *average.weights.values())
    with tracker:
        update()
    return sum(sizes["Total"] for sizes in tracker.get_tracker_snapshot("peak").values())


def sharded_peak(config: Config, pairs: int, world_size: int) -> int:
    """The same in the first of `world_size` processes. Without the moving average, which this tracker does not see."""
    settings, device = config.train_transformer, torch.device("cpu")
    DALLETransformer.forward = DALLETransformer.loss  # the tracker follows nothing but `forward`
    model = DALLETransformer(config.transformer, config.stream)
    model.activation_checkpointing = settings.activation_checkpointing

    def compute_loss(model: torch.nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        text_loss, image_loss = model(batch["text_tokens"], batch["image_tokens"])
        return {"loss": text_loss / 8 + image_loss * 7 / 8}

    network = DistributedNetwork(model, compute_loss, settings, World(0, world_size, device), parts)
    optimizer = build_optimizer(network.model, settings)
    text = torch.randint(config.stream.text_vocab_size, (pairs, config.stream.max_text_tokens))
    image = torch.randint(config.stream.codebook_size, (pairs, config.stream.num_image_tokens))

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision, device):
            loss = network.losses({"text_tokens": text, "image_tokens": image}, 0)["loss"]
        loss.backward()
        optimizer.step()

    update()
    optimizer.zero_grad(set_to_none=True)
    tracker = FSDPMemTracker(network.model, optimizer)
    with tracker:
        update()
    return sum(sizes["Total"] for sizes in tracker.get_tracker_snapshot("peak").values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--pairs", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--world-size", type=int, default=1)
    arguments = parser.parse_args()
    world_size = arguments.world_size
    if world_size > 1:
        dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    print(f"{arguments.preset}: peak of one update, GiB per device, {world_size} device(s)")
    for precision in ("fp32", "bf16"):
        for is_checkpointing in (False, True):
            for pairs in arguments.pairs:
                config = preset(
                    arguments.preset,
                    {
                        "train_transformer.precision": precision,
                        "train_transformer.batch_size": pairs * world_size,
                        "train_transformer.sharding": "full",
                        "train_transformer.activation_checkpointing": is_checkpointing,
                    },
                )
                plan = plan_transformer(config, world_size)
                planned: DeviceMemory = plan.memory_with_checkpointing if is_checkpointing else plan.memory
                found = peak(config, pairs) if world_size == 1 else sharded_peak(config, pairs, world_size) + planned.average
                row = f"  {precision}, {pairs:3} pairs{', checkpointing' if is_checkpointing else '':15}"
                error = planned.total / found - 1
                print(f"{row}  planned {planned.total / 2**30:6.3f}  measured {found / 2**30:6.3f}  {error:+.1%}")


if __name__ == "__main__":
    main()
