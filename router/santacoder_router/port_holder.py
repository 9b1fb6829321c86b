"""Who listens on a port, as Linux tells it: for the error of whoever came second.

Only processes of this user can be looked into; of others it knows nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LISTENING = "0A"


def holder_of(port: int) -> int | None:
    """The id of a process that listens on the TCP port; None if that cannot be known."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return None
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in folder.iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in wanted:
                        return int(folder.parent.name)
    return None


def _inodes(port: int) -> set[str]:
    """Of the sockets that listen there, on any address."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found
