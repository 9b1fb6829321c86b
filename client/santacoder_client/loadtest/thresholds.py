"""What `--fail-on` demands of a run, `ttft.p99<80ms`, and whether it holds.

A demand on a value that the run does not have is missed: a test that measured nothing must not
pass. With several SLOs, `goodput` is that of the one that fared worst. `errors.share` is of the
requests that ended by themselves, `unsent.share` of all that were due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from santacoder_client.loadtest.comparison import (
    Comparison,
    complaint,
    milliseconds,
    parse_comparison,
    plain_number,
    share,
)
from santacoder_client.loadtest.metrics import METRICS
from santacoder_client.loadtest.percentiles import QUANTILES
from santacoder_client.loadtest.result import Rates, Summary, ThresholdResult
from santacoder_client.loadtest.slo import Slo

FLAG = "--fail-on"
TIMES = (*QUANTILES, "mean", "stdev", "min", "max")
SHARES = ("errors.share", "unsent.share", "goodput.share", "cached_share")
NUMBERS = (
    "errors.count",
    "unsent.count",
    "goodput.per_second",
    *(f"rates.{name}" for name in Rates.__slots__),
)
ALLOWED = f"{'|'.join(METRICS)} . {'|'.join(TIMES)}|count, {', '.join((*SHARES, *NUMBERS))}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One demand."""

    comparison: Comparison
    bound: float
    """In milliseconds for a time, from 0 to 1 for a share."""


def parse_thresholds(texts: Sequence[str], slos: Sequence[Slo]) -> tuple[Threshold, ...]:
    """The demands of a command line. Raises UsageError."""
    return tuple(_parse(text, slos) for text in texts)


def judge_thresholds(
    thresholds: Sequence[Threshold], summary: Summary
) -> tuple[ThresholdResult, ...]:
    """Whether each holds; a value is in the unit of its bound."""
    return tuple(_judge(threshold, summary) for threshold in thresholds)


def _parse(text: str, slos: Sequence[Slo]) -> Threshold:
    comparison = parse_comparison(FLAG, text)
    name = comparison.name
    metric, _, statistic = name.partition(".")
    if metric in METRICS and statistic in TIMES:
        return Threshold(comparison, milliseconds(FLAG, comparison))
    if name in NUMBERS or (metric in METRICS and statistic == "count"):
        bound = plain_number(FLAG, comparison)
    elif name in SHARES:
        bound = share(FLAG, comparison)
    else:
        raise complaint(FLAG, "unknown metric", name, ALLOWED)
    if metric == "goodput" and not slos:
        raise complaint(FLAG, "goodput of what", comparison.text, "it beside --slo")
    return Threshold(comparison, bound)


def _judge(threshold: Threshold, summary: Summary) -> ThresholdResult:
    comparison = threshold.comparison
    value = _value(comparison.name, summary)
    passed = value is not None and comparison.holds_for(value, threshold.bound)
    return ThresholdResult(comparison.text, value, passed)


def _value(name: str, summary: Summary) -> float | None:
    metric, _, statistic = name.partition(".")
    if metric in METRICS:
        return _of_figure(metric, statistic, summary)
    if metric == "rates":
        rate: float | None = getattr(summary.rates, statistic)
        return rate
    if metric == "goodput":
        known = [
            value for each in summary.goodput if (value := getattr(each, statistic)) is not None
        ]
        return min(known, default=None)
    if metric == "cached_share":
        return summary.cached_share
    return _of_outcomes(metric, statistic, summary)


def _of_figure(metric: str, statistic: str, summary: Summary) -> float | None:
    figure = summary.figures.get(metric)
    if statistic == "count":
        return figure.count if figure is not None else 0
    if figure is None:
        return None
    if statistic in QUANTILES:
        return figure.percentiles[statistic].value
    value: float | None = getattr(figure, statistic)
    return value


def _of_outcomes(metric: str, statistic: str, summary: Summary) -> float | None:
    outcomes = summary.outcomes
    ended = outcomes.ok + outcomes.failed
    due = ended + outcomes.cancelled + outcomes.superseded + outcomes.unsent
    count, of = (outcomes.failed, ended) if metric == "errors" else (outcomes.unsent, due)
    if statistic == "count":
        return count
    return count / of if of else None
