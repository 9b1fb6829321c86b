"""Results as real runs would leave them, for tests that read them. Made by formulas."""

from __future__ import annotations

import math

from santacoder_client.loadtest.result import (
    SCHEMA,
    Best,
    ClientVerdict,
    DataInfo,
    ErrorCount,
    Figure,
    Goodput,
    Histogram,
    Knee,
    Outcomes,
    Percentile,
    PointResult,
    Rates,
    Result,
    ServerMetrics,
    SweepPoint,
    SweepResult,
    TargetInfo,
    ThresholdResult,
    TimelineBin,
)
from santacoder_client.loadtest.window import Window

SLO = "ttft<100ms,e2e<2s"
SERVER = ClientVerdict("server", ("the server's queue grew to 41 requests",), 0.31, 1.2, 0.8, 2)
NEITHER = ClientVerdict("neither", (), 0.22, 0.9, 0.4, 2)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def example_run(scale: float = 1.0) -> Result:
    """A Poisson run of 30 s with a stall in it; `scale` makes the server slower."""
    return Result(
        schema=SCHEMA,
        tool_version="0.1.0",
        verb="run",
        command=("run", "--target", "127.0.0.1:50051", "--rate", "40", "--slo", SLO),
        started_at="2026-11-24T00:30:00Z",
        interrupted=False,
        environment={"python": "3.11.7", "platform": "Linux", "cpu": "Zen 4", "cpu_count": 2}
        | {"grpc": "1.76.0", "git_revision": None},
        targets=(TargetInfo("127.0.0.1:50051", "router", False, {"name": "demo", "layers": 4}),),
        data=DataInfo("fim", "ab" * 32, {"path": "src", "seed": 1}),
        load={"model": "poisson", "per_second": 40.0, "spacing": "poisson", "seed": 1},
        window=Window(5.0, 30.0, 2.0, 5.0, 35.0),
        outcomes=Outcomes(ok=1176, failed=14, cancelled=3, superseded=5, unsent=2),
        errors=(
            ErrorCount("RESOURCE_EXHAUSTED", "QUEUE_FULL", 12, "the queue is full (512 requests)"),
            ErrorCount("UNAVAILABLE", "SHARD_LOST", 2, "the shard group ended"),
        ),
        figures=_figures(scale),
        rates=_rates(40.0, 39.2),
        cached_share=0.37,
        goodput=(Goodput(SLO, 36.9, 0.928), Goodput("ttft<50ms", 30.1, 0.757)),
        client=SERVER,
        server_metrics=(_server_metrics(),),
        timeline=tuple(_bin(second, scale) for second in range(37)),
        histograms={name: _histogram(scale * at) for name, at in HISTOGRAMS.items()},
        thresholds=(
            ThresholdResult("ttft.p99<200ms", 93.2 * scale, 93.2 * scale < 200),
            ThresholdResult("errors.share<1%", 0.0118, False),
        ),
        sweep=None,
    )


def example_sweep() -> Result:
    """A sweep over rates of a server that can do 50 a second."""
    run = example_run()
    rates = (1.0, 8.0, 16.0, 32.0, 44.0, 48.0, 56.0, 64.0)
    points = tuple(SweepPoint(rate, _point(rate)) for rate in rates)
    values = {name: getattr(run, name) for name in Result.__slots__}
    values["verb"] = "sweep"
    values["sweep"] = SweepResult(
        "rate", points, Knee(48.0, 47.8, "largest distance"), Best(44.0, SLO, 0.994, 48.0)
    )
    return Result(**values)


METRICS = {
    "ttft": 24.0,
    "ttft_scheduled": 25.0,
    "second_token": 9.0,
    "itl_token": 7.5,
    "itl_chunk": 8.1,
    "tpot": 7.7,
    "e2e": 410.0,
    "e2e_scheduled": 411.0,
    "queue": 4.0,
    "dispatch_delay": 0.12,
    "cancel": 1.4,
}
HISTOGRAMS = {"ttft": 24.0, "e2e": 410.0, "itl_token": 7.5}


def _figures(scale: float) -> dict[str, Figure]:
    return {name: _figure(median * scale) for name, median in METRICS.items()}


def _figure(median: float) -> Figure:
    """A log-normal-like spread; too few samples for p99.9."""
    percentiles = {}
    for name, quantile in QUANTILES.items():
        value = median * math.exp(0.55 * math.log(quantile / (1 - quantile)) / 1.7)
        known = quantile < 0.999
        percentiles[name] = (
            Percentile(value, value * 0.95, value * 1.07) if known else Percentile(None, None, None)
        )
    return Figure("ms", 1176, median * 1.16, median * 0.7, median * 0.2, median * 7, percentiles)


def _rates(offered: float, finished: float) -> Rates:
    return Rates(offered, offered, finished, finished * 48, finished * 61, finished * 420)


def _server_metrics() -> ServerMetrics:
    before = {"santacoder_router_plans_total": 120.0, "santacoder_router_queued_requests": 0.0}
    after = {"santacoder_router_plans_total": 5120.0, "santacoder_router_queued_requests": 3.0}
    delta = {name: after[name] - before[name] for name in before}
    return ServerMetrics("127.0.0.1:9464", before, after, delta)


def _bin(second: int, scale: float) -> TimelineBin:
    stalled = second in (20, 21)
    slower = scale * (12.0 if stalled else 1.0 + 0.1 * math.sin(second))
    finished = 2 if stalled else 40
    latencies = (24.0 * slower, 90.0 * slower, 410.0 * slower) if second < 36 else (None,) * 3
    return TimelineBin(
        float(second), 40, finished, 7 * stalled, finished * 48, 70 if stalled else 18, *latencies
    )


def _histogram(middle: float) -> Histogram:
    edges = tuple(middle * 1.15**step for step in range(-12, 19))
    counts = tuple(round(160 * math.exp(-((step / 6) ** 2))) for step in range(-12, 18))
    return Histogram(edges, counts)


def _point(rate: float) -> PointResult:
    finished = min(rate, 50.0)
    slower = 1 / (1 - min(rate, 49.0) / 50) ** 0.5
    share = 1.0 if rate < 44 else 0.994 if rate < 48 else 0.4
    return PointResult(
        figures=_figures(slower),
        rates=_rates(rate, finished),
        outcomes=Outcomes(ok=round(finished * 30), failed=round(30 * (rate - finished))),
        goodput=(Goodput(SLO, finished * share, share),),
        client=SERVER if rate >= 48 else NEITHER,
    )
