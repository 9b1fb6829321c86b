"""What a soak has seen, and its table. Knows no process."""

from __future__ import annotations

import math
import time
from collections import defaultdict

from faults.load import Tally
from soak.slope import LEAST_SAMPLE_COUNT, Slope, slope_of

MIB = 1 << 20
# What a process takes in its first minutes is caches and pools that fill.
WARM_UP_SECONDS = 600.0
# A bound from less than this is no statement of an hour.
LEAST_SECONDS = 1200.0
MOST_SHOWN = 400
LOST_KINDS = ("requests failed", "answers wrong")


class Record:
    """Counts, times and memory of one run."""

    def __init__(self, limit_mib_per_hour: float) -> None:
        self.tally = Tally()
        self.life_count = 0
        self._limit_mib_per_hour = limit_mib_per_hour
        self._began = time.monotonic()
        self._recoveries: dict[str, list[float]] = defaultdict(list)
        self._calms: dict[str, list[float]] = defaultdict(list)
        self._memory: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(dict)
        self._missed: list[str] = []

    @property
    def elapsed_seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def recovered(self, name: str, seconds: float) -> None:
        """After a fault, two answers of each worker have come."""
        self._recoveries[name].append(seconds)

    def calmed(self, name: str, seconds: float) -> None:
        """In the pause after a fault, nothing is held any more."""
        self._calms[name].append(seconds)

    def sampled(self, name: str, pid: int, size_bytes: int) -> None:
        """Memory of a process."""
        life = self._memory[name].setdefault(pid, [])
        life.append((self.elapsed_seconds, float(size_bytes)))

    def missed(self, line: str) -> None:
        """Something that should have held."""
        self._missed.append(line)
        print(f"MISSED: {line}")

    def misses(self) -> list[str]:
        """All that was missed; empty after a good run."""
        lost = (self.tally.failed, self.tally.wrong)
        found = [
            f"{len(lines)} {kind}" for kind, lines in zip(LOST_KINDS, lost, strict=True) if lines
        ]
        for name, (slope, seconds) in self._slopes().items():
            limit = self._limit_mib_per_hour
            if seconds >= LEAST_SECONDS and slope.upper * 3600 / MIB > limit:
                found.append(f"{name} grows by up to {slope.upper * 3600 / MIB:.1f} MiB an hour")
        return [*found, *self._missed]

    def table(self) -> str:
        """For people."""
        tally, hours = self.tally, self.elapsed_seconds / 3600
        lines = [
            "",
            f"requests        {tally.ended_count} in {hours:.2f} h, {tally.cancelled_count} of them"
            f" cancelled, {len(tally.failed)} failed",
            f"tokens (T2)     {tally.token_count} received, {len(tally.wrong)} answers with lost,"
            " doubled, reordered or wrong ones",
            f"faults (T20)    {sum(map(len, self._recoveries.values()))} over"
            f" {self.life_count} lives of the service",
            "",
            "fault                          times   until all answer, s   until none is held, s",
            "                                         median     most        median     most",
        ]
        for name, seconds in sorted(self._recoveries.items()):
            times = f"{_middle(seconds):8.2f} {max(seconds):8.2f}"
            calm = self._calms[name] or [math.nan]
            lines.append(
                f"{name:30s} {len(seconds):5d}   {times}      {_middle(calm):8.2f} {max(calm):8.2f}"
            )
        lines += ["", "memory (T9)         MiB an hour, with its 95 % interval, after 10 minutes"]
        lines += [f"{name:19s} {_shown(*found)}" for name, found in sorted(self._slopes().items())]
        lines += ["", *[f"MISSED: {line}" for line in self.misses()]]
        lines += [line[:MOST_SHOWN] for line in (*tally.failed[:5], *tally.wrong[:5])]
        return "\n".join(lines)

    def _slopes(self) -> dict[str, tuple[Slope, float]]:
        """Of each kind of process, with the seconds that it rests on."""
        found = {}
        for name, lives in self._memory.items():
            warm = [
                [(at, size) for at, size in life if at >= life[0][0] + WARM_UP_SECONDS]
                for life in lives.values()
            ]
            seconds = sum(life[-1][0] - life[0][0] for life in warm if life)
            found[name] = (slope_of(warm), seconds)
        return found


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _shown(slope: Slope, seconds: float) -> str:
    if slope.sample_count < LEAST_SAMPLE_COUNT:
        return "too few samples"
    middle, low, high = (value * 3600 / MIB for value in (slope.per_unit, slope.lower, slope.upper))
    return f"{middle:8.2f} ({low:.2f} to {high:.2f}), {slope.sample_count} samples, {seconds:.0f} s"
