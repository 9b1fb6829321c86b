"""When a group that died may start again, and when to give up. Pure: the clock is the caller's.

A group that has worked starts again at once: whatever killed it, it can work. One that came up and
never finished a step may have died of a request, which takes the router some deaths to find. One
that did not come up will hardly do so the next time, and is tried less and less often.
"""

from __future__ import annotations

import enum

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
MOST_RESTARTS = 5
WINDOW_SECONDS = 300.0
# Two deaths, and one for each halving of 1,024 requests.
MOST_IDLE_LIVES = 12


class Life(enum.Enum):
    """What a group had come to before it died."""

    NEVER_UP = enum.auto()
    IDLE = enum.auto()
    WORKED = enum.auto()


class RestartBudget:
    """At most 5 restarts in 5 minutes of a group that does not come up, each twice as late.

    At most 12 in a row of one that comes up and finishes no step; without end of one that works.
    """

    def __init__(self) -> None:
        self._restarted_at: list[float] = []
        self._idle_count = 0

    def next_delay(self, now: float, life: Life) -> float | None:
        """Seconds to wait before the restart that is now due, which is counted; None to give up."""
        if life is Life.WORKED:
            self._restarted_at, self._idle_count = [], 0
            return 0.0
        if life is Life.IDLE:
            self._idle_count += 1
            return FIRST_DELAY_SECONDS if self._idle_count <= MOST_IDLE_LIVES else None
        self._restarted_at = [then for then in self._restarted_at if now - then < WINDOW_SECONDS]
        recent_count = len(self._restarted_at)
        if recent_count == MOST_RESTARTS:
            return None
        self._restarted_at.append(now)
        return min(FIRST_DELAY_SECONDS * 2.0**recent_count, LONGEST_DELAY_SECONDS)
