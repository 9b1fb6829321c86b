"""What a run found, as it is kept: the JSON schema `santacoder-load/1`.

The fields here are the schema: JSON has the same names. `result_file.py` reads and writes them.
Times in figures and histograms are milliseconds, moments are seconds on the run's clock. Where a
name would change its meaning, the schema's number grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from santacoder_client.loadtest.schema import AtLeast
from santacoder_client.loadtest.window import Window

SCHEMA: Final = "santacoder-load/1"

Count = Annotated[int, AtLeast(0)]
Amount = Annotated[float, AtLeast(0)]
Share = Annotated[float, AtLeast(0, 1)]


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile with its 95 % interval; None is what the sample is too small to say."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """How one latency is distributed; `metrics.py` defines each. `stdev` needs two values."""

    unit: Literal["ms"]
    count: Count
    mean: float
    stdev: Amount | None
    min: float
    max: float
    percentiles: dict[str, Percentile]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Requests that were due in the window, by how they ended."""

    ok: Count = 0
    failed: Count = 0
    cancelled: Count = 0
    superseded: Count = 0
    unsent: Count = 0


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Failures with the same gRPC status and reason, and the message of the first."""

    status: str
    reason: str
    count: Count
    example: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second of the window, as `figures.py` defines them; None if it has no length."""

    offered_per_second: Amount | None
    dispatched_per_second: Amount | None
    finished_per_second: Amount | None
    completion_tokens_per_second: Amount | None
    peak_completion_tokens_per_second: Amount | None
    prompt_tokens_per_second: Amount | None


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met an SLO; failed and unsent ones missed it. None if nothing was due."""

    slo: str
    per_second: Amount | None
    share: Share | None


@dataclass(frozen=True, slots=True)
class TimelineBin:
    """One second of the run, warm-up and cool-down included. `in_flight` is the most at once."""

    at_seconds: Amount
    dispatched: Count
    finished: Count
    failed: Count
    completion_tokens: Count
    in_flight: Count
    ttft_p50_ms: float | None
    """As p99 and e2e: of the requests sent in this second, for a stall shows where it hurt."""
    ttft_p99_ms: float | None
    e2e_p50_ms: float | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges: one edge more than counts."""

    edges_ms: tuple[float, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """All that the records of a run say. A metric without a sample has no figure."""

    outcomes: Outcomes
    errors: tuple[ErrorCount, ...]
    figures: dict[str, Figure]
    rates: Rates
    cached_share: Share | None
    goodput: tuple[Goodput, ...]
    timeline: tuple[TimelineBin, ...]
    histograms: dict[str, Histogram]


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """One service that was loaded, and what GetModel said, if it was asked."""

    address: str
    mode: Literal["router", "shard"]
    tls: bool
    model: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class DataInfo:
    """Which prompts were sent."""

    name: str
    sha256: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClientVerdict:
    """Who was the limit, and how that is known."""

    verdict: Literal["server", "client", "neither"]
    reasons: tuple[str, ...]
    cpu_share: Amount | None
    loop_lag_p99_ms: float | None
    dispatch_delay_p99_ms: float | None
    workers: Count


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """A server's own series around a run."""

    target: str
    before: dict[str, float]
    after: dict[str, float]
    delta: dict[str, float]


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """One `--fail-on` expression; without a value it is not passed."""

    expression: str
    value: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class PointResult:
    """What one load of a sweep gave."""

    figures: dict[str, Figure]
    rates: Rates
    outcomes: Outcomes
    goodput: tuple[Goodput, ...]
    client: ClientVerdict


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One load that a sweep tried."""

    value: Amount
    result: PointResult


@dataclass(frozen=True, slots=True)
class Knee:
    """The load past which more load brings waiting instead of answers."""

    value: Amount
    finished_per_second: Amount
    method: str


@dataclass(frozen=True, slots=True)
class Best:
    """The highest load that met the SLO, and the lowest above it that was seen to miss it."""

    value: Amount
    slo: str
    share: Share
    missed_at: Amount | None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Every load that was tried, from the least to the most."""

    variable: Literal["rate", "concurrency"]
    points: tuple[SweepPoint, ...]
    knee: Knee | None
    best: Best | None


@dataclass(frozen=True, slots=True)
class Result:
    """The whole. Of a sweep, load and summary are those of the point that it recommends."""

    schema: Literal["santacoder-load/1"]
    tool_version: str
    verb: Literal["run", "sweep", "replay"]
    command: tuple[str, ...]
    started_at: str
    interrupted: bool
    environment: dict[str, Any]
    targets: tuple[TargetInfo, ...]
    data: DataInfo
    load: dict[str, Any]
    window: Window
    outcomes: Outcomes
    errors: tuple[ErrorCount, ...]
    figures: dict[str, Figure]
    rates: Rates
    cached_share: Share | None
    goodput: tuple[Goodput, ...]
    client: ClientVerdict
    server_metrics: tuple[ServerMetrics, ...]
    timeline: tuple[TimelineBin, ...]
    histograms: dict[str, Histogram]
    thresholds: tuple[ThresholdResult, ...]
    sweep: SweepResult | None
