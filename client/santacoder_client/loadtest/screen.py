"""What is written to a terminal or a log in one go: its width, its colours, its characters."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Mapping
from typing import TextIO

from rich.console import Console, RenderableType

WIDTH = 80
WIDTH_MIN, WIDTH_MAX = 40, 100


def width_of(stream: TextIO) -> int:
    """The columns to fill."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if stream.isatty() else WIDTH


def wants_colours(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody looks at it, on a terminal that knows colours, and has not refused them."""
    dumb = environ.get("TERM", "") in ("", "dumb", "unknown")
    return stream.isatty() and not dumb and not environ.get("NO_COLOR")


def bounded(width: int) -> int:
    """A width that text can be laid out in; where it is more than there is, lines wrap."""
    return max(WIDTH_MIN, min(WIDTH_MAX, width))


def text_of(parts: Iterable[RenderableType], width: int = WIDTH, coloured: bool = False) -> str:
    """The parts one below the other, as plain ASCII but for the colours."""
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=bounded(width),
        force_terminal=coloured,
        color_system="standard" if coloured else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    # Trailing blanks make lines wrap in a window that became narrower; the dots are not ASCII.
    lines = buffer.getvalue().replace("\N{HORIZONTAL ELLIPSIS}", "~").split("\n")
    return "\n".join(line.rstrip() for line in lines)
