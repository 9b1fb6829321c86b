"""How fast the queue is worked off, measured while somebody waits. Knows no queue and no clock."""

from __future__ import annotations

from math import exp

# About the last so many seconds of waiting count.
_MEMORY_SECONDS = 5.0
# With less waiting than this behind it a rate would be a guess.
_LEAST_SECONDS = 0.25


class DrainRate:
    """Work that gets slots in a second of waiting, smoothed."""

    def __init__(self) -> None:
        self._work = 0.0
        self._seconds = 0.0
        # Since when the time of those who wait is not yet counted; None while nobody is kept back.
        self._since: float | None = None

    def block(self, now: float) -> None:
        """Somebody has to wait; what got a slot before found it free, and tells of no rate."""
        if self._since is None:
            self._since = now

    def take(self, work: int, now: float) -> None:
        """So much work got a slot."""
        if self._since is not None:
            self._pass(now - self._since)
            self._since = now
            self._work += work

    def rest(self) -> None:
        """Nobody waits."""
        self._since = None

    def seconds_for(self, work: int, now: float) -> float | None:
        """How long so much work will take; None where nobody knows yet."""
        seconds = self._seconds + (0.0 if self._since is None else now - self._since)
        if self._seconds < _LEAST_SECONDS or not self._work:
            return None
        return work * seconds / self._work

    def _pass(self, seconds: float) -> None:
        kept = exp(-seconds / _MEMORY_SECONDS)
        self._work *= kept
        self._seconds = self._seconds * kept + seconds
