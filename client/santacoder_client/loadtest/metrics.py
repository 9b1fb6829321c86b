"""What each latency is, exactly, of every request. Knows no window, no percentiles.

In seconds, NaN where a request has none. *Answered* are requests that neither failed nor were left
unsent: whole answers (`ok`), and those that the load itself cut short (`cancelled`, `superseded`).

ttft            dispatch to the first message with tokens; answered. A unary answer has none.
ttft_scheduled  the same from when it was due: with what it waited for this client or a cap.
second_token    first message with tokens to the second; answered.
itl_chunk       between neighbouring messages with tokens; answered, one value a gap.
itl_token       the same by token: n tokens after a gap g are n values of g / n, so that messages of
                several tokens (a lease, a slow reader) do not pass for slow tokens.
tpot            (last - first message with tokens) / tokens after the first message; ok.
e2e             dispatch to the end of the call; ok only, for a cut answer ends by our own hand.
e2e_scheduled   the same from when it was due.
queue           what the server says that the request waited; answered.
dispatch_delay  due to dispatch: all that were sent.
cancel          asking for the end to the server's confirming it; cancelled and superseded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from santacoder_client.loadtest.columns import Columns, Floats, Integers
from santacoder_client.loadtest.record import Outcome

METRICS = (
    "ttft",
    "ttft_scheduled",
    "second_token",
    "itl_token",
    "itl_chunk",
    "tpot",
    "e2e",
    "e2e_scheduled",
    "queue",
    "dispatch_delay",
    "cancel",
)
"""All, in the order in which they are shown."""
GAP_METRICS = ("itl_token", "itl_chunk")
"""Those of which a request has many values."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """Every gap between neighbouring messages of answered requests."""

    seconds: Floats
    tokens: Integers
    """In the message that ended the gap."""
    requests: Integers
    """Whose gap it is, as a place in the columns."""


def first_token_at(columns: Columns) -> Floats:
    """When each request's first message with tokens came."""
    return _chunk_time(columns, 0)


def request_metrics(columns: Columns) -> dict[str, Floats]:
    """Every latency that a request has one of, by name."""
    due, sent, ended = (
        columns.times(name) for name in ("scheduled_at", "dispatched_at", "finished_at")
    )
    answered = columns.ended_as(Outcome.OK, Outcome.CANCELLED, Outcome.SUPERSEDED)
    ok = columns.ended_as(Outcome.OK)
    cut = columns.ended_as(Outcome.CANCELLED, Outcome.SUPERSEDED)
    first = first_token_at(columns)
    return {
        "ttft": _where(answered, first - sent),
        "ttft_scheduled": _where(answered, first - due),
        "second_token": _where(answered, _chunk_time(columns, 1) - first),
        "tpot": _where(ok, _seconds_per_token(columns)),
        "e2e": _where(ok, ended - sent),
        "e2e_scheduled": _where(ok, ended - due),
        "queue": _where(answered, columns.times("server_queue_seconds")),
        "dispatch_delay": sent - due,
        "cancel": _where(cut, ended - columns.times("cancelled_at")),
    }


def gaps_of(columns: Columns) -> Gaps:
    """The gaps between messages, of all answered requests."""
    answered = columns.ended_as(Outcome.OK, Outcome.CANCELLED, Outcome.SUPERSEDED)
    requests = np.repeat(np.arange(len(columns)), columns.chunk_counts)
    inside = (requests[1:] == requests[:-1]) & answered[requests[1:]]
    return Gaps(
        seconds=np.diff(columns.chunk_times)[inside],
        tokens=columns.chunk_tokens[1:][inside],
        requests=requests[1:][inside],
    )


def largest_gap(columns: Columns, gaps: Gaps, by_token: bool) -> Floats:
    """Each request's longest wait between tokens or messages; NaN where it has no gap."""
    seconds = gaps.seconds / gaps.tokens if by_token else gaps.seconds
    largest = np.full(len(columns), -np.inf)
    np.maximum.at(largest, gaps.requests, seconds)
    return _where(largest >= 0, largest)


def _seconds_per_token(columns: Columns) -> Floats:
    counts = columns.chunk_counts
    ends = np.cumsum(counts)
    starts = ends - counts
    sums = np.concatenate([[0], np.cumsum(columns.chunk_tokens)])
    # The first message's tokens were all made before the clock of this metric starts.
    later = sums[ends] - sums[np.minimum(starts + 1, ends)]
    seconds = _chunk_time(columns, -1) - _chunk_time(columns, 0)
    return _where(later > 0, seconds / np.maximum(later, 1))


def _chunk_time(columns: Columns, place: int) -> Floats:
    """When each request's message number `place` came; -1 is the last."""
    counts, times = columns.chunk_counts, columns.chunk_times
    ends = np.cumsum(counts)
    wanted = ends - 1 if place < 0 else ends - counts + place
    there = counts > max(place, 0)
    found = np.full(len(counts), np.nan)
    found[there] = times[wanted[there]]
    return found


def _where(chosen: npt.NDArray[np.bool_], values: Floats) -> Floats:
    return np.where(chosen, values, np.nan)
