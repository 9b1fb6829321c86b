"""A stream's bookmark in a file, for a command that may be killed. Knows no stream's content.

The file holds the prompt, so it is its owner's alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class BookmarkFile:
    """Without a path nothing is kept and nothing found. Raises OSError."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """What was kept; None if nothing was."""
        if self._path is None:
            return None
        with suppress(FileNotFoundError):
            return self._path.read_bytes()
        return None

    def keep(self, bookmark: bytes) -> None:
        """In place of the one before, in one step."""
        if self._path is None:
            return
        new = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(bookmark)
        new.replace(self._path)

    def remove(self) -> None:
        """The stream has ended."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
