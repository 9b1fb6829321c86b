"""The run second by second, as charts want it: no more points than can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from santacoder_client.loadtest.page.plot import Band
from santacoder_client.loadtest.page.reading import Part

POINT_COUNT_MAX = 600
LATENCIES = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p50_ms")


@dataclass(frozen=True, slots=True)
class Moment:
    """One point of the timeline; rates are per second."""

    at_seconds: float
    dispatched_rate: float
    finished_rate: float
    failed_count: float
    token_rate: float
    in_flight: float | None
    latencies_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Timeline:
    moments: Sequence[Moment]
    seconds_a_point: float

    @property
    def begin_seconds(self) -> float:
        return self.moments[0].at_seconds

    @property
    def end_seconds(self) -> float:
        return self.moments[-1].at_seconds + self.seconds_a_point


def timeline_of(result: Part) -> Timeline:
    """The result's timeline; neighbours are merged where there are too many."""
    bins = [part for part in result.parts("timeline") if part.number("at_seconds") is not None]
    bins.sort(key=lambda part: part.number("at_seconds") or 0.0)
    width = _bin_seconds(bins)
    merged = -(-len(bins) // POINT_COUNT_MAX) or 1
    groups = [bins[start : start + merged] for start in range(0, len(bins), merged)]
    return Timeline([_moment(group, width) for group in groups], width * merged)


def bands(result: Part, timeline: Timeline) -> list[Band]:
    """Warm-up and cool-down, which no figure counts."""
    begin, end = result.number("window", "begin"), result.number("window", "end")
    found = []
    if begin is not None and begin > timeline.begin_seconds:
        found.append(Band(timeline.begin_seconds, begin, "warm-up"))
    if end is not None and timeline.begin_seconds < end < timeline.end_seconds - 0.5:
        found.append(Band(end, timeline.end_seconds, "cool-down"))
    return found


def _bin_seconds(bins: Sequence[Part]) -> float:
    if len(bins) < 2:
        return 1.0
    first, second = (part.number("at_seconds") or 0.0 for part in bins[:2])
    return second - first if second > first else 1.0


def _moment(group: Sequence[Part], width: float) -> Moment:
    seconds = width * len(group)
    in_flight = [value for part in group if (value := part.number("in_flight")) is not None]
    return Moment(
        at_seconds=group[0].number("at_seconds") or 0.0,
        dispatched_rate=_sum(group, "dispatched") / seconds,
        finished_rate=_sum(group, "finished") / seconds,
        failed_count=_sum(group, "failed"),
        token_rate=_sum(group, "completion_tokens") / seconds,
        in_flight=max(in_flight) if in_flight else None,
        latencies_ms={name: _latency(group, name) for name in LATENCIES},
    )


def _sum(group: Sequence[Part], name: str) -> float:
    return sum(part.number(name) or 0.0 for part in group)


def _latency(group: Sequence[Part], name: str) -> float | None:
    """Of merged seconds the middle p50 and the worst p99: a peak must not be averaged away."""
    values = sorted(value for part in group if (value := part.number(name)) is not None)
    if not values:
        return None
    return values[-1] if "p99" in name else values[len(values) // 2]
