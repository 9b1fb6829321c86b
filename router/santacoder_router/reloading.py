"""Values made from files, and made anew when the files change, while the process serves.

Knows not what the files hold. A change that cannot be used is logged, and the old value stays:
whoever replaces a certificate and its key does so one after the other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from santacoder_router.faults import Log

ValueT = TypeVar("ValueT")
MOST_FILE_BYTES = 1 << 20

Signature = tuple[tuple[int, int, int] | None, ...]


class UnusableFile(Exception):
    """A file that is missing, unsafe, or not what it should be; the message is one line."""


class Reloaded(Generic[ValueT]):
    """What `read` makes of the files at `paths`; `read` raises UnusableFile."""

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], ValueT],
        log: Log,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_failure` is called for each change that cannot be used."""
        self._paths = paths
        self._read = read
        self._log = log
        self._on_failure = on_failure
        # Before the reading: what changes meanwhile is seen as a change the next time.
        self._signature = self._sign()
        self._value = read()

    def get(self) -> ValueT:
        """The value as of now."""
        self.refresh()
        return self._value

    def refresh(self) -> ValueT | None:
        """The new value if the files have changed and can be used, None otherwise."""
        signature = self._sign()
        if signature == self._signature:
            return None
        self._signature = signature
        names = ",".join(path.name for path in self._paths)
        try:
            self._value = self._read()
        except UnusableFile as error:
            self._log.error("changed files cannot be used; the old stay", error=str(error))
            self._on_failure()
            return None
        self._log.info("files reloaded", files=names)
        return self._value

    def _sign(self) -> Signature:
        return tuple(_sign(path) for path in self._paths)


def _sign(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_ino, state.st_size, state.st_mtime_ns)


def read_file(flag: str, path: Path, is_private: bool) -> bytes:
    """The file's bytes; a private one may be open to nobody but its owner. Raises UnusableFile."""
    try:
        # A pipe that nobody writes to would be waited for, by the event loop where it is read anew.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MOST_FILE_BYTES + 1) if stat.S_ISREG(mode) else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UnusableFile(f"{flag}: {reason}; got {str(path)!r}") from None
    if not stat.S_ISREG(mode):
        raise UnusableFile(f"{flag}: not a regular file; got {str(path)!r}")
    if is_private and mode & 0o077:
        raise UnusableFile(
            f"{flag}: open to other users; got {str(path)!r} with mode {mode & 0o777:04o};"
            " allowed 0600"
        )
    if len(content) > MOST_FILE_BYTES:
        raise UnusableFile(f"{flag}: too large; got {str(path)!r}; allowed {MOST_FILE_BYTES} bytes")
    return content
