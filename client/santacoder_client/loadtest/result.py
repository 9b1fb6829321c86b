"""What a run found, as it is kept: the JSON schema `santacoder-load/1`.

The fields here are the schema: JSON has the same names. Reads and checks; computes nothing.
Times in figures and histograms are milliseconds, moments are seconds on the run's clock.
A later version may not change what a name means; then the schema's number grows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.schema import AtLeast, Mismatch, reader_of, to_json
from santacoder_client.loadtest.window import Window
from santacoder_client.loadtest.writers.files import write_whole

SCHEMA: Final = "santacoder-load/1"
FILE_BYTES_MAX = 256 * 2**20

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
    """How one latency is distributed. `figures.py` defines each metric."""

    unit: Literal["ms"]
    count: Count
    mean: float
    stdev: Amount | None
    """Of the sample (n - 1); None for a single value."""
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
    """Per second of the window; None if it has no length."""

    offered_per_second: Amount | None
    """Requests that fell due."""
    dispatched_per_second: Amount | None
    finished_per_second: Amount | None
    """Requests that were answered whole."""
    completion_tokens_per_second: Amount | None
    peak_completion_tokens_per_second: Amount | None
    """In the best whole second."""
    prompt_tokens_per_second: Amount | None
    """Of requests whose first token came."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met an SLO; failed and unsent ones missed it."""

    slo: str
    per_second: Amount | None
    share: Share | None
    """None if nothing was due."""


@dataclass(frozen=True, slots=True)
class TimelineBin:
    """One second of the run, warm-up and cool-down included."""

    at_seconds: Amount
    """Where it begins."""
    dispatched: Count
    finished: Count
    """Answered whole."""
    failed: Count
    completion_tokens: Count
    in_flight: Count
    """The most at once."""
    ttft_p50_ms: float | None
    """Of the requests sent in this second, as p99 and e2e: a stall shows where it hurt. Plain
    percentiles of what there is, for the eye; None if there is nothing."""
    ttft_p99_ms: float | None
    e2e_p50_ms: float | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges: one edge more than counts."""

    edges_ms: tuple[float, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """All that the records of a run say: what `figures.summarize` computes."""

    outcomes: Outcomes
    errors: tuple[ErrorCount, ...]
    figures: dict[str, Figure]
    """By metric; one without a sample is absent."""
    rates: Rates
    cached_share: Share | None
    goodput: tuple[Goodput, ...]
    timeline: tuple[TimelineBin, ...]
    histograms: dict[str, Histogram]


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """One service that was loaded."""

    address: str
    mode: Literal["router", "shard"]
    tls: bool
    model: dict[str, Any] | None
    """What GetModel said; None if it was not asked or did not say."""


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
    """The highest load that was seen to meet the SLO."""

    value: Amount
    slo: str
    share: Share
    missed_at: Amount | None
    """The lowest load above it that missed; None if none was tried."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """Every load that was tried, from the least to the most."""

    variable: Literal["rate", "concurrency"]
    points: tuple[SweepPoint, ...]
    knee: Knee | None
    best: Best | None


@dataclass(frozen=True, slots=True)
class Result:
    """The whole. Of a sweep, the summary is that of the point it recommends."""

    schema: Literal["santacoder-load/1"]
    tool_version: str
    verb: Literal["run", "sweep", "replay"]
    command: tuple[str, ...]
    started_at: str
    """ISO 8601, UTC."""
    interrupted: bool
    environment: dict[str, Any]
    targets: tuple[TargetInfo, ...]
    data: DataInfo
    load: dict[str, Any]
    """`Load.described()`: `model`, its options and `seed`."""
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


def to_text(result: Result) -> str:
    """The result as a JSON text, the same for the same result."""
    return json.dumps(to_json(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_text(text: str | bytes, name: str) -> Result:
    """The result in a JSON text. Raises UsageError, which names the file and the place."""
    try:
        value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError, Mismatch) as error:
        reason = str(error) if not isinstance(error, RecursionError) else "nested too deeply"
        raise UsageError(
            f"{name}: not a JSON result; got {reason}; allowed what santacoder-load wrote"
        ) from error
    try:
        result: Result = reader_of(Result)(_of_this_schema(value), "")
    except Mismatch as error:
        raise UsageError(f"{name}: {error}") from error
    return result


def load(path: str | Path) -> Result:
    """Reads a result file. Raises UsageError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"{path}: {reason}; got nothing; allowed a result's file") from error
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path}: too large; got more; allowed {FILE_BYTES_MAX} bytes")
    return from_text(content, str(path))


def save(result: Result, path: str | Path) -> None:
    """Writes a result file whole or not at all. Raises LoadTestError."""
    write_whole(path, to_text(result))


def _of_this_schema(value: object) -> object:
    """The same value, if it says that it has our schema: any other complaint would mislead."""
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise Mismatch(
            f"schema: not a result of this version; got {schema!r:.64}; allowed {SCHEMA!r}"
        )
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Mismatch("a name stands twice in an object")
    return value


def _no_constant(name: str) -> float:
    raise Mismatch(f"{name} is no JSON number")
