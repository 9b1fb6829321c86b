"""A sweep: one measurement after another, each at the load that the search asks for.

Every load meets a server that has not seen its prompts: a salt of its own keeps it from the cache
that the one before has filled. What was measured is kept, however the sweep ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from santacoder_client.loadtest.errors import LoadTestError
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.knee import METHOD, Search, Seen, best_of, knee_of
from santacoder_client.loadtest.live import LiveView
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.measure import Measured, Ready, measure
from santacoder_client.loadtest.result import (
    Best,
    Knee,
    PointResult,
    Summary,
    SweepPoint,
    SweepResult,
)
from santacoder_client.loadtest.slo import Slo

SALT_OPTION = "cache_salt"


@dataclass(frozen=True, slots=True)
class Tried:
    """One load of a sweep, without its records."""

    seen: Seen
    measured: Measured
    summary: Summary


@dataclass(slots=True)
class Swept:
    """All loads that were tried, in the order of trial, and how it ended."""

    search: Search
    tried: list[Tried] = field(default_factory=list)
    interrupted: bool = False
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def seen(self) -> list[Seen]:
        """What the search looks at."""
        return [each.seen for each in self.tried]

    def recommended(self) -> Tried:
        """The load that met the SLO best, else the knee, else the least."""
        best, knee = best_of(self.seen), knee_of(self.search.variable, self.seen)
        chosen = best[0] if best is not None else knee
        by_load = sorted(self.tried, key=lambda each: each.seen.load)
        return next((each for each in by_load if each.seen == chosen), by_load[0])


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried and how it is judged."""

    search: Search
    load_at: Callable[[float], Load]
    slos: tuple[Slo, ...]
    share: float
    """Part of the requests that must meet an SLO, for the load to meet it."""
    worker_count: int
    quiet: bool


def carry_out_sweep(ready: Ready, sweep: Sweep) -> Swept:
    """Measures load after load. Raises LoadTestError only if nothing was measured."""
    swept = Swept(sweep.search)
    while (value := sweep.search.next_load(swept.seen)) is not None:
        try:
            measured = _measure(ready, sweep, value, len(swept.tried))
        except (LoadTestError, KeyboardInterrupt) as error:
            if not swept.tried:
                raise
            swept.interrupted = isinstance(error, KeyboardInterrupt)
            swept.failures += [str(error)] if isinstance(error, LoadTestError) else []
            break
        _take(swept, sweep, value, measured)
        if swept.interrupted or swept.failures:
            break
    return swept


def sweep_result(swept: Swept, sweep: Sweep) -> SweepResult:
    """What the sweep says, its points by load."""
    variable = swept.search.variable
    knee, best = knee_of(variable, swept.seen), best_of(swept.seen)
    ordered = sorted(swept.tried, key=lambda each: each.seen.load)
    return SweepResult(
        variable=variable,
        points=tuple(SweepPoint(each.seen.load, _point(each)) for each in ordered),
        knee=Knee(knee.load, knee.finished_per_second, METHOD) if knee is not None else None,
        best=_best(sweep.slos, ordered, *best) if best is not None else None,
    )


def seen_of(load: float, measured: Measured, summary: Summary, sweep: Sweep) -> Seen:
    """What the search is told of a measurement."""
    window = measured.window
    under_way = [
        each.in_flight for each in summary.timeline if window.begin <= each.at_seconds < window.end
    ]
    return Seen(
        load=load,
        offered_per_second=summary.rates.offered_per_second or 0.0,
        finished_per_second=summary.rates.finished_per_second or 0.0,
        seconds=max(window.seconds, 1e-9),
        in_flight_mean=fmean(under_way) if under_way else 0.0,
        met_slo=_share(summary) >= sweep.share if sweep.slos else None,
        client_limited=measured.client.verdict == "client",
    )


def _measure(ready: Ready, sweep: Sweep, value: float, number: int) -> Measured:
    plan, load = ready.plan, sweep.load_at(value)
    options = {SALT_OPTION: f"{plan.wishes.run_id}-{number}", **plan.wishes.options}
    wishes = replace(plan.wishes, options=options, run_id=f"{plan.wishes.run_id}-{number}")
    of_point = replace(ready, plan=replace(plan, wishes=wishes))
    workers = min(sweep.worker_count, load.concurrency or sweep.worker_count)
    watcher = LiveView(sys.stderr, sweep.quiet, f"{sweep.search.variable} {value:g}")
    return asyncio.run(measure(of_point, load, workers, watcher))


def _take(swept: Swept, sweep: Sweep, value: float, measured: Measured) -> None:
    """Adds a measurement; its records are let go, for a sweep has many."""
    summary = summarize(measured.records, measured.window, sweep.slos)
    swept.interrupted = measured.interrupted
    swept.failures += measured.failures
    swept.warnings += measured.warnings
    # Half a measurement has its place only where there is no whole one.
    if not (measured.interrupted or measured.failures) or not swept.tried:
        seen = seen_of(value, measured, summary, sweep)
        swept.tried.append(Tried(seen, replace(measured, records=[]), summary))
        if seen.client_limited:
            load = f"{swept.search.variable} {value:g}"
            swept.warnings.append(f"{load}: the load tester was the limit, not the server")


def _share(summary: Summary) -> float:
    """Of the SLO that fared worst; nothing measured met nothing."""
    return min((each.share or 0.0 for each in summary.goodput), default=0.0)


def _point(tried: Tried) -> PointResult:
    summary = tried.summary
    return PointResult(
        figures=summary.figures,
        rates=summary.rates,
        outcomes=summary.outcomes,
        goodput=summary.goodput,
        client=tried.measured.client,
    )


def _best(slos: Sequence[Slo], tried: Sequence[Tried], low: Seen, high: Seen | None) -> Best:
    share = next(_share(each.summary) for each in tried if each.seen == low)
    texts = " and ".join(slo.text for slo in slos)
    return Best(low.load, texts, share, high.load if high is not None else None)
