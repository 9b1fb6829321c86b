"""The ids that callers have given their requests: each names one request of its caller.

Another caller's id is nowhere to be found: the same id is free for everybody else. Knows no queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from santacoder_router.errors import AlreadyExists, Reason, Unsupported, shown

KEPT_SECONDS = 60.0
MOST_KEPT = 8192


class RequestKey(NamedTuple):
    """An id and whose it is; callers that are only connections are one."""

    caller: str
    request_id: str


class _Answered(NamedTuple):
    content: int
    at: float


class RequestIds:
    """Ids of requests that run, and of those answered not long ago. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: set[RequestKey] = set()
        # Oldest first.
        self._answered: OrderedDict[RequestKey, _Answered] = OrderedDict()

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def claim(self, key: RequestKey) -> None:
        """Begins a request; raises AlreadyExists while the id is in use."""
        if key in self._running:
            raise AlreadyExists(
                Reason.REQUEST_ID_IN_USE,
                f"request_id: a request of this id is running; got {shown(key.request_id)};"
                " allowed an id that is not in use",
            )
        self._running.add(key)

    def check(self, key: RequestKey, content: int) -> None:
        """Raises Unsupported if the id was another request's, of which `content` is a hash."""
        known = self._answered.get(key)
        if known is None or self._clock() - known.at > KEPT_SECONDS or known.content == content:
            return
        raise Unsupported(
            Reason.IDEMPOTENCY_MISMATCH,
            f"request_id: named another request not long ago; got {shown(key.request_id)};"
            f" allowed the same request, or {KEPT_SECONDS:g} s after the other's end",
        )

    def release(self, key: RequestKey) -> None:
        """The request is over."""
        self._running.discard(key)

    def note_answered(self, key: RequestKey, content: int) -> None:
        """The request has its whole answer: its id stays its own for a while."""
        now = self._clock()
        self._answered[key] = _Answered(content, now)
        self._answered.move_to_end(key)
        oldest = next(iter(self._answered))
        if len(self._answered) > MOST_KEPT or now - self._answered[oldest].at > KEPT_SECONDS:
            del self._answered[oldest]
