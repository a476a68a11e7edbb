"""Pictures to image tokens as fast as the device allows: `ImageTokenizer` is what `tokenize_images` runs.

On a CUDA device, without being asked: convolutions in channels_last, the encoder compiled into one graph that is captured as a CUDA graph
(every batch has the same shape, the last one is filled up), bytes copied from pinned memory on a stream of their own, and two
sets of buffers, so that the caller decodes and copies the next batch while the network has this one. On a CPU the
convolutions already run at the rate of matrix products, so it is the plain forward pass in channels_last.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.model import DVAE
from dalle_model.dvae.pixels import as_floats
from dalle_model.precision import autocast

# Shapes: B pictures of one batch, N pictures of the largest batch, H W pixels, n image tokens of a picture

Pixels = NDArray[np.uint8]
Encode = Callable[[Tensor], Tensor]

COMPILE_FOR_CUDA = partial(torch.compile, mode="reduce-overhead", fullgraph=True, dynamic=False)
"""Fused kernels in a CUDA graph. Not `max-autotune`, nor cudnn.benchmark: they choose kernels by the clock, so that two workers could
round differently and write different tokens."""

log = logging.getLogger(__name__)


class ImageTokenizer:
    """A dVAE's encoder with what makes it fast on its device. For one thread."""

    def __init__(
        self, model: DVAE, precision: str = "fp32", batch_size: int = 64, compiler: Callable[[Encode], Encode] | None = None
    ) -> None:
        """`model` stays on its device and becomes channels_last. `precision` is that of the convolutions: fp32, bf16 or fp16.

        `compiler` takes the place of `COMPILE_FOR_CUDA`; on a CPU there is none unless it is given. Where compiling fails, e.g.
        because the machine has no C compiler, a warning says so and the network runs as it is.
        """
        self.model = model.to(memory_format=torch.channels_last)
        self.precision, self.batch_size = precision, batch_size
        self.device = next(model.parameters()).device
        self.busy_s = 0.0
        """Seconds that the network has worked."""
        is_cuda = self.device.type == "cuda"
        self._buffers = [_Buffers(model, batch_size, self.device) for _ in range(2)] if is_cuda else []
        self._encode: Encode = self._tokens
        self._is_fixed_size = is_cuda
        if compiler := compiler or (COMPILE_FOR_CUDA if is_cuda else None):
            self._is_fixed_size = True
            self._compile(compiler)

    def stream(self, batches: Iterable[Pixels]) -> Iterator[NDArray[np.uint16]]:
        """Tokens, uint16 [B, n], of every batch of bytes [B, H, W, 3] in turn.

        On a GPU the next batch is asked for while the one before is at work. Raises `ValueError` for a batch larger than `batch_size`,
        or pictures of another size.
        """
        if not self._buffers:
            yield from map(self._compute_here, batches)
            return
        under_way: _Buffers | None = None
        for i, images in enumerate(batches):
            launched = self._launch(self._buffers[i % 2], images)
            if under_way is not None:
                yield self._finish(under_way)
            under_way = launched
        if under_way is not None:
            yield self._finish(under_way)

    def _tokens(self, images_NHW3: Tensor) -> Tensor:
        """int32 [N, n], for bytes [N, H, W, 3]: moved axes are what torch calls channels_last."""
        with autocast(self.precision, self.device):
            return self.model.tokenize(as_floats(images_NHW3.permute(0, 3, 1, 2))).int()

    def _run(self, images_NHW3: Tensor) -> Tensor:
        # fp32 means fp32: cuDNN would round products to TF32's 10 bits. With shorter types it may do so in the last layer, an eighth of
        # the work, which in full fp32 would take longer than all others. Deterministic: two workers write the same tokens.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=self.precision != "fp32"):
            return self._encode(images_NHW3)

    def _compile(self, compiler: Callable[[Encode], Encode]) -> None:
        side = self.model.config.image_size
        self._encode = compiler(self._tokens)
        try:
            for _ in range(3):  # compiling, capturing, replaying
                self._run(torch.zeros(self.batch_size, side, side, 3, dtype=torch.uint8, device=self.device))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler can fail with
            log.warning("the encoder could not be compiled (%s: %s); it runs uncompiled", type(error).__name__, str(error).split("\n")[0])
            self._encode = self._tokens

    def _filled(self, images: Pixels) -> Tensor:
        """The batch as a tensor [B, H, W, 3]; of fixed size, the first picture repeated at the end, where shapes are compiled."""
        if len(images) > self.batch_size:
            raise ValueError(f"a batch of {len(images)} pictures is larger than batch_size={self.batch_size}; cut it")
        if self._is_fixed_size and len(images) < self.batch_size:
            images = np.concatenate([images, np.repeat(images[:1], self.batch_size - len(images), 0)])
        return torch.from_numpy(images)

    def _compute_here(self, images: Pixels) -> NDArray[np.uint16]:
        started = time.monotonic()
        tokens = self._run(self._filled(images))[: len(images)].numpy().astype(np.uint16)
        self.busy_s += time.monotonic() - started
        return tokens

    def _launch(self, buffers: "_Buffers", images: Pixels) -> "_Buffers":
        """Start the copy and the network; nothing here waits for the batch that is at work."""
        buffers.done.synchronize()  # at once, unless an earlier stream was left unfinished
        buffers.size = len(images)
        buffers.pinned.copy_(self._filled(images))
        with torch.cuda.stream(buffers.copies):
            buffers.images.copy_(buffers.pinned, non_blocking=True)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_stream(buffers.copies)
        buffers.started.record(stream)
        tokens = self._run(buffers.images)
        buffers.computed.record(stream)
        buffers.tokens.copy_(tokens, non_blocking=True)
        buffers.done.record(stream)
        return buffers

    def _finish(self, buffers: "_Buffers") -> NDArray[np.uint16]:
        buffers.done.synchronize()
        self.busy_s += buffers.started.elapsed_time(buffers.computed) / 1e3
        return buffers.tokens[: buffers.size].numpy().astype(np.uint16)


class _Buffers:
    """What one batch needs on its way through a GPU; made once."""

    def __init__(self, model: DVAE, batch_size: int, device: torch.device) -> None:
        side = model.config.image_size
        self.size = 0
        self.pinned = torch.zeros(batch_size, side, side, 3, dtype=torch.uint8, pin_memory=True)
        self.images = torch.zeros(batch_size, side, side, 3, dtype=torch.uint8, device=device)
        self.tokens = torch.zeros(batch_size, model.config.num_image_tokens, dtype=torch.int32, pin_memory=True)
        self.copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.copies.wait_stream(torch.cuda.current_stream(device))  # which fills the buffers with zeros
        self.started, self.computed, self.done = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(3)
        )


def bytes_per_picture(dvae: DVAEConfig, precision: str) -> int:
    """Memory that one picture of a forward pass takes at its widest, within a few percent of what is measured.

    That is in the first group (input, skip, and two activations of the residual branch), or at the end, where the
    fp32 logits meet those of the linear path round the network if there is one.
    """
    first_group = 4 * dvae.hidden_width * (dvae.image_size // dvae.stem_patch_size) ** 2
    logits = (3 if dvae.has_patch_paths else 1) * dvae.codebook_size * dvae.num_image_tokens
    return max(first_group * (4 if precision == "fp32" else 2), logits * 4)
