"""Charts of how latencies spread: histograms, and percentiles with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from santacoder_client.loadtest.page.plot import Axis, Bar, Bars, Line, Mark, Plot
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.scale import Linear, Tail, for_times, from_zero, spread
from santacoder_client.loadtest.wording import count, duration

HISTOGRAMS = {
    "ttft": ("Time to first token", "One hump is one way of being served; a second is a queue."),
    "e2e": ("Time to the whole answer", "As wide as the answers differ in length."),
    "itl_token": ("Time between tokens", "The server's step time; a far hump is its stalls."),
}
CURVES = {
    "ttft_scheduled": ("first token, from when it was due", 2),
    "ttft": ("first token, from when it was sent", 1),
    "e2e_scheduled": ("whole answer, from when it was due", 4),
    "e2e": ("whole answer, from when it was sent", 3),
}
BAR_COUNT_MAX = 80


def distribution_plots(result: Part) -> list[Plot]:
    """The charts for which the result has values."""
    plots = [percentile_plot(result)]
    plots += [_histogram(result, metric) for metric in HISTOGRAMS]
    return [plot for plot in plots if plot is not None]


def percentile_plot(result: Part) -> Plot | None:
    """Latency up to each percentile, as seen by a user who keeps time by the schedule and not."""
    figures = result.at("figures")
    lines = [
        Line(name, list(points), style, dots=True, intervals=list(_intervals(figures, metric)))
        for metric, (name, style) in CURVES.items()
        if (points := list(_percentiles(figures, metric)))
    ]
    if not lines:
        return None
    scale = for_times(y for line in lines for _, y in line.known)
    percentiles = sorted({x for line in lines for x, _ in line.known})
    rising = "" if isinstance(scale, Linear) else " (log scale)"
    return Plot(
        name="percentiles",
        title="Latency by percentile",
        how='p99: one request in 100 took longer. Where "from when it was due" lies higher,'
        " requests were sent late. Upright bars are 95 % intervals.",
        x=Axis("percentile", Tail(percentiles), lambda value: f"p{value:g}"),
        y=Axis(f"time{rising}", scale, duration),
        lines=lines,
        wide=True,
    )


def _percentiles(figures: Part, metric: str) -> Iterator[tuple[float, float]]:
    found = []
    for name, part in figures.items(metric, "percentiles"):
        value = part.number("value")
        if value is not None and (percentile := _percentile(name)) is not None:
            found.append((percentile, value))
    yield from sorted(found)


def _intervals(figures: Part, metric: str) -> Iterator[tuple[float, float, float]]:
    for name, part in figures.items(metric, "percentiles"):
        low, high, percentile = part.number("low"), part.number("high"), _percentile(name)
        if low is not None and high is not None and percentile is not None:
            yield percentile, low, high


def _percentile(name: str) -> float | None:
    try:
        value = float(name.removeprefix("p"))
    except ValueError:
        return None
    return value if 0 <= value < 100 else None


def _histogram(result: Part, metric: str) -> Plot | None:
    title, how = HISTOGRAMS[metric]
    bars = _bars(result.at("histograms", metric))
    if not bars:
        return None
    scale = spread([bars[0].begin, bars[-1].end])
    return Plot(
        name=f"{metric.replace('_', '-')}-histogram",
        title=title,
        how=f"How many took how long. {how}",
        x=Axis("time (log scale)", scale, duration),
        y=Axis("number", from_zero((bar.height for bar in bars), high=5.0), count),
        bars=[Bars("number", bars, 1)],
        marks=_marks(result, metric),
        legend=False,
    )


def _bars(histogram: Part) -> list[Bar]:
    """The filled part of a histogram; neighbours are joined where there are too many."""
    edges = [part.number() for part in histogram.parts("edges_ms")]
    counts = [part.number() or 0.0 for part in histogram.parts("counts")]
    if len(edges) != len(counts) + 1 or not any(counts):
        return []
    bars = [
        # A logarithmic axis has no place for 0: the first bar begins where it can be seen.
        Bar(begin if begin > 0 else end / 2, end, height)
        for begin, end, height in zip(edges, edges[1:], counts, strict=False)
        if begin is not None and end is not None and end > max(begin, 0.0)
    ]
    filled = [place for place, bar in enumerate(bars) if bar.height > 0]
    return _joined(bars[filled[0] : filled[-1] + 1]) if filled else []


def _joined(bars: Sequence[Bar]) -> list[Bar]:
    size = -(-len(bars) // BAR_COUNT_MAX)
    groups = [bars[start : start + size] for start in range(0, len(bars), size)]
    return [Bar(g[0].begin, g[-1].end, sum(bar.height for bar in g)) for g in groups]


def _marks(result: Part, metric: str) -> list[Mark]:
    marks = []
    for name in ("p50", "p90", "p99"):
        value = result.number("figures", metric, "percentiles", name, "value")
        if value is not None and value > 0:
            marks.append(Mark(value, f"{name} {duration(value)}"))
    return marks
