"""The errors that end a shard before it serves; it knows no exit codes and no logging."""

from __future__ import annotations


class CheckpointError(Exception):
    """Model files are missing, damaged or of an unknown kind; one line that names the file."""


class ParallelSizeError(Exception):
    """The model cannot be cut into so many ranks; one line that says why."""


class UnusableOption(Exception):
    """An option that this machine or this model cannot satisfy; the message is one line."""


def first_few(names: list[str], shown_count: int = 5) -> str:
    """The first names and a count of the rest, so that a line about 300 tensors stays a line."""
    rest = len(names) - shown_count
    return ", ".join(names[:shown_count]) + (f" and {rest} more" if rest > 0 else "")
