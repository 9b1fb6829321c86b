"""When sequences run out of time, and with which reason. Knows times and reasons, no clock."""

from __future__ import annotations

import heapq

from santacoder_router.core.plan import FinishReason
from santacoder_router.core.sequence import Sequence

# Where two fall on one moment the first wins: an answer cut short is better than an error.
_REASONS = (FinishReason.TIME_BUDGET, FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT)

_Timer = tuple[float, int, int, Sequence]


class Timers:
    """Every live sequence's deadline, time budget and end of patience in the queue."""

    def __init__(self) -> None:
        self._heap: list[_Timer] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, sequence: Sequence, queue_end: float, live_count: int) -> None:
        """Sets a sequence's timers. `live_count` bounds how many timers of the dead are kept."""
        request = sequence.request
        ends = (request.time_budget_end, request.deadline, queue_end)
        for kind, end in enumerate(ends):
            if end is not None:
                heapq.heappush(self._heap, (end, kind, sequence.order[1], sequence))
        if len(self._heap) > 6 * live_count + 64:
            self._heap = [timer for timer in self._heap if _is_armed(timer)]
            heapq.heapify(self._heap)

    def next_time(self) -> float | None:
        """When the next timer goes off."""
        while self._heap and not _is_armed(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> tuple[Sequence, FinishReason] | None:
        """The earliest sequence whose time is up at `now`, if there is one."""
        end = self.next_time()
        if end is None or end > now:
            return None
        _, kind, _, sequence = heapq.heappop(self._heap)
        return sequence, _REASONS[kind]


def _is_armed(timer: _Timer) -> bool:
    _, kind, _, sequence = timer
    if sequence.is_ended:
        return False
    has_started = sequence.generation > 0
    return not (has_started and _REASONS[kind] is FinishReason.QUEUE_TIMEOUT)
