"""What the limit was: this client, the server, or neither. Judges readings and records; measures
nothing. A figure is only worth reading if the client was not what it measures.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.meter import MeterReading
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.result import ClientVerdict

BUSY_SHARE = 0.85
"""A loop that is busier makes what comes next wait, more often than not."""
HUNGRY_CPU_SHARE = 0.9
HUNGRY_LAG_SECONDS = 0.005
"""One interpreter's threads share one core; a lag beside that is the wait for it."""
LAG_SECONDS = 0.02
LAG_PART_OF_LATENCY = 0.1
"""A lag does not matter where answers take ten times as long."""
MOST_LAG_SECONDS = 0.25
"""But such a one always does: answers may well be slow because this client reads them late."""
NOTED_SHARE = 0.01
"""Part of the requests from which on failures or waits say something about the server."""
GROWTH_SHARE = 0.1


class Pressure:
    """Sums up, record by record, what speaks of the server's limit."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._outcomes: Counter[Outcome] = Counter()
        self._end_of_run_count = 0
        self._latencies: list[float] = []
        self._in_flight: Counter[str] = Counter()

    def add(self, record: RequestRecord) -> None:
        """One record of any phase."""
        phases = self._load.phases
        for name, at in self._moments().items():
            self._in_flight[name] += _is_open(record, at)
        # Of one that was cut: how long it had taken by then. Of all phases, because a short steady
        # part may see no end; it is only the measure that a lag is held against.
        ended = record.finished_at if record.finished_at is not None else record.cancelled_at
        if record.dispatched_at is not None and ended is not None:
            self._latencies.append(ended - record.dispatched_at)
        if phases.steady_begin <= record.scheduled_at < phases.steady_end:
            self._outcomes[record.outcome] += 1
            self._end_of_run_count += record.reason == END_OF_RUN

    @property
    def median_latency_seconds(self) -> float:
        """From dispatch to the end; 0 without one."""
        return statistics.median(self._latencies) if self._latencies else 0.0

    def reasons(self) -> list[str]:
        """What says that the server was the limit, each in one clause; empty if nothing does."""
        count = sum(self._outcomes.values())
        clauses = []
        if self._load.model == "closed" and (count or self._in_flight["end"]):
            clauses.append(f"{self._load.concurrency} users ask again as fast as answers come")
        if count:
            clauses += self._shares(count)
        if self._grows(count):
            middle, end = self._in_flight["middle"], self._in_flight["end"]
            clauses.append(f"requests piled up, from {middle} to {end} in the second half")
        return clauses

    def _shares(self, count: int) -> list[str]:
        """Clauses on the part of the requests that fared badly."""
        parts = {
            "of the requests failed": self._outcomes[Outcome.FAILED],
            "of the requests were due and never sent": self._outcomes[Outcome.UNSENT],
            "had no end when the run had": self._end_of_run_count,
        }
        return [
            f"{part / count:.1%} {words}"
            for words, part in parts.items()
            if part >= NOTED_SHARE * count
        ]

    def _moments(self) -> dict[str, float]:
        phases = self._load.phases
        middle = phases.steady_begin + phases.steady_seconds / 2
        return {"middle": middle, "end": phases.steady_end}

    def _grows(self, count: int) -> bool:
        """Whether more requests came than ended, by more than chance."""
        middle, end = self._in_flight["middle"], self._in_flight["end"]
        growth = end - middle
        rising = self._load.model in ("ramp", "steps", "trace")
        # Two counts of what comes at random differ by the root of their sum.
        by_chance = 3 * (middle + end) ** 0.5
        return not rising and growth > GROWTH_SHARE * count / 2 and growth > by_chance


def judge(readings: Sequence[MeterReading], pressure: Pressure) -> ClientVerdict:
    """The verdict. If the client was a limit, nothing is said of the server."""
    reasons = client_reasons(readings, pressure.median_latency_seconds)
    verdict: Literal["client", "server", "neither"] = "client"
    if not reasons:
        reasons = pressure.reasons()
        verdict = "server" if reasons else "neither"
    return ClientVerdict(
        verdict=verdict,
        reasons=tuple(reasons),
        cpu_share=max((each.cpu_share for each in readings), default=0.0),
        loop_lag_p99_ms=1000 * max((each.lag_p99_seconds for each in readings), default=0.0),
        dispatch_delay_p99_ms=1000
        * max((each.release_p99_seconds for each in readings), default=0.0),
        workers=len(readings),
    )


def client_reasons(readings: Sequence[MeterReading], latency_seconds: float) -> list[str]:
    """What says that the client was the limit; empty if nothing does."""
    clauses = []
    bound = max(LAG_SECONDS, min(MOST_LAG_SECONDS, LAG_PART_OF_LATENCY * latency_seconds))
    for each in readings:
        name = f"worker {each.worker}"
        lag_ms, release_ms = 1000 * each.lag_p99_seconds, 1000 * each.release_p99_seconds
        if each.busy_share >= BUSY_SHARE:
            clauses.append(f"{name} was busy {each.busy_share:.0%} of the time")
        elif each.cpu_share >= HUNGRY_CPU_SHARE and each.lag_p99_seconds >= HUNGRY_LAG_SECONDS:
            clauses.append(
                f"{name} used {each.cpu_share:.0%} of a core and woke {lag_ms:.0f} ms late (p99)"
            )
        elif each.lag_p99_seconds >= bound:
            clauses.append(f"{name} woke {lag_ms:.0f} ms late (p99): no processor was free for it")
        elif each.release_p99_seconds >= bound:
            clauses.append(f"{name} sent {release_ms:.0f} ms after requests were due (p99)")
    return clauses


def _is_open(record: RequestRecord, at: float) -> bool:
    """Whether a request was due and not over at some moment, held back ones included."""
    if record.scheduled_at > at:
        return False
    ended = record.finished_at if record.finished_at is not None else record.cancelled_at
    return ended is None or ended > at
