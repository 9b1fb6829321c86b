"""What two results have in common that can be compared, and what makes them hard to compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from santacoder_client.loadtest.bootstrap import Sample, percentile_change
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.metrics import METRICS
from santacoder_client.loadtest.percentiles import BATCH_COUNT, QUANTILES, share_effect
from santacoder_client.loadtest.result import Figure, PointResult, Result
from santacoder_client.loadtest.significance import (
    Change,
    Estimate,
    Unit,
    change_between,
    mean_estimate,
    share_estimate,
)

COMPARED = tuple(name for name in METRICS if name != "dispatch_delay")
"""How late this client was is no merit of the server."""
PERCENTILES = ("p50", "p90", "p99")
PASSING = ("load_average", "git_revision")
"""Parts of the environment that always differ, or are why one compares."""
SHOWN_CHARACTERS = 40

Samples = Mapping[str, Sample]


def changes_between(
    before: Result, after: Result, samples: tuple[Samples, Samples] | None = None
) -> tuple[Change, ...]:
    """Every change that can be estimated; `samples` are every request's values, where known."""
    if (before.sweep is None) != (after.sweep is None):
        raise UsageError("compare: one is a sweep; got the other; allowed two of a kind")
    if before.sweep is None or after.sweep is None:
        return (
            *_latencies(before.figures, after.figures, samples),
            *_errors(before, after),
            *_goodputs(before, after, _goodput_effects(before, after, samples)),
            *_rates(before, after),
        )
    later = {point.value: point.result for point in after.sweep.points}
    word = before.sweep.variable
    return tuple(
        change
        for point in before.sweep.points
        if point.value in later
        for change in _of_point(f"{word} {point.value:g}: ", point.result, later[point.value])
    )


def _of_point(prefix: str, before: PointResult, after: PointResult) -> Iterator[Change]:
    yield from _latencies(before.figures, after.figures, None, prefix)
    # Of a point there is no timeline: how its failures came together is not known.
    yield from _pair(f"{prefix}errors.share", "share", False, _failed(before), _failed(after))
    yield from _goodputs(before, after, {}, prefix)


def _latencies(
    before: Mapping[str, Figure],
    after: Mapping[str, Figure],
    samples: tuple[Samples, Samples] | None,
    prefix: str = "",
) -> Iterator[Change]:
    for metric in COMPARED:
        if metric not in before or metric not in after:
            continue
        for at in PERCENTILES:
            name = f"{prefix}{metric}.{at}"
            drawn = None
            if samples is not None and all(metric in each for each in samples):
                early, late = (each[metric] for each in samples)
                drawn = percentile_change(name, early, late, QUANTILES[at])
            change = drawn or _by_intervals(name, before[metric], after[metric], at)
            if change is not None:
                yield change


def _by_intervals(name: str, before: Figure, after: Figure, at: str) -> Change | None:
    early, late = before.percentiles.get(at), after.percentiles.get(at)
    if early is None or late is None or early.value is None or late.value is None:
        return None
    return change_between(
        name,
        "ms",
        False,
        Estimate(early.value, early.low, early.high),
        Estimate(late.value, late.low, late.high),
    )


def _errors(before: Result, after: Result) -> Iterator[Change]:
    effects = []
    for each in (before, after):
        failed, finished = _stretches(each, "failed"), _stretches(each, "finished")
        effects.append(_share_effect(failed, finished))
    # What failed together once would have done so the other time, had it failed.
    effect = max(effects)
    yield from _pair(
        "errors.share", "share", False, _failed(before, effect), _failed(after, effect)
    )


def _failed(each: Result | PointResult, effect: float = 1.0) -> Estimate | None:
    outcomes = each.outcomes
    return share_estimate(outcomes.failed, outcomes.ok + outcomes.failed, effect)


def _share_effect(failed: list[float], finished: list[float]) -> float:
    counts = np.array(failed)
    return share_effect(counts, counts + np.array(finished))


