"""When a group that died may start again, and when to give up. Pure: the clock is the caller's."""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
MOST_RESTARTS = 5
WINDOW_SECONDS = 300.0


class RestartBudget:
    """At most 5 restarts in 5 minutes; each of them waits twice as long as the one before."""

    def __init__(self) -> None:
        self._restarted_at: list[float] = []

    def next_delay(self, now: float) -> float | None:
        """Seconds to wait before the restart that is now due, which is counted; None to give up."""
        self._restarted_at = [then for then in self._restarted_at if now - then < WINDOW_SECONDS]
        recent_count = len(self._restarted_at)
        if recent_count == MOST_RESTARTS:
            return None
        self._restarted_at.append(now)
        return min(FIRST_DELAY_SECONDS * 2.0**recent_count, LONGEST_DELAY_SECONDS)
