"""Who may speak now: so many in a second, in the order in which they asked.

A step of many rows has news for as many readers. Woken all at once they would write for longer than
a step takes, and while they write, the shards' next result lies unread and their next plan unmade.
So they take turns, at a rate that leaves the loop half of its time; whoever waits longer has more
to say, in one message. Knows neither readers nor what they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# A message costs some 50 us, and no row is planned more often (`seconds_per_row`, settings.py).
SPEAKERS_PER_SECOND = 10_000.0
# After a pause so many may speak at once: about a millisecond of messages.
MOST_AT_ONCE = 20
TURN_SECONDS = 0.001

Speak = Callable[[], None]


class Turns:
    """One queue for a whole router. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Speak] = deque()
        self._room = float(MOST_AT_ONCE)
        self._counted_at = clock()
        self._is_counting = False

    def ask(self, speak: Speak) -> None:
        """Calls `speak`: now if there is room and nobody waits, else in one of the next turns."""
        self._waiting.append(speak)
        if not self._is_counting:
            self._take_turn()

    def _take_turn(self) -> None:
        now = self._clock()
        earned = (now - self._counted_at) * SPEAKERS_PER_SECOND
        self._room, self._counted_at = min(self._room + earned, float(MOST_AT_ONCE)), now
        while self._waiting and self._room >= 1.0:
            self._room -= 1.0
            self._waiting.popleft()()
        self._is_counting = bool(self._waiting)
        if self._is_counting:
            asyncio.get_running_loop().call_later(TURN_SECONDS, self._take_turn)
