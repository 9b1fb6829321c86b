"""Holds a Unix socket's path for one process. Knows no gRPC.

Binding alone would take a live socket over in silence, so a lock file beside it says who has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path


class AddressTaken(Exception):
    """Another process has the address; the message is one line."""


class UnsafeFolder(Exception):
    """The socket's folder cannot be used or is open to other users; the message is one line."""


class SocketFile:
    """A claimed path: in a folder of its owner alone, and no other process has it."""

    def __init__(self, path: Path) -> None:
        """Claim `path` until `release`; raises AddressTaken or UnsafeFolder."""
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        _make_private(path.parent)
        self._lock = self._take_lock()
        path.unlink(missing_ok=True)

    def restrict(self) -> None:
        """After the socket is bound: its owner alone may connect."""
        self._path.chmod(0o600)

    def release(self, with_folder: bool) -> None:
        """Remove what was made here; `with_folder` also the folder, if nothing else is in it."""
        self._path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        if with_folder:
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()

    def _take_lock(self) -> int:
        while True:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 32).decode(errors="replace") or "unknown"
                os.close(lock)
                raise AddressTaken(
                    f"--listen: taken by the process with id {holder}; got unix:{self._path}"
                ) from None
            if self._is_current(lock):
                os.ftruncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
                return lock
            # Its last owner removed the file between our open and our lock.
            os.close(lock)

    def _is_current(self, lock: int) -> bool:
        try:
            return os.fstat(lock).st_ino == self._lock_path.stat().st_ino
        except FileNotFoundError:
            return False


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise UnsafeFolder(f"--listen: folder {folder}: {error.strerror}") from error
    if mode & 0o077:
        raise UnsafeFolder(
            f"--listen: folder {folder} is open to other users; got mode {mode:04o}; allowed 0700"
        )