def _goodput_effects(
    before: Result, after: Result, samples: tuple[Samples, Samples] | None
) -> dict[str, float]:
    """By SLO, how many requests weigh no more than one that is independent."""
    effects = {}
    for slo in {each.slo for each in before.goodput}:
        name = goodput_name(slo)
        if samples is not None and all(name in each for each in samples):
            effects[slo] = max(_sample_effect(each[name]) for each in samples)
        else:
            # Unknown; at the worst, those of one second all share its fate.
            seconds = [max(1.0, each.window.end - each.window.begin) for each in (before, after)]
            due = [_due(each) for each in (before, after)]
            effects[slo] = max(1.0, *(d / s for d, s in zip(due, seconds, strict=True)))
    return effects


def goodput_name(slo: str) -> str:
    """What the goodput of an SLO is called."""
    return f"goodput {slo}"


def _sample_effect(sample: Sample) -> float:
    totals = np.bincount(sample.batches, minlength=1)
    return share_effect(np.bincount(sample.batches, sample.values, len(totals)), totals)


def _due(each: Result | PointResult) -> int:
    return each.outcomes.ok + each.outcomes.failed + each.outcomes.unsent


def _goodputs(
    before: Result | PointResult,
    after: Result | PointResult,
    effects: Mapping[str, float],
    prefix: str = "",
) -> Iterator[Change]:
    known = {each.slo: each.share for each in after.goodput}
    for each in before.goodput:
        share = known.get(each.slo)
        if each.share is not None and share is not None:
            shares, effect = (each.share, share), effects.get(each.slo, 1.0)
            estimates = [
                share_estimate(value * due, due, effect)
                for value, due in zip(shares, (_due(before), _due(after)), strict=True)
            ]
            yield from _pair(f"{prefix}{goodput_name(each.slo)}", "share", True, *estimates)


def _rates(before: Result, after: Result) -> Iterator[Change]:
    for name, field in (("finished", "finished"), ("completion_tokens", "completion_tokens")):
        estimates = [mean_estimate(_stretches(each, field)) for each in (before, after)]
        yield from _pair(f"rates.{name}_per_second", "1/s", True, *estimates)


def _stretches(result: Result, field: str) -> list[float]:
    """Means over equal stretches of the window, from its whole seconds."""
    begin, end = math.ceil(result.window.begin), math.floor(result.window.end)
    values = [
        float(getattr(each, field)) for each in result.timeline if begin <= each.at_seconds < end
    ]
    # A run that had gone silent has no bins at its end; those seconds were nothing.
    values += [0.0] * (max(0, end - begin) - len(values))
    size = max(1, len(values) // BATCH_COUNT)
    whole = len(values) - len(values) % size
    return [math.fsum(values[at : at + size]) / size for at in range(0, whole, size)]


def _pair(
    name: str,
    unit: Unit,
    higher_is_better: bool,
    before: Estimate | None,
    after: Estimate | None,
) -> Iterator[Change]:
    if before is not None and after is not None:
        yield change_between(name, unit, higher_is_better, before, after)


def warnings_between(before: Result, after: Result) -> list[str]:
    """A line for everything but the server that differs, or that spoils a measurement."""
    lines = []
    if before.data.sha256 != after.data.sha256:
        names = f"{before.data.name} {before.data.sha256[:12]}", after.data.sha256[:12]
        lines.append(_differ("data", names[0], f"{after.data.name} {names[1]}"))
    lines += _unlike("load", before.load, after.load)
    windows = [f"{each.window.end - each.window.begin:g} s" for each in (before, after)]
    if windows[0] != windows[1]:
        lines.append(_differ("window", *windows))
    ways = [
        ", ".join(f"{t.mode}{' TLS' * t.tls}" for t in each.targets) for each in (before, after)
    ]
    if ways[0] != ways[1]:
        lines.append(_differ("targets", *ways))
    lines += _unlike("environment", before.environment, after.environment)
    for name, each in (("before", before), ("after", after)):
        if each.interrupted:
            lines.append(f"{name}: interrupted before its end")
        if each.client.verdict == "client":
            lines.append(f"{name}: the load tester was the limit, not the server")
    return lines


def _unlike(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *after} - set(PASSING)):
        if before.get(key) != after.get(key):
            yield _differ(f"{name}.{key}", before.get(key), after.get(key))


def _differ(name: str, before: object, after: object) -> str:
    early, late = (str(value)[:SHOWN_CHARACTERS] for value in (before, after))
    return f"{name} differs: {early} before, {late} after"
