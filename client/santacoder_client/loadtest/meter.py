"""Whether one event loop keeps up: how busy it is, and how late it wakes. Judges nothing."""

from __future__ import annotations

import asyncio
import selectors
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TICK_SECONDS = 0.01


class IdleSelector(selectors.SelectSelector):
    """Waits for the loop, and adds up for how long.

    `select` instead of epoll, because asyncio rounds epoll's waits up to whole milliseconds, by
    which requests would be late. The loop itself has few files: gRPC polls its sockets apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle_seconds = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """As all selectors do."""
        began = time.monotonic()
        try:
            return super().select(timeout)
        finally:
            self.idle_seconds += time.monotonic() - began


@dataclass(frozen=True, slots=True)
class MeterReading:
    """How one worker's event loop did in the steady part."""

    worker: int
    busy_share: float
    """Part of the time in which the loop was not waiting; at 1 everything else waits for it."""
    cpu_share: float
    """Processor time of the whole process, as a part of one core; threads can lift it over 1."""
    lag_p99_seconds: float
    """How late the loop comes to what is due."""
    release_p99_seconds: float
    """How late requests left the schedule; a wait for a cap on concurrency is no part of it."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MeterReading:
        """What `to_json` wrote."""
        return cls(**values)


class LoopMeter:
    """Watches the running loop between `begin` and `end`."""

    def __init__(self, worker: int, selector: IdleSelector) -> None:
        self._worker = worker
        self._selector = selector
        self._lags = array("d")
        self._releases = array("d")
        self._began: tuple[float, float, float] | None = None
        self._reading: MeterReading | None = None

    def begin(self) -> None:
        """The steady part begins."""
        self._began = self._now()

    def end(self) -> MeterReading:
        """The steady part has ended; later calls repeat what the first said."""
        if self._reading is None:
            busy_share, cpu_share = self._shares()
            self._reading = MeterReading(
                worker=self._worker,
                busy_share=busy_share,
                cpu_share=cpu_share,
                lag_p99_seconds=p99(self._lags),
                release_p99_seconds=p99(self._releases),
            )
        return self._reading

    def note_release(self, late_seconds: float) -> None:
        """A request left the schedule so late."""
        if self._is_on():
            self._releases.append(max(0.0, late_seconds))

    async def tick(self, clock: Callable[[], float]) -> None:
        """Measures how late the loop is, until cancelled.

        Every tick that a stall swallowed counts with the lateness that it would have had; else a
        stall of a second would be one sample among hundreds.
        """
        due = clock()
        while True:
            due += TICK_SECONDS
            await asyncio.sleep(max(0.0, due - clock()))
            now = clock()
            while due <= now:
                if self._is_on():
                    self._lags.append(now - due)
                due += TICK_SECONDS
            due -= TICK_SECONDS

    def _shares(self) -> tuple[float, float]:
        """Busy and processor time since `begin`, as parts of the time that went by."""
        if self._began is None:
            return 0.0, 0.0
        wall, cpu, idle = (
            now - before for now, before in zip(self._now(), self._began, strict=True)
        )
        return (max(0.0, 1.0 - idle / wall), cpu / wall) if wall > 0 else (0.0, 0.0)

    def _is_on(self) -> bool:
        return self._began is not None and self._reading is None

    def _now(self) -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), self._selector.idle_seconds


def p99(values: array[float]) -> float:
    """The 99th percentile; 0 without values."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))] if values else 0.0
