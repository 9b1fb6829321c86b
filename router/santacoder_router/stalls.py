"""Ends streams whose reader takes nothing any more. Knows calls, no requests.

A write waits once the connection holds as much as the reader lets it, and its stream keeps 64 KiB
more; so nothing is owed to a reader, however slow, whose whole answer fits there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

# Looks in the time that a reader may take nothing.
LOOKS = 8
MOST_LOOK_SECONDS = 1.0


class WatchedStream(Protocol):
    """A stream that can be looked at and ended."""

    @property
    def writing_since(self) -> float | None:
        """When the write began that has not ended yet, in seconds of the clock."""

    def stall(self, seconds: float) -> None:
        """The reader has taken nothing for so long."""


class Stalls:
    """All streams of a router. `clock` gives monotonic seconds."""

    def __init__(self, stall_seconds: float, clock: Callable[[], float]) -> None:
        self._stall_seconds = stall_seconds
        self.clock = clock
        self._streams: set[WatchedStream] = set()

    @contextmanager
    def watching(self, stream: WatchedStream) -> Iterator[None]:
        """Looks at a stream from time to time."""
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)

    def look(self) -> None:
        """Ends those that have waited for too long."""
        now = self.clock()
        for stream in list(self._streams):
            since = stream.writing_since
            if since is not None and now - since > self._stall_seconds:
                stream.stall(now - since)

    async def watch(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(min(MOST_LOOK_SECONDS, self._stall_seconds / LOOKS))
            self.look()
