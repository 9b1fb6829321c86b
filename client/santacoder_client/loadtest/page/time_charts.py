"""Charts of a run over time: latency, throughput, work in flight, failures."""

from __future__ import annotations

from collections.abc import Sequence

from santacoder_client.loadtest.page.plot import Axis, Band, Bar, Bars, Line, Plot
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.scale import Linear, Scale, for_times, from_zero
from santacoder_client.loadtest.page.timeline import Moment, Timeline, bands, timeline_of
from santacoder_client.loadtest.wording import amount, count, duration


def time_plots(result: Part) -> list[Plot]:
    """The charts for which the result has values."""
    timeline = timeline_of(result)
    if not timeline.moments:
        return []
    apart = bands(result, timeline)
    plots = [
        _latency(timeline, apart),
        _requests(timeline, apart),
        _tokens(timeline, apart),
        _in_flight(timeline, apart),
        _failures(timeline, apart),
    ]
    return [plot for plot in plots if plot is not None]


def _latency(timeline: Timeline, apart: Sequence[Band]) -> Plot | None:
    wanted = (
        ("first token, p50", "ttft_p50_ms"),
        ("first token, p99", "ttft_p99_ms"),
        ("whole answer, p50", "e2e_p50_ms"),
    )
    lines = [
        Line(name, [(m.at_seconds, m.latencies_ms[key]) for m in timeline.moments], style)
        for style, (name, key) in enumerate(wanted, start=1)
    ]
    lines = [line for line in lines if line.known]
    if not lines:
        return None
    scale = for_times(y for line in lines for _, y in line.known)
    return Plot(
        name="latency-over-time",
        title="Latency over time",
        how="Flat is good. A p99 that climbs for as long as the load lasts is a queue that grows.",
        x=_seconds(timeline),
        y=Axis(_titled("time", scale), scale, duration),
        lines=lines,
        bands=apart,
        wide=True,
    )


def _requests(timeline: Timeline, apart: Sequence[Band]) -> Plot:
    lines = [
        _line("sent", timeline, [m.dispatched_rate for m in timeline.moments], 2),
        _line("answered", timeline, [m.finished_rate for m in timeline.moments], 1),
    ]
    return Plot(
        name="requests-over-time",
        title="Requests",
        how="Where less is answered than sent, the server falls behind.",
        x=_seconds(timeline),
        y=_axis("requests per second", from_zero(y for line in lines for _, y in line.known)),
        lines=lines,
        bands=apart,
    )


def _tokens(timeline: Timeline, apart: Sequence[Band]) -> Plot | None:
    line = _line("new tokens", timeline, [m.token_rate for m in timeline.moments], 1)
    if not any(moment.token_rate for moment in timeline.moments):
        return None
    return Plot(
        name="tokens-over-time",
        title="Tokens",
        how="What the server really made each second. Its ceiling is where this stays flat.",
        x=_seconds(timeline),
        y=_axis("tokens per second", from_zero(y for _, y in line.known)),
        lines=[line],
        bands=apart,
    )


def _in_flight(timeline: Timeline, apart: Sequence[Band]) -> Plot | None:
    line = _line("in flight", timeline, [m.in_flight for m in timeline.moments], 1)
    if not line.known:
        return None
    return Plot(
        name="in-flight-over-time",
        title="Requests in flight",
        how="Sent and not answered yet. A steady climb means more comes than can be served.",
        x=_seconds(timeline),
        y=_axis("requests", from_zero((y for _, y in line.known), high=5.0)),
        lines=[line],
        bands=apart,
    )


def _failures(timeline: Timeline, apart: Sequence[Band]) -> Plot | None:
    if not any(moment.failed_count for moment in timeline.moments):
        return None
    return Plot(
        name="errors-over-time",
        title="Failures",
        how="All at once points to a restart or a full queue; now and then to single requests.",
        x=_seconds(timeline),
        y=Axis(
            f"failed, each {amount(timeline.seconds_a_point)} s",
            from_zero((m.failed_count for m in timeline.moments), high=5.0),
            count,
        ),
        bars=[Bars("failed", [_bar(m, timeline) for m in timeline.moments], 2)],
        bands=apart,
    )


def _bar(moment: Moment, timeline: Timeline) -> Bar:
    end = moment.at_seconds + timeline.seconds_a_point
    return Bar(moment.at_seconds, end, moment.failed_count)


def _line(name: str, timeline: Timeline, values: Sequence[float | None], style: int) -> Line:
    places = [moment.at_seconds for moment in timeline.moments]
    return Line(name, list(zip(places, values, strict=True)), style)


def _seconds(timeline: Timeline) -> Axis:
    scale = Linear(timeline.begin_seconds, timeline.end_seconds)
    return Axis("seconds since the run began", scale, lambda value: f"{amount(value)} s")


def _axis(title: str, scale: Scale) -> Axis:
    return Axis(title, scale, amount)


def _titled(title: str, scale: Scale) -> str:
    return title if isinstance(scale, Linear) else f"{title} (log scale)"
