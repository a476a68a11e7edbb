"""What a configuration costs before anything is run: parameters, FLOPs per token and memory per device.

Parameters are counted on the network itself, built without memory (torch's meta device); everything else follows from shapes.
"""

from dataclasses import dataclass

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.config.training import Sharding
from dalle_model.config.tree import Config

MASTER_BYTES, ADAM_BYTES = 4, 8
DEVICES_PER_MACHINE = 8
"""What `hybrid` sharding is planned for, unless `shard_group` says otherwise."""
COMPUTE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "auto": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """Bytes on one device while training, each at its largest."""

    weights: int
    """In float32, with what is gathered from other devices and copies in the compute type."""
    gradients: int
    optimizer: int
    average: int
    """The moving average of the weights."""
    activations: int
    logits: int
    total: int
    """The peak; less than the sum where gradients come as activations go. The allocator's fragments and the framework come on top."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerPlan:
    """The transformer of one configuration on `world_size` devices."""

    parameters: dict[str, int]
    """By part of the network."""
    num_parameters: int
    forward_flops_per_token: dict[str, float]
    """Multiplications and additions per stream position: linear layers, attention over the pairs the masks allow, attention over all
    pairs, heads over each position's own vocabulary."""
    training_flops_per_token: float
    """Forward and backward, sparse attention: three forward passes."""
    dense_training_flops_per_token: float
    """The same if every position attended to every other."""
    pairs_per_device: int
    memory: DeviceMemory
    memory_with_checkpointing: DeviceMemory
    """When each layer keeps its input only and is computed again in the backward pass."""


