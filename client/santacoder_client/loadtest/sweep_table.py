"""A sweep in one screen: every load that was tried, the knee, and the most that met the SLO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from santacoder_client.loadtest.grid import grid
from santacoder_client.loadtest.live import plain
from santacoder_client.loadtest.result import Figure, SweepPoint, SweepResult
from santacoder_client.loadtest.wording import amount, count, duration, share


def points_table(sweep: SweepResult, narrow: bool) -> Table:
    """A line for each load."""
    variable = "rate" if sweep.variable == "rate" else "at once"
    latencies = ("ttft p50", "ttft p99", "e2e p99")
    head = (variable, "answered/s", "tokens/s", *latencies, "met SLO", "failed", "limit")
    rows = [_point_row(point) for point in sweep.points]
    return grid(head, rows, wanted=(0, 1, 4, 6) if narrow else None)


def _point_row(point: SweepPoint) -> list[str]:
    found = point.result
    latencies = (("ttft", "p50"), ("ttft", "p99"), ("e2e", "p99"))
    return [
        amount(point.value),
        amount(found.rates.finished_per_second),
        amount(found.rates.completion_tokens_per_second),
        *(duration(_percentile(found.figures, name, at)) for name, at in latencies),
        share(min((each.share for each in found.goodput if each.share is not None), default=None)),
        count(found.outcomes.failed + found.outcomes.unsent),
        found.client.verdict,
    ]


def _percentile(figures: Mapping[str, Figure], name: str, at: str) -> float | None:
    return figures[name].percentiles[at].value if name in figures else None


def findings(sweep: SweepResult) -> Iterator[Text]:
    """What the sweep found, in words."""
    unit = "requests per second" if sweep.variable == "rate" else "requests at once"
    if sweep.knee is not None:
        served = amount(sweep.knee.finished_per_second)
        words = f"knee at {amount(sweep.knee.value)} {unit}: {served} answered a second"
        yield Text(plain(words), "bold")
    if sweep.best is not None:
        missed = sweep.best.missed_at
        more = (
            f"; {amount(missed)} missed it"
            if missed is not None
            else "; no higher load was seen to miss it"
        )
        words = f"{sweep.best.slo} held up to {amount(sweep.best.value)} {unit}{more}"
        yield Text(plain(words), "bold green")
