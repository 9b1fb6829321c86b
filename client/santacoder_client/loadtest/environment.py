"""What a measurement ran on: enough to see why another one differs, nothing that names a person."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("grpcio", "protobuf", "numpy")
GIT_SECONDS = 5.0


def environment() -> dict[str, Any]:
    """The values, by name; one that cannot be found out is None."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": usable_cpu_count(),
        "cpu_limit": cpu_limit(),
        "memory_bytes": memory_bytes(),
        "load_average": load_average(),
        **{_short(name): _version(name) for name in PACKAGES},
        "git_revision": git_revision(Path(__file__).parent),
    }


def cpu_model() -> str | None:
    """The processor by name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def usable_cpu_count() -> int | None:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def cpu_limit() -> float | None:
    """The cores that a container leaves us, where it says so; a part of a core is a fraction."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def memory_bytes() -> int | None:
    """The machine's memory."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def load_average() -> float | None:
    """How many processes wanted a core, over the last minute: who else was there."""
    with suppress(AttributeError, OSError):
        return round(os.getloadavg()[0], 2)
    return None


def git_revision(folder: Path) -> str | None:
    """The commit of a checkout that these files belong to, `-dirty` with changes; else None."""
    # Installed into some other project's folder, its commit would say nothing of us.
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if revision and changes else revision


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _short(name: str) -> str:
    return name.removesuffix("io")