def plan_transformer(config: Config, world_size: int = 1, sharding: Sharding | None = None) -> TransformerPlan:
    """The plan of `config`'s transformer, sharded as configured or in another way.

    Raises `ValueError` when the batch does not split over `world_size` devices.
    """
    settings, stream = config.train_transformer, config.stream
    if settings.batch_size % world_size:
        raise ValueError(
            f"train_transformer.batch_size={settings.batch_size} does not split evenly over {world_size} devices; choose a multiple"
        )
    pairs = settings.batch_size // world_size
    if settings.microbatch_size:
        pairs = max(1, settings.microbatch_size // world_size)
    parameters = count_parameters(config.transformer, stream)
    flops = forward_flops_per_token(config.transformer, stream)

    return TransformerPlan(
        parameters=parameters,
        num_parameters=sum(parameters.values()),
        forward_flops_per_token=flops,
        training_flops_per_token=training_flops_per_token(config.transformer, stream),
        dense_training_flops_per_token=3 * (flops["linear"] + flops["dense_attention"] + flops["heads"]),
        pairs_per_device=pairs,
        memory=device_memory(config, parameters, world_size, sharding or settings.sharding, pairs, is_checkpointing=False),
        memory_with_checkpointing=device_memory(
            config, parameters, world_size, sharding or settings.sharding, pairs, is_checkpointing=True
        ),
    )


def device_memory(
    config: Config, parameters: dict[str, int], world_size: int, sharding: Sharding, pairs: int, is_checkpointing: bool
) -> DeviceMemory:
    """What one device holds when it computes `pairs` pairs at a time.

    The peak is at the loss, at the beginning of the backward pass, when all activations are there, or at its end, when all
    gradients are.
    """
    from dalle_model.transformer.loss import CHUNK_POSITIONS

    settings, stream, transformer = config.train_transformer, config.stream, config.transformer
    compute, is_low_precision = COMPUTE_BYTES[settings.precision], settings.precision != "fp32"
    total, blocks, heads = sum(parameters.values()), parameters["blocks"], parameters["heads"]
    others, per_block = total - blocks, blocks // transformer.num_layers

    own, gathered, whole_gradients = total, 0, 0
    copies = compute * (blocks + heads) if is_low_precision else 0
    if sharding != "replicated" and world_size > 1:
        group = world_size if sharding == "full" else min(world_size, settings.shard_group or DEVICES_PER_MACHINE)
        own = -(-total // group)
        # Embeddings and heads stay gathered, blocks while they are used and while the next one is fetched. The gradient of a block is
        # whole, and summed in float32, before each device keeps its share.
        gathered = MASTER_BYTES * others + compute * 2 * per_block
        copies = compute * heads if is_low_precision else 0
        whole_gradients = MASTER_BYTES * others + (compute + MASTER_BYTES) * per_block
    average = MASTER_BYTES * own if settings.ema_decay else 0
    gradients = MASTER_BYTES * own
    # DDP's buckets, shares, and what microbatches add to are there all the time.
    are_gradients_kept = world_size > 1 or bool(settings.microbatch_size)

    states = pairs * stream.num_positions * transformer.d_model
    one_block = pairs * activation_bytes_per_pair(transformer, stream, compute, is_checkpointing=False) // transformer.num_layers
    activations = pairs * activation_bytes_per_pair(transformer, stream, compute, is_checkpointing)
    logits = (
        2
        * 4
        * max(
            min(CHUNK_POSITIONS, pairs * num_tokens) * vocabulary
            for num_tokens, vocabulary in (
                (stream.max_text_tokens, stream.text_vocab_size),
                (stream.num_image_tokens, stream.codebook_size),
            )
        )
    )
    # The loss keeps the gradients of both heads and of the states they see, the final norm its input.
    ends = MASTER_BYTES * (heads + 2 * states)
    at_loss = activations - (one_block if is_checkpointing else 0) + copies + ends + logits
    at_start = activations + (0 if is_checkpointing else copies) + ends
    at_end = one_block + compute * 4 * states + whole_gradients + (0 if are_gradients_kept else gradients)
    return DeviceMemory(
        weights=MASTER_BYTES * own + gathered + copies,
        gradients=gradients + whole_gradients,
        optimizer=ADAM_BYTES * own,
        average=average,
        activations=activations,
        logits=logits,
        total=(MASTER_BYTES + ADAM_BYTES) * own
        + gathered
        + average
        + (gradients if are_gradients_kept else 0)
        + max(at_loss, at_start, at_end),
    )


def count_parameters(config: TransformerConfig, stream: StreamShape) -> dict[str, int]:
    """Parameters by part, counted on the network, built on the meta device."""
    import torch

    from dalle_model.transformer.model import DALLETransformer

    with torch.device("meta"):
        model = DALLETransformer(config, stream)
    parts = {
        "token embeddings": ("text_embedding", "image_embedding"),
        "pad embeddings": ("pad_embedding",),
        "position embeddings": ("text_position_embedding", "row_embedding", "column_embedding", "start"),
        "blocks": ("blocks",),
        "final norm": ("final_norm",),
        "heads": ("text_head", "image_head"),
    }
    part_of = {name: part for part, names in parts.items() for name in names}
    counts = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        counts[part_of[name.split(".")[0]]] += parameter.numel()
    return counts


def forward_flops_per_token(config: TransformerConfig, stream: StreamShape) -> dict[str, float]:
    """FLOPs of one forward pass divided by the stream's positions; a multiply-add counts as two."""
    from dalle_model.transformer.masks import image_offsets, layer_kinds

    T, num_image = stream.max_text_tokens, stream.num_image_tokens
    N, d = stream.num_positions, config.d_model

    def allowed_pairs(kind: str) -> int:
        offsets = image_offsets(kind, stream.image_grid_size, config.conv_kernel_size)  # type: ignore[arg-type]
        return T * (T + 1) // 2 + num_image * T + sum(num_image - offset for offset in offsets)

    kinds = layer_kinds(config.num_layers, config.attention)
    per_pair = 4 * d  # one product with the key, one with the value
    heads = 2 * d * (T * stream.text_vocab_size + num_image * stream.codebook_size)
    return {
        "linear": float(24 * d**2 * config.num_layers),
        "sparse_attention": per_pair * sum(map(allowed_pairs, kinds)) / N,
        "dense_attention": float(per_pair * N * config.num_layers),
        "heads": heads / N,
    }


def training_flops_per_token(config: TransformerConfig, stream: StreamShape) -> float:
    """Forward and backward, only the pairs that the masks allow: three forward passes."""
    flops = forward_flops_per_token(config, stream)
    attention = flops["sparse_attention" if config.attention == "sparse" else "dense_attention"]
    return 3 * (flops["linear"] + attention + flops["heads"])


def activation_bytes_per_pair(config: TransformerConfig, stream: StreamShape, compute_bytes: int, is_checkpointing: bool) -> int:
    """Bytes that the blocks keep of one pair for the backward pass (without dropout's masks).

    Per position a block keeps, in multiples of d_model: in fp32 the residual stream before either branch (2); in the compute type
    the outputs of both norms (2), queries, keys and values (3), what attention returned (1; the structured form on a CPU keeps it a
    second time, as it came), and the hidden layer before and after GELU (8). The attention kernel keeps one number per head and
    position more.
    """
    wide, narrow = 2, 14
    per_block = stream.num_positions * (config.d_model * (4 * wide + compute_bytes * narrow) + 4 * config.num_heads)
    if not is_checkpointing:
        return config.num_layers * per_block
    return config.num_layers * 4 * stream.num_positions * config.d_model + per_block
