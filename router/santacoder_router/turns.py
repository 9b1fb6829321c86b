"""Who may speak now: a few at a time, in the order in which they asked, half of the loop's time.

A step of many rows has news for as many readers. Woken all at once they would write for longer than
a step takes, and while they write, the shards' next result lies unread and their next plan unmade.
So they take turns, with pauses as long as their writing took; whoever waits longer has more to say,
in one message. Knows neither readers nor what they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

PER_TURN = 8
# No shorter pauses: the event loop's timers count milliseconds.
PAUSE_SECONDS = 0.001

Speak = Callable[[], None]


class Turns:
    """One queue for a whole router. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Speak] = deque()
        self._is_busy = False
        self._began_at = 0.0
        # How long they have written since the last pause.
        self._spoken_seconds = 0.0

    def ask(self, speak: Speak) -> None:
        """Calls `speak`: now, or behind those who wait or write."""
        self._waiting.append(speak)
        if not self._is_busy:
            self._is_busy = True
            self._take_turn()

    def _take_turn(self) -> None:
        self._began_at = self._clock()
        for _ in range(min(PER_TURN, len(self._waiting))):
            self._waiting.popleft()()
        # Behind what they have woken: when it comes to this, they have written.
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._spoken_seconds += self._clock() - self._began_at
        if not self._waiting:
            self._is_busy, self._spoken_seconds = False, 0.0
        elif self._spoken_seconds < PAUSE_SECONDS:
            self._take_turn()
        else:
            pause_seconds, self._spoken_seconds = self._spoken_seconds, 0.0
            asyncio.get_running_loop().call_later(pause_seconds, self._take_turn)
