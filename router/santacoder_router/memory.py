"""How much of its memory the router uses, and what follows: refuse the new, then shed the queue.

The limit is an option, else the smallest of the control groups that hold this process, else the
machine's memory. Looks into /proc and /sys; where there is none, nothing is ever refused.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from pathlib import Path

REFUSE_SHARE = 0.85
SHED_SHARE = 0.95
CGROUP_ROOT = Path("/sys/fs/cgroup")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Pressure(enum.IntEnum):
    """What memory allows."""

    NONE = 0
    """Everything."""
    REFUSE = 1
    """No new request."""
    SHED = 2
    """Nor those that wait."""


def pressure_of(used_bytes: int, limit_bytes: int) -> Pressure:
    """What follows from so much memory in use."""
    if used_bytes >= SHED_SHARE * limit_bytes:
        return Pressure.SHED
    return Pressure.REFUSE if used_bytes >= REFUSE_SHARE * limit_bytes else Pressure.NONE


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory that this process holds; 0 where that is not told."""
    try:
        return int(statm.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def find_limit_bytes(membership: Path = Path("/proc/self/cgroup"), root: Path = CGROUP_ROOT) -> int:
    """The memory that this process may hold: of its control groups, else the machine's."""
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    return min([machine_bytes, *_group_limits(membership, root)])


def _group_limits(membership: Path, root: Path) -> Iterator[int]:
    """The limits of this process's control group and of those around it (version 2)."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    for path in paths:
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            try:
                yield int((folder / "memory.max").read_text())
            except (OSError, ValueError):
                pass  # no limit here, which reads "max", or no such file
            if folder == root:
                break
