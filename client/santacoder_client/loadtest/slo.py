"""Service level objectives, `ttft<100ms,e2e<2s`, and which requests met them (goodput).

A request meets an SLO if it was answered whole and every condition holds. Failed and unsent
requests missed it. Cut ones (cancelled, superseded) are not counted: their end was our wish, except
where the end of the run cut them and they were too late by then already, which is a miss.
A condition on a time that a request lacks is not met, but for the gaps between tokens of an answer
that came in one message: there is none that was too long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.columns import Columns, Floats
from santacoder_client.loadtest.comparison import (
    Comparison,
    complaint,
    milliseconds,
    parse_comparison,
)
from santacoder_client.loadtest.metrics import (
    METRICS,
    first_token_at,
    gaps_of,
    largest_gap,
    request_metrics,
)
from santacoder_client.loadtest.record import Outcome
from santacoder_client.loadtest.result import Goodput

FLAG = "--slo"
GAPS = ("second_token", "itl_token", "itl_chunk", "tpot")
"""What an answer in one message lacks. Of `itl_*` the largest counts."""
ALLOWED = tuple(name for name in METRICS if name != "cancel")

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Condition:
    """A bound on one of a request's latencies."""

    comparison: Comparison
    bound_seconds: float

    @property
    def metric(self) -> str:
        """Which latency."""
        return self.comparison.name

    def holds(self, seconds: Floats) -> Booleans:
        """Which values are within the bound; NaN is not."""
        return np.array(self.comparison.holds_for(seconds, self.bound_seconds))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Slo:
    """Conditions that a request must all meet."""

    text: str
    conditions: tuple[Condition, ...]


def parse_slo(text: str) -> Slo:
    """The SLO in a text. Raises UsageError."""
    conditions = tuple(_condition(part) for part in text.split(","))
    return Slo(",".join(condition.comparison.text for condition in conditions), conditions)


def parse_slos(texts: Sequence[str]) -> tuple[Slo, ...]:
    """Those of a command line, each once. Raises UsageError."""
    slos = {slo.text: slo for slo in map(parse_slo, texts)}
    return tuple(slos.values())


def _condition(text: str) -> Condition:
    comparison = parse_comparison(FLAG, text)
    if comparison.name not in ALLOWED:
        raise complaint(FLAG, "unknown metric", comparison.name, ", ".join(ALLOWED))
    if comparison.relation not in ("<", "<="):
        raise complaint(FLAG, "latencies are bounded from above", comparison.text, "< or <=")
    return Condition(comparison, milliseconds(FLAG, comparison) / 1000)


def goodputs(
    columns: Columns, inside: Booleans, seconds: float, slos: Sequence[Slo]
) -> tuple[Goodput, ...]:
    """The goodput of the requests in the window, for every SLO."""
    if not slos:
        return ()
    values = _values(columns)
    return tuple(_goodput(columns, values, inside, seconds, slo) for slo in slos)


def _goodput(
    columns: Columns, values: Mapping[str, Floats], inside: Booleans, seconds: float, slo: Slo
) -> Goodput:
    met, counted = _met_and_counted(columns, values, slo)
    met_count, count = int((inside & met).sum()), int((inside & counted).sum())
    return Goodput(
        slo=slo.text,
        per_second=met_count / seconds if seconds else None,
        share=met_count / count if count else None,
    )


def met_and_counted(columns: Columns, slos: Sequence[Slo]) -> list[tuple[Booleans, Booleans]]:
    """Of every SLO: which requests met it, and which could have."""
    values = _values(columns)
    return [_met_and_counted(columns, values, slo) for slo in slos]


def _met_and_counted(
    columns: Columns, values: Mapping[str, Floats], slo: Slo
) -> tuple[Booleans, Booleans]:
    met = met_by(columns, values, slo)
    return met, met | _fallen(columns) | _too_late(columns, slo)


def met_by(columns: Columns, values: Mapping[str, Floats], slo: Slo) -> Booleans:
    """Which requests met the SLO."""
    met = columns.ended_as(Outcome.OK)
    single = columns.chunk_counts == 1
    for condition in slo.conditions:
        holds = condition.holds(values[condition.metric])
        met = met & (holds | single if condition.metric in GAPS else holds)
    return met


def _values(columns: Columns) -> dict[str, Floats]:
    gaps = gaps_of(columns)
    largest = {
        "itl_token": largest_gap(columns, gaps, by_token=True),
        "itl_chunk": largest_gap(columns, gaps, by_token=False),
    }
    return request_metrics(columns) | largest


def _fallen(columns: Columns) -> Booleans:
    """Requests that could have met it, whether or not they did."""
    return columns.ended_as(Outcome.OK, Outcome.FAILED, Outcome.UNSENT)


def _too_late(columns: Columns, slo: Slo) -> Booleans:
    """Requests that the run's end cut when they had missed a bound already."""
    kinds = [number for key, number in columns.error_kinds.items() if key[1] == END_OF_RUN]
    cut_at = columns.times("cancelled_at")
    late = np.zeros(len(columns), dtype=np.bool_)
    for condition in slo.conditions:
        begin = columns.times(
            "scheduled_at" if condition.metric.endswith("_scheduled") else "dispatched_at"
        )
        waited = cut_at - begin
        over = (waited > condition.bound_seconds) & ~np.isnan(waited)
        if condition.metric.startswith("ttft"):
            first = first_token_at(columns)
            over = np.where(np.isnan(first), over, first - begin > condition.bound_seconds)
            late |= over
        elif condition.metric.startswith("e2e"):
            late |= over
    return late & np.isin(columns.errors, kinds)
