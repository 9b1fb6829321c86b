"""What a request's trace is told when it ends: times that are kept anyway, so nothing a token.

A request finds the trace of the RPC that it belongs to in its task; there is none where nobody
traces. Knows no tracing library.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol


class Timeline(NamedTuple):
    """A request from its arrival to its end, in seconds of the router's clock; None: never came."""

    request_id: str
    arrival: float
    started_at: float | None
    first_token_at: float | None
    ended_at: float
    prompt_token_count: int
    cached_token_count: int
    completion_token_count: int


class RequestTrace(Protocol):
    """The trace of one RPC."""

    def add(self, timeline: Timeline) -> None:
        """A request of the RPC has ended; a session has many."""


current_trace: ContextVar[RequestTrace | None] = ContextVar("current_trace", default=None)
