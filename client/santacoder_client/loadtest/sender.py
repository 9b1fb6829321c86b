"""What sends one request: the shape that every way to a server has. Knows no way itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.record import RequestRecord

Clock = Callable[[], float]
"""Seconds on the run's clock."""


class Sender(Protocol):
    """One target, asked again and again by one event loop."""

    async def open(self) -> None:
        """Connects. Raises Unreachable if there is nobody."""

    async def send(self, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        """Sends one request, waits for its end, and fills in everything from `dispatched_at` on.

        Whatever the server or the wire does ends in the record, never in an exception. If the task
        is cancelled, the record holds what had come until then, and CancelledError goes on.
        """

    async def close(self) -> None:
        """Drops what is running. May be called again."""
