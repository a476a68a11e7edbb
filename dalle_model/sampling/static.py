"""Sampling as one captured CUDA graph per token: kernel launches would otherwise dominate.

Everything that changes from step to step is a tensor (position, tokens, noise) that the step reads and writes in place. On CUDA its
blocks are compiled and the whole step, draw included, is captured as one CUDA graph; sampling a picture is then
replaying that graph. Elsewhere the step is run as it is: slower than `generate.decode`, but the same, and so testable.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from dalle_model.config.generation import SamplingConfig
from dalle_model.sampling.logits import are_usable, broken_logits, choose_tokens
from dalle_model.transformer.cache import ImageDecoder, TextPrefix
from dalle_model.transformer.cache import decode_block as plain_block
from dalle_model.transformer.model import DALLETransformer

log = logging.getLogger(__name__)

WARM_UP_STEPS = 3
"""Before a capture: compilation, and libraries' workspaces that must not be made inside a graph."""


class GraphSampler:
    """Pictures of noise.shape[:2] = [P, C] at a time, in memory that is made once."""

    def __init__(self, model: DALLETransformer, prefix: TextPrefix, noise: Tensor, known: Tensor, settings: SamplingConfig) -> None:
        self.settings, self.grid_size = settings, model.stream.image_grid_size
        self.decoder = ImageDecoder(model, prefix, noise.shape[1])
        self.noise_PCI, self.known_PI = noise.clone(), known.clone()
        self.tokens_PCI = torch.zeros(noise.shape, dtype=torch.int64, device=noise.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=noise.device)
        self.is_usable = torch.ones((), dtype=torch.bool, device=noise.device)
        self.advance: Callable[[], None] = self._capture() if noise.is_cuda else self.step

    def sample(self, prefix: TextPrefix, noise: Tensor, known: Tensor, on_row: Callable[[Tensor], None] | None = None) -> Tensor:
        """Sample all tokens, int64 [P, C, I]; `on_row` is shown whole rows as they come. Raises `ValueError` for logits of NaN."""
        self.decoder.reset(prefix)
        self.noise_PCI.copy_(noise)
        self.known_PI.copy_(known)
        self.position.zero_()
        self.is_usable.fill_(True)
        self._choose(self.decoder.first_logits())
        for num_drawn in range(1, noise.shape[2] + 1):
            if on_row and num_drawn % self.grid_size == 0:
                on_row(self.tokens_PCI[..., :num_drawn])
            if num_drawn < noise.shape[2]:
                self.advance()
        if not self.is_usable:  # asked once, since every question makes the device wait
            raise broken_logits()
        return self.tokens_PCI.clone()

    def step(self) -> None:
        """Take in the tokens at `position`, go on to the next and draw its tokens."""
        tokens_PC = self.tokens_PCI.index_select(2, self.position).squeeze(2)
        if self.settings.guidance != 1:
            tokens_PC = torch.cat((tokens_PC, tokens_PC))
        logits = self.decoder.next_logits(tokens_PC, self.position)
        self.position.add_(1)
        self._choose(logits)

    def _choose(self, logits: Tensor) -> None:
        self.is_usable.logical_and_(are_usable(logits))
        noise_PC = self.noise_PCI.index_select(2, self.position).squeeze(2)
        drawn_PC = choose_tokens(logits, noise_PC, self.known_PI.index_select(1, self.position), self.settings)
        self.tokens_PCI.index_copy_(2, self.position, drawn_PC.unsqueeze(2))

    def _capture(self) -> Callable[[], None]:
        """Compile the blocks if a compiler works here, and capture `step`."""
        self.decoder.compile()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            try:
                self._warm_up()
            except Exception as error:  # whatever a compiler, a driver or Triton may raise: the graph also holds plain kernels
                log.warning("the sampling step does not compile here (%s: %s); it runs as it is", type(error).__name__, error)
                self.decoder.decode_block = plain_block
                self._warm_up()
        torch.cuda.current_stream().wait_stream(stream)
        self.position.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def _warm_up(self) -> None:
        for _ in range(WARM_UP_STEPS):
            self.position.zero_()
            self.step()
