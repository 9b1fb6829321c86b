"""Charts of a sweep: what was served, and how fast, as more and more was asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from santacoder_client.loadtest.page.plot import Axis, Line, Mark, Plot
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.scale import Linear, for_times, from_zero
from santacoder_client.loadtest.wording import amount, duration, share

NAMES = {"rate": "requests offered per second", "concurrency": "requests at once"}
LATENCIES = (
    ("first token, p50", "ttft", "p50", 1),
    ("first token, p99", "ttft", "p99", 2),
    ("whole answer, p99", "e2e", "p99", 4),
)
LIMIT = re.compile(
    r"(?P<metric>[a-z0-9_]+)(?:\.[a-z0-9.]+)?\s*<=?\s*(?P<value>[0-9.]+)\s*(?P<unit>us|ms|s)?"
)
UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def sweep_plots(result: Part) -> list[Plot]:
    """The charts for which the result has values; none if it is no sweep."""
    points = sorted_points(result)
    if not points:
        return []
    plots = [_throughput(result, points), _latency(result, points), _goodput(result, points)]
    plots.append(_tokens(result, points))
    return [plot for plot in plots if plot is not None]


def sorted_points(result: Part) -> list[tuple[float, Part]]:
    """Every point's value and its result, from the least load to the most."""
    found = [
        (value, point.at("result"))
        for point in result.parts("sweep", "points")
        if (value := point.number("value")) is not None
    ]
    return sorted(found, key=lambda pair: pair[0])


def slo_limits_ms(points: Sequence[tuple[float, Part]]) -> dict[str, float]:
    """The latencies that the SLOs name: `ttft<100ms,e2e<2s` is ttft 100 and e2e 2000."""
    limits: dict[str, float] = {}
    for _, point in points:
        for goodput in point.parts("goodput"):
            for found in LIMIT.finditer(goodput.text("slo")):
                value = float(found["value"].rstrip(".") or 0) * UNIT_MS[found["unit"] or "ms"]
                limits.setdefault(found["metric"], value)
    return limits


def _throughput(result: Part, points: Sequence[tuple[float, Part]]) -> Plot | None:
    finished = [(x, point.number("rates", "finished_per_second")) for x, point in points]
    line = Line("answered", finished, 1, dots=True)
    if not line.known:
        return None
    lines = [line]
    if result.text("sweep", "variable") == "rate":
        ends = (0.0, points[-1][0])
        lines.append(Line("all that was offered", [(x, x) for x in ends], 2))
    tallest = max(y for each in lines for _, y in each.known)
    return Plot(
        name="throughput-by-load",
        title="Throughput against load",
        how="On the dashed line everything offered is served. Where the curve leaves it, at the"
        " knee, the server is full."
        if len(lines) > 1
        else "Where the curve goes flat, at the knee, more at once brings no more.",
        x=_load_axis(result, points),
        y=Axis("requests answered per second", from_zero([tallest]), amount),
        lines=lines,
        marks=load_marks(result),
        wide=True,
    )


def _latency(result: Part, points: Sequence[tuple[float, Part]]) -> Plot | None:
    lines = [
        Line(
            name,
            [(x, p.number("figures", metric, "percentiles", at, "value")) for x, p in points],
            style,
            dots=True,
        )
        for name, metric, at, style in LATENCIES
    ]
    lines = [line for line in lines if line.known]
    if not lines:
        return None
    limits = [
        Mark(limit, f"SLO {metric} {duration(limit)}", upright=False)
        for metric, limit in slo_limits_ms(points).items()
        if metric in ("ttft", "e2e", "ttft_scheduled", "e2e_scheduled") and limit > 0
    ]
    scale = for_times([y for e in lines for _, y in e.known] + [mark.at for mark in limits])
    rising = "" if isinstance(scale, Linear) else " (log scale)"
    return Plot(
        name="latency-by-load",
        title="Latency against load",
        how="A server's useful range ends where its curve crosses the SLO's level line.",
        x=_load_axis(result, points),
        y=Axis(f"time{rising}", scale, duration),
        lines=lines,
        marks=[*load_marks(result), *limits],
        wide=True,
    )


def _goodput(result: Part, points: Sequence[tuple[float, Part]]) -> Plot | None:
    names = [goodput.text("slo") for goodput in points[0][1].parts("goodput")]
    lines = [
        Line(
            slo,
            [(x, _share_of(point, slo)) for x, point in points],
            place % 5 + 1,
            dots=True,
        )
        for place, slo in enumerate(names)
    ]
    if not any(line.known for line in lines):
        return None
    return Plot(
        name="goodput-by-load",
        title="Requests that met the SLO",
        how="Stays at 100 % while the server keeps up, then falls, often steeply.",
        x=_load_axis(result, points),
        y=Axis(_share_title(names), Linear(0.0, 1.0), share),
        lines=lines,
        marks=load_marks(result),
        legend=len(names) > 1,
    )


def _share_title(slos: Sequence[str]) -> str:
    """One SLO has no legend, so the axis names it."""
    return f"share that met {slos[0]}" if len(slos) == 1 else "share of requests"


def _share_of(point: Part, slo: str) -> float | None:
    for goodput in point.parts("goodput"):
        if goodput.text("slo") == slo:
            return goodput.number("share")
    return None


def _tokens(result: Part, points: Sequence[tuple[float, Part]]) -> Plot | None:
    made = [(x, p.number("rates", "completion_tokens_per_second")) for x, p in points]
    line = Line("new tokens", made, 1, dots=True)
    if not line.known:
        return None
    return Plot(
        name="tokens-by-load",
        title="Tokens",
        how="The server's own ceiling, whatever the length of the answers.",
        x=_load_axis(result, points),
        y=Axis("tokens per second", from_zero(y for _, y in line.known), amount),
        lines=[line],
        marks=load_marks(result),
        legend=False,
    )


def load_marks(result: Part) -> list[Mark]:
    """The knee, and the most load that met the SLO."""
    unit = "/s" if result.text("sweep", "variable") == "rate" else " at once"
    marks = []
    for name, words in (("knee", "knee"), ("best", "SLO met to")):
        value = result.number("sweep", name, "value")
        if value is not None:
            marks.append(Mark(value, f"{words} {amount(value)}{unit}"))
    return marks


def _load_axis(result: Part, points: Sequence[tuple[float, Part]]) -> Axis:
    variable = result.text("sweep", "variable")
    return Axis(NAMES.get(variable, variable or "load"), from_zero([points[-1][0]]), amount)
