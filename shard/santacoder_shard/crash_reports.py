"""Writes down how a group died: one text file a death, small, and only so many of them.

What is in them comes from others; no prompt and no completion is. Failing to write is no reason to
stop: the service goes on, and the log says it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from santacoder_shard.log import Logger

REPORT_BYTES = 64 * 1024
MOST_REPORTS = 20
# The head of a report has room beside the stacks.
HEAD_BYTES = 16 * 1024
CUT = "\n[cut]\n"


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of the end of one life of a group."""

    epoch: int
    obituaries: Sequence[str]
    """Of the ranks that ended by themselves, one line each."""
    note: Mapping[str, object] = field(default_factory=dict)
    """What the router said of it."""
    stacks: Mapping[str, str] = field(default_factory=dict)
    """Where the threads of each rank were, by its name, of those that could still say it."""


def default_folder() -> Path:
    """Where programs keep such things: below $XDG_STATE_HOME, or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME", "")
    state = Path(base) if base else Path.home() / ".local" / "state"
    return state / "santacoder-serving" / "crashes"


def stacks_path(run_folder: Path, rank: int, epoch: int) -> Path:
    """Where a rank of a life writes where its threads are."""
    return run_folder / f"rank-{rank}-{epoch}.stacks"


class CrashReports:
    """The newest reports, in `folder`, which is made for its owner alone."""

    def __init__(self, folder: Path, run_folder: Path, log: Logger) -> None:
        self._folder = folder
        self._run_folder = run_folder
        self._log = log

    def stacks(self, rank: int, epoch: int) -> str:
        """What a rank that has ended left of where its threads were; its file is removed."""
        path = stacks_path(self._run_folder, rank, epoch)
        try:
            with path.open("rb") as file:
                text = file.read(REPORT_BYTES).decode(errors="replace")
            path.unlink()
        except OSError:
            return ""
        return text

    def write(self, death: Death) -> Path | None:
        """The report's file; None if it could not be written."""
        now = datetime.now(UTC)
        name = f"crash-{now:%Y%m%dT%H%M%S.%f}Z-{os.getpid()}-epoch-{death.epoch}.txt"
        path = self._folder / name
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(_bounded(render(death, now).encode(), REPORT_BYTES))
            self._prune()
        except OSError as error:
            self._log.warning("no crash report", reason=error.strerror, folder=str(self._folder))
            return None
        self._log.info("crash report", path=str(path))
        return path

    def _prune(self) -> None:
        # The time comes first in a name.
        for old in sorted(self._folder.glob("crash-*.txt"))[:-MOST_REPORTS]:
            old.unlink(missing_ok=True)


def render(death: Death, now: datetime) -> str:
    """The report as text: `key: value` lines, then the stacks."""
    facts = {"time": now.isoformat(), "epoch": death.epoch, **death.note}
    lines = [*(f"{key}: {_shown(value)}" for key, value in facts.items())]
    lines += [f"end: {obituary}" for obituary in death.obituaries]
    head = _bounded("\n".join(lines).encode(), HEAD_BYTES).decode()
    parts = [head]
    share_bytes = (REPORT_BYTES - HEAD_BYTES) // max(1, len(death.stacks)) - 64
    for name, text in death.stacks.items():
        text = text or "nothing: it was killed, or had not begun\n"
        parts.append(f"\n== stacks of {name}\n{_bounded(text.encode(), share_bytes).decode()}")
    return "\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _bounded(data: bytes, limit_bytes: int) -> bytes:
    if len(data) <= limit_bytes:
        return data
    kept = data[: limit_bytes - len(CUT)].decode(errors="ignore")
    return (kept + CUT).encode()
