"""`santacoder-load compare`: two results, and which of their differences are more than noise."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from santacoder_client.loadtest.bootstrap import Sample
from santacoder_client.loadtest.columns import Columns
from santacoder_client.loadtest.differences import (
    Samples,
    changes_between,
    goodput_name,
    warnings_between,
)
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.figures import batches_of, samples_ms
from santacoder_client.loadtest.grid import fitted, grid
from santacoder_client.loadtest.live import plain
from santacoder_client.loadtest.record import Outcome
from santacoder_client.loadtest.result import Result
from santacoder_client.loadtest.result_file import load
from santacoder_client.loadtest.screen import bounded, text_of, wants_colours, width_of
from santacoder_client.loadtest.significance import (
    Change,
    Judged,
    Verdict,
    is_regression,
    judge,
)
from santacoder_client.loadtest.slo import met_and_counted, parse_slos
from santacoder_client.loadtest.values import percentage
from santacoder_client.loadtest.wording import ABSENT, amount, duration, share
from santacoder_client.loadtest.writers.requests import read_requests

REGRESSED = 6
PERCENT_MAX = 1000
STYLES: dict[Verdict, str] = {
    "better": "green",
    "worse": "bold red",
    "noise": "dim",
    "unknown": "dim",
}

_EXAMPLES = """\
A difference counts as more than noise if chance would show any such difference, over the whole
table, in less than one comparison of two equal runs in 20, and if it is at least --least large.
With --requests the requests themselves are drawn again and again, which is sharper than the
intervals in the results.

examples:
  santacoder-load compare before.json after.json
  santacoder-load compare before.json after.json --fail-on-regression 5%
  santacoder-load compare before.json after.json --requests before.jsonl after.jsonl
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="two results: which differences are more than noise",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("before", help="JSON that run, replay or sweep wrote")
    parser.add_argument("after", help="another one")
    parser.add_argument(
        "--requests",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="what --requests-output wrote in the two runs",
    )
    parser.add_argument(
        "--least",
        type=percentage(PERCENT_MAX),
        default=0.01,
        metavar="PERCENT",
        help="call smaller differences noise (1%%)",
    )
    parser.add_argument(
        "--fail-on-regression",
        type=percentage(PERCENT_MAX),
        metavar="PERCENT",
        help=f"exit with {REGRESSED} if something became worse by so much",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Compares; returns the exit status."""
    before, after = load(arguments.before), load(arguments.after)
    samples = None
    if arguments.requests is not None:
        if before.sweep is not None or after.sweep is not None:
            raise UsageError("--requests: for single runs; got a sweep; allowed results of runs")
        early, late = arguments.requests
        samples = (_samples(before, early), _samples(after, late))
    judged = judge(changes_between(before, after, samples), arguments.least)
    for line in warnings_between(before, after):
        sys.stderr.write(f"warning: {plain(line)}\n")
    if arguments.json:
        print(json.dumps({"differences": [_object(each) for each in judged]}))
    else:
        width = width_of(sys.stdout)
        parts = _screen(judged, bounded(width))
        sys.stdout.write(text_of(parts, width, wants_colours(sys.stdout)))
    return _status(judged, arguments.fail_on_regression)


def _samples(result: Result, path: str) -> Samples:
    """The latencies of the run's requests, one by one."""
    columns = Columns.of(read_requests(path))
    due = columns.times("scheduled_at")
    inside = (due >= result.window.begin) & (due < result.window.end)
    batches = batches_of(due, result.window)
    samples = samples_ms(columns, inside)
    if int((inside & columns.ended_as(Outcome.OK)).sum()) != result.outcomes.ok:
        allowed = f"the {result.outcomes.ok} answers that the result counts"
        raise UsageError(f"--requests: of another run; got {path!r}; allowed {allowed}")
    found = {name: Sample(values, batches[of]) for name, (values, of) in samples.items()}
    slos = parse_slos([each.slo for each in result.goodput])
    for slo, (met, counted) in zip(slos, met_and_counted(columns, slos), strict=True):
        chosen = inside & counted
        found[goodput_name(slo.text)] = Sample(met[chosen].astype(np.float64), batches[chosen])
    return found


def _screen(judged: Sequence[Judged], width: int) -> Iterator[RenderableType]:
    head = ("metric", "before", "after", "change", "95 % interval", "")
    rows = fitted(head, [_row(each) for each in judged], width, 0)
    table = grid(head, rows, texts=(0, 5))
    for row, each in zip(table.rows, judged, strict=True):
        row.style = STYLES[each.verdict]
    yield table
    counts = Counter(each.verdict for each in judged)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict])
    yield Text(f"\n{words or 'nothing in common to compare'}", style="bold")


def _row(judged: Judged) -> list[str]:
    change = judged.change
    ends = (change.relative(change.low), change.relative(change.high))
    interval = " to ".join(ABSENT if end is None else _effect(end) for end in ends)
    return [
        change.name,
        _value(change, change.before),
        _value(change, change.after),
        ABSENT if change.effect is None else _effect(change.effect),
        interval,
        judged.verdict,
    ]


def _value(change: Change, value: float) -> str:
    writers = {"ms": duration, "share": share, "1/s": amount}
    return writers[change.unit](value)


def _effect(effect: float) -> str:
    return f"{100 * effect:+.1f}%"


def _object(judged: Judged) -> dict[str, Any]:
    change = judged.change
    return {
        "name": change.name,
        "unit": change.unit,
        "before": change.before,
        "after": change.after,
        "effect": change.effect,
        "low": change.relative(change.low),
        "high": change.relative(change.high),
        "verdict": judged.verdict,
    }


def _status(judged: Sequence[Judged], least: float | None) -> int:
    """What became worse is said on standard error, too: a log may hold no more than that."""
    worse = [each for each in judged if least is not None and is_regression(each, least)]
    for each in worse:
        effect = each.change.effect
        got = "more than nothing" if effect is None else _effect(effect)
        line = f"{plain(each.change.name)} became worse; got {got}; allowed {least:.1%}"
        sys.stderr.write(f"error: --fail-on-regression: {line}\n")
    return REGRESSED if worse else 0
