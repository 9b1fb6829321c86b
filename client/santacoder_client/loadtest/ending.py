"""What is made of a measurement: the result, its files, its table, the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from santacoder_client.loadtest.environment import environment
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.measure import Measured, Ready
from santacoder_client.loadtest.outputs import Outputs
from santacoder_client.loadtest.record import Outcome
from santacoder_client.loadtest.result import SCHEMA, Result, Summary
from santacoder_client.loadtest.slo import Slo, parse_slos
from santacoder_client.loadtest.table import show_table
from santacoder_client.loadtest.thresholds import Threshold, judge_thresholds, parse_thresholds

INTERRUPTED, FAILED, MISSED = 130, 1, 6


@dataclass(frozen=True, slots=True)
class Judging:
    """What the result is held against."""

    slos: tuple[Slo, ...]
    thresholds: tuple[Threshold, ...]


def add_judging_arguments(parser: argparse.ArgumentParser) -> None:
    """What the result is held against."""
    group = parser.add_argument_group("judging")
    group.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="SLO",
        help="'ttft<100ms,e2e<2s': tell how many requests met it; may be given several times",
    )
    group.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="DEMAND",
        help="'ttft.p99<80ms': exit status 6 if it does not hold; may be given several times",
    )


def judging_of(arguments: argparse.Namespace) -> Judging:
    """The SLOs and thresholds. Raises UsageError."""
    slos = parse_slos(arguments.slo)
    return Judging(slos, parse_thresholds(arguments.fail_on, slos))


def result_of(
    verb: Literal["run", "replay", "sweep"],
    arguments: argparse.Namespace,
    ready: Ready,
    measured: Measured,
    judging: Judging,
    summary: Summary | None = None,
) -> Result:
    """The result of one measurement; its summary is made here, where it is not given."""
    if summary is None:
        summary = summarize(measured.records, measured.window, judging.slos)
    return Result(
        schema=SCHEMA,
        tool_version=tool_version(),
        verb=verb,
        command=("santacoder-load", *arguments.command),
        started_at=measured.started_at,
        interrupted=measured.interrupted,
        environment=environment(),
        targets=ready.targets,
        data=ready.data,
        load=measured.load.described(),
        window=measured.window,
        outcomes=summary.outcomes,
        errors=summary.errors,
        figures=summary.figures,
        rates=summary.rates,
        cached_share=summary.cached_share,
        goodput=summary.goodput,
        client=measured.client,
        server_metrics=measured.server_metrics,
        timeline=summary.timeline,
        histograms=summary.histograms,
        thresholds=judge_thresholds(judging.thresholds, summary),
        sweep=None,
    )


def finish(result: Result, measured: Measured, outputs: Outputs) -> int:
    """Saves everything, shows the table, says what went wrong; returns the exit status."""
    failures = [*outputs.save(result, measured.records), *measured.failures]
    failures += show(result)
    for line in measured.warnings:
        sys.stderr.write(f"warning: {line}\n")
    if not any(record.outcome is Outcome.OK for record in measured.records):
        failures.append(nothing_answered(result))
    return close(failures, result)


def show(result: Result) -> list[str]:
    """The table on standard output; a line if it could not be written."""
    try:
        show_table(result, sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return [f"standard output: {error.strerror}"]
        # Whoever read has seen enough; the exit status is still for whoever asks.
    return []


def close(failures: Sequence[str], result: Result) -> int:
    """The lines on standard error, and the exit status: what was broken off counts most."""
    for line in failures:
        sys.stderr.write(f"error: {line}\n")
    missed = [each for each in result.thresholds if not each.passed]
    for each in missed:
        got = "nothing to judge" if each.value is None else f"{each.value:g}"
        sys.stderr.write(f"error: --fail-on: missed; got {got}; allowed {each.expression}\n")
    if result.interrupted:
        return INTERRUPTED
    if failures:
        return FAILED
    return MISSED if missed else 0


def tool_version() -> str:
    """This distribution's version."""
    try:
        return version("santacoder-serving")
    except PackageNotFoundError:
        return "unknown"


def nothing_answered(result: Result) -> str:
    """What to say where there is no answer at all."""
    if not result.errors:
        return "no request was answered"
    worst = max(result.errors, key=lambda error: error.count)
    reason = f" {worst.reason}" if worst.reason else ""
    how = f"{worst.count} failed with {worst.status}{reason}: {worst.example}"
    return f"no request was answered; {how}"
