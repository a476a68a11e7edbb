"""Standard output, where results go."""

import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160
"""Columns of a table that goes into a file or another program, which has no width of its own."""


def results_console() -> "Console":
    """A console as wide as the terminal, or wide enough for a table where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def printable(text: str) -> str:
    """Text of strangers for a terminal: letters as they are, control characters as their escapes, which move nothing."""
    return "".join(
        c if c.isprintable() or c in "\n\t\u200c\u200d" or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in text
    )
