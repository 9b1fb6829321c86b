"""The run second by second. Counts and plain percentiles for the eye, without intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np

from santacoder_client.loadtest.columns import Columns, Floats, Integers
from santacoder_client.loadtest.metrics import request_metrics
from santacoder_client.loadtest.percentiles import interpolated
from santacoder_client.loadtest.record import Outcome
from santacoder_client.loadtest.result import TimelineBin


def timeline_of(columns: Columns) -> tuple[TimelineBin, ...]:
    """A bin for every second from the run's begin to the last thing that happened."""
    times = [columns.times(name) for name in ("scheduled_at", "dispatched_at", "finished_at")]
    known = np.concatenate([*times, columns.chunk_times])
    known = known[~np.isnan(known)]
    if not len(known):
        return ()
    count = math.floor(float(known.max())) + 1
    _, sent, ended = times
    ok, failed = columns.ended_as(Outcome.OK), columns.ended_as(Outcome.FAILED)
    latencies = request_metrics(columns)
    ttft, e2e = (_by_second(sent, latencies[name], count) for name in ("ttft", "e2e"))
    dispatched = _per_second(sent, count)
    finished, broken = _per_second(ended[ok], count), _per_second(ended[failed], count)
    tokens, open_counts = tokens_per_second(columns, 0.0, count), _in_flight(columns, count)
    return tuple(
        TimelineBin(
            at_seconds=float(second),
            dispatched=int(dispatched[second]),
            finished=int(finished[second]),
            failed=int(broken[second]),
            completion_tokens=int(tokens[second]),
            in_flight=int(open_counts[second]),
            ttft_p50_ms=_percentile_ms(ttft[second], 0.5),
            ttft_p99_ms=_percentile_ms(ttft[second], 0.99),
            e2e_p50_ms=_percentile_ms(e2e[second], 0.5),
        )
        for second in range(count)
    )


def token_arrivals(columns: Columns) -> tuple[Floats, Integers]:
    """When tokens came, and how many: by message, and for a unary answer at its end."""
    unary = (columns.chunk_counts == 0) & columns.ended_as(Outcome.OK)
    times = np.concatenate([columns.chunk_times, columns.times("finished_at")[unary]])
    counts = columns.counts("completion_token_count")[unary]
    return times, np.concatenate([columns.chunk_tokens, counts])


def tokens_per_second(columns: Columns, begin: float, count: int) -> Integers:
    """Tokens that came in each of `count` seconds from `begin` on."""
    times, tokens = token_arrivals(columns)
    seconds = np.floor(times - begin)
    inside = (seconds >= 0) & (seconds < count)
    sums = np.bincount(seconds[inside].astype(np.int64), tokens[inside], minlength=count)
    return sums.astype(np.int64)


def _per_second(times: Floats, count: int) -> Integers:
    seconds = np.floor(times[~np.isnan(times)]).astype(np.int64)
    return np.bincount(seconds, minlength=count)


def _by_second(times: Floats, values: Floats, count: int) -> list[Floats]:
    """The sorted values of each second."""
    known = ~np.isnan(times) & ~np.isnan(values)
    seconds, values = np.floor(times[known]).astype(np.int64), values[known]
    order = np.lexsort((values, seconds))
    bounds = np.searchsorted(seconds[order], np.arange(count + 1))
    ordered = values[order]
    return [ordered[low:high] for low, high in itertools.pairwise(bounds)]


def _percentile_ms(ordered: Floats, quantile: float) -> float | None:
    return 1000 * interpolated(ordered, quantile) if len(ordered) else None


def _in_flight(columns: Columns, count: int) -> Integers:
    """The most requests that were under way at once in each second."""
    sent, ended = columns.times("dispatched_at"), columns.times("finished_at")
    cancelled = columns.times("cancelled_at")
    ended = np.where(np.isnan(ended), cancelled, ended)
    sent, ended = sent[~np.isnan(sent)], ended[~np.isnan(ended) & ~np.isnan(sent)]
    moments = np.concatenate([ended, sent])
    steps = np.concatenate([np.full(len(ended), -1), np.full(len(sent), 1)])
    # Ends stand first, so that of two at the same moment the one makes room for the other.
    if not len(moments):
        return np.zeros(count, dtype=np.int64)
    order = np.argsort(moments, kind="stable")
    moments, levels = moments[order], np.cumsum(steps[order])
    seconds = np.floor(moments).astype(np.int64)
    # The most is what was under way when a second began, or at any moment in it.
    places = np.searchsorted(moments, np.arange(count), side="right")
    most = np.where(places > 0, levels[np.maximum(places - 1, 0)], 0)
    inside = seconds < count
    np.maximum.at(most, seconds[inside], levels[inside])
    return most
