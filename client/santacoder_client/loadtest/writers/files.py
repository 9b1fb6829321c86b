"""Files that are written whole or not at all, and looked at before the run instead of after it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from santacoder_client.loadtest.errors import LoadTestError, UsageError

SHOWN_CHARACTERS = 64


def check_output(flag: str, path: str | Path, force: bool) -> Path:
    """The path, if a file can be written there. Raises UsageError: nobody waits for it in vain."""
    try:
        wrong = _obstacle(Path(path), force)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        wrong = f"{reason}; got {{}}; allowed a file that can be written"
    if wrong is None:
        return Path(path)
    hint = "--force overwrites it" if wrong.startswith("exists") else None
    raise UsageError(f"{flag}: {wrong.format(repr(str(path)[:SHOWN_CHARACTERS]))}", hint)


def _obstacle(target: Path, force: bool) -> str | None:
    """What is in the way, with a place for the path."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        # To take the place of /dev/null is in the power of root, and in nobody's interest.
        return "not a file; got {}; allowed a file"
    if mode is not None and not force:
        return "exists; got {}; allowed a new file"
    if not target.parent.is_dir():
        return "no such folder; got {}; allowed one that exists"
    if not os.access(target.resolve().parent, os.W_OK):
        return "no permission; got {}; allowed a folder one may write to"
    return None


def write_whole(path: str | Path, text: str) -> None:
    """Writes a file, or leaves what was there. Raises LoadTestError, as for a full disk."""
    with open_whole(path) as file:
        file.write(text)


@contextmanager
def open_whole(path: str | Path) -> Iterator[IO[str]]:
    """A file that takes its place when it is complete; until then the old one stays.

    Raises LoadTestError where the disk does not take it; then nothing is left behind.
    """
    target = Path(path).resolve()  # a link stays a link
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".santacoder-load-", dir=target.parent)
        # A lone surrogate, of a path with odd bytes, becomes its escape: in JSON it stays itself.
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_mask())
        os.replace(temporary, target)
    except OSError as error:
        _forget(temporary)
        raise LoadTestError(f"{path}: not written: {error.strerror or error}") from error
    except BaseException:
        _forget(temporary)
        raise


def _mask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _forget(temporary: str | None) -> None:
    if temporary is not None:
        with suppress(OSError):
            os.unlink(temporary)
