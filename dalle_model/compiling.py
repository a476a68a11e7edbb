"""`torch.compile` for functions that meet a few fixed shapes: each gets its own graph, and too many of them are an error.

By itself torch stops compiling a function after eight graphs and goes on with plain kernels, without a word. A training needs
more of attention alone: every kind of mask, with and without gradients, and a smaller last batch of the validation.
"""

import functools
from collections.abc import Callable
from typing import Any

MAX_GRAPHS = 64
"""Most graphs of one function in one process."""


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function, compiled in one piece for each shape. More than `MAX_GRAPHS` of them raise what torch raises then."""
    import torch._dynamo  # seconds, and only where something is compiled

    made = torch.compile(function, dynamic=False, fullgraph=True, **options)

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        # At every call: this setting is each thread's own, and activation checkpointing computes in autograd's threads.
        if torch._dynamo.config.recompile_limit < MAX_GRAPHS:
            torch._dynamo.config.recompile_limit = MAX_GRAPHS
        return made(*arguments, **named)

    return run
