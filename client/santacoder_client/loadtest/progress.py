"""How a run goes so far, from its load and from the records that have come. Pure; shows nothing.

Rates are of the last seconds, latencies of the steady part (until it begins, of the warm-up). They
are for the eye: `figures.py` computes what is kept.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from santacoder_client.loadtest.arrival import due_times
from santacoder_client.loadtest.editor import keystrokes
from santacoder_client.loadtest.load import Load, Phases, Share
from santacoder_client.loadtest.record import Outcome, RequestRecord

RATE_SECONDS = 5.0
BUCKET_GROWTH = 1.01
"""Latencies are counted in buckets of one percent, so that a long run needs no more memory."""
SMALLEST_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run. What cannot be known is None."""

    phase: str
    elapsed_seconds: float
    total_seconds: float
    offered_per_second: float | None
    answered_per_second: float
    tokens_per_second: float
    in_flight_count: int | None
    held_count: int
    """Due, and kept back by the cap on concurrency."""
    first_token_p50_ms: float | None
    first_token_p99_ms: float | None
    superseded_count: int
    failed_count: int
    errors: tuple[tuple[str, int], ...]
    """Reasons and how often, most first."""


class Progress:
    """Adds up records as they come."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due = _due(load)
        self._next_due = next(self._due, math.inf)
        self._due_lately: deque[float] = deque()
        self._due_count = self._ended_count = self._superseded_count = 0
        self._ended_lately: deque[tuple[float, bool, int]] = deque()
        self._first_tokens: Counter[int] = Counter()
        self._is_steady = False
        self._errors: Counter[str] = Counter()

    def add(self, record: RequestRecord) -> None:
        """One request that is over."""
        self._ended_count += 1
        self._superseded_count += record.outcome is Outcome.SUPERSEDED
        if record.outcome is Outcome.FAILED:
            self._errors[record.reason or record.status or "no status"] += 1
        if record.finished_at is not None:
            tokens = record.completion_token_count
            self._ended_lately.append((record.finished_at, record.outcome is Outcome.OK, tokens))
        if record.first_token_at is not None and record.dispatched_at is not None:
            self._note_first_token(
                record.scheduled_at, record.first_token_at - record.dispatched_at
            )

    def at(self, now: float) -> Snapshot:
        """How it stands at a moment on the run's clock, which is not before the last one asked."""
        self._forget_before(now - RATE_SECONDS, now)
        span = min(max(now, 1e-9), RATE_SECONDS)
        in_flight, held = self._open()
        phases = self._load.phases
        return Snapshot(
            phase=phase_at(phases, now),
            elapsed_seconds=max(0.0, now),
            total_seconds=phases.sending_seconds,
            offered_per_second=len(self._due_lately) / span if self._knows_due else None,
            answered_per_second=sum(ok for _, ok, _ in self._ended_lately) / span,
            tokens_per_second=sum(tokens for _, _, tokens in self._ended_lately) / span,
            in_flight_count=in_flight,
            held_count=held,
            first_token_p50_ms=_percentile_ms(self._first_tokens, 0.5),
            first_token_p99_ms=_percentile_ms(self._first_tokens, 0.99),
            superseded_count=self._superseded_count,
            failed_count=self._errors.total(),
            errors=tuple(self._errors.most_common()),
        )

    @property
    def _knows_due(self) -> bool:
        return self._due_count > 0 or self._next_due < math.inf

    def _forget_before(self, then: float, now: float) -> None:
        while self._next_due <= now:
            self._due_lately.append(self._next_due)
            self._due_count += 1
            self._next_due = next(self._due, math.inf)
        while self._due_lately and self._due_lately[0] <= then:
            self._due_lately.popleft()
        # Several workers' records come almost in order; what is a little late goes a little late.
        while self._ended_lately and self._ended_lately[0][0] <= then:
            self._ended_lately.popleft()

    def _open(self) -> tuple[int | None, int]:
        """Requests in flight, and those held back."""
        if not self._knows_due:
            return None, 0
        count = max(0, self._due_count - self._ended_count)
        cap = self._load.concurrency
        return (count, 0) if cap is None else (min(count, cap), max(0, count - cap))

    def _note_first_token(self, scheduled_at: float, seconds: float) -> None:
        if not self._is_steady and scheduled_at >= self._load.phases.steady_begin:
            self._is_steady = True
            self._first_tokens.clear()
        self._first_tokens[round(math.log(max(seconds, SMALLEST_SECONDS), BUCKET_GROWTH))] += 1


def phase_at(phases: Phases, now: float) -> str:
    """What goes on at a moment, in words."""
    if now < phases.steady_begin:
        return "warming up"
    if now < phases.steady_end:
        return "measuring"
    return "cooling down" if now < phases.sending_seconds else "waiting for answers"


def _due(load: Load) -> Iterator[float]:
    """When requests are due, where that does not depend on answers."""
    match load.model:
        case "closed":
            return iter(())
        case "editor":
            return (keystroke.due for keystroke in keystrokes(load, Share()))
        case _:
            return due_times(load)


def _percentile_ms(buckets: Counter[int], share: float) -> float | None:
    left = math.ceil(share * buckets.total())
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return float(1000 * BUCKET_GROWTH**bucket)
    return None
