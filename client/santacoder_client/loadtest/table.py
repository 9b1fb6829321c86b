"""The end of a run in one screen: what became of it, how fast it was, who was the limit.

A result in, text out. Plain ASCII, so that every terminal and every log has it; colours only where
someone looks at them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from santacoder_client.loadtest.grid import grid
from santacoder_client.loadtest.live import plain
from santacoder_client.loadtest.metrics import METRICS
from santacoder_client.loadtest.result import Figure, Percentile, Result
from santacoder_client.loadtest.screen import WIDTH, bounded, text_of, wants_colours, width_of
from santacoder_client.loadtest.sweep_table import findings, points_table
from santacoder_client.loadtest.wording import ABSENT, amount, between, count, duration, share

NARROW = 72
"""Below it some columns are left out: a cut number is worse than none."""
ERROR_COUNT_SHOWN = 5
NAME_LENGTH = 24
EXAMPLE_LENGTH_MIN = 20
LIMITS = {
    "server": ("the server was the limit", "bold"),
    "client": ("this client was the limit: the server may be faster than that", "bold red"),
    "neither": ("neither the server nor this client was at its limit", "bold"),
}


def show_table(result: Result, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
    """Writes the screen to a stream, with colours if it is a terminal that wants them."""
    stream.write(table_text(result, width_of(stream), wants_colours(stream, environ)))


def table_text(result: Result, width: int = WIDTH, coloured: bool = False) -> str:
    """The screen as text."""
    return text_of(_parts(result, bounded(width)), width, coloured)


def _parts(result: Result, width: int) -> Iterator[RenderableType]:
    narrow = width < NARROW
    yield _headline(result)
    if result.sweep is not None:
        yield ""
        yield points_table(result.sweep, narrow)
        yield ""
        yield from findings(result.sweep)
    elif result.figures:
        yield ""
        yield _latencies(result.figures, narrow)
    yield ""
    yield _facts(result)
    if result.errors:
        yield ""
        yield from _errors(result, width)


def _headline(result: Result) -> Text:
    """What became of the requests, the bad in red."""
    words = [(count(result.outcomes.ok) + " answered", "bold green" if result.outcomes.ok else "")]
    for name, style in (("failed", "bold red"), ("unsent", "bold red")):
        number = getattr(result.outcomes, name)
        words.append((f"{count(number)} {name}", style if number else ""))
    for name in ("cancelled", "superseded"):
        if number := getattr(result.outcomes, name):
            words.append((f"{count(number)} {name}", ""))
    text = Text(style="")
    if result.interrupted:
        text.append("interrupted: ", "bold yellow")
    if result.sweep is not None:
        text.append(plain(f"at {_recommended(result)}: "))
    for place, (word, style) in enumerate(words):
        text.append(", " if place else "")
        text.append(plain(word), style)
    seconds = result.window.end - result.window.begin
    return text.append(plain(f" (due in {duration(1000 * seconds)}, {_load_name(result)})"), "dim")


def _recommended(result: Result) -> str:
    """The load of a sweep that its summary is of."""
    rate, users = (result.load.get(name) for name in ("per_second", "concurrency"))
    return f"{rate:g} a second" if isinstance(rate, float) else f"{users} at once"


def _load_name(result: Result) -> str:
    return f"{result.load.get('model', 'some')} load"


def _latencies(figures: Mapping[str, Figure], narrow: bool) -> Table:
    head = ("latency", "number", "p50", "p90", "p99", "p99, 95 %", "p99.9", "max")
    rows = [_latency_row(name, figures[name]) for name in METRICS if name in figures]
    return grid(head, rows, wanted=(0, 2, 4) if narrow else None)


def _latency_row(name: str, figure: Figure) -> list[str]:
    values = {at: each.value for at, each in figure.percentiles.items()}
    p50, p90, p99, p999 = (duration(values.get(at)) for at in ("p50", "p90", "p99", "p99.9"))
    interval = _interval(figure.percentiles.get("p99"))
    return [name, count(figure.count), p50, p90, p99, interval, p999, duration(figure.max)]


def _interval(percentile: Percentile | None) -> str:
    """Both ends; where the sample does not bound it from above, only from where on."""
    if percentile is None or percentile.low is None:
        return ABSENT
    if percentile.high is None:
        return f"over {duration(percentile.low)}"
    return between(duration(percentile.low), duration(percentile.high))


def _facts(result: Result) -> Table:
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True, style="bold")
    lines.add_column(overflow="fold")
    for name, text, style in _lines(result):
        lines.add_row(Text(name), Text(plain(text), style))
    return lines


def _lines(result: Result) -> Iterator[tuple[str, str, str]]:
    """Name, words and style of every line below the latencies."""
    rates = result.rates
    if result.sweep is None and rates.offered_per_second is not None:
        yield (
            "requests/s",
            f"{amount(rates.offered_per_second)} offered, {amount(rates.dispatched_per_second)} "
            f"sent, {amount(rates.finished_per_second)} answered",
            "",
        )
        yield "tokens/s", _tokens(result), ""
    for each in result.goodput if result.sweep is None else ():
        words = f"{share(each.share)} met {each.slo}, {amount(each.per_second)} a second"
        yield "goodput", words, ""
    yield from _verdict(result)
    for judged in result.thresholds:
        got = "nothing to judge" if judged.value is None else amount(judged.value)
        word, style = ("held", "green") if judged.passed else ("MISSED", "bold red")
        yield "threshold", f"{judged.expression} {word}, got {got}", style


def _tokens(result: Result) -> str:
    rates = result.rates
    words = f"{amount(rates.completion_tokens_per_second)} new"
    if rates.peak_completion_tokens_per_second is not None:
        words += f" ({amount(rates.peak_completion_tokens_per_second)} in the best second)"
    words += f", {amount(rates.prompt_tokens_per_second)} of prompts"
    if result.cached_share is not None:
        words += f", of those {share(result.cached_share)} cached"
    return words


def _verdict(result: Result) -> Iterator[tuple[str, str, str]]:
    words, style = LIMITS[result.client.verdict]
    yield "verdict", words, style
    for reason in result.client.reasons:
        yield "", reason, ""


def _errors(result: Result, width: int) -> Iterator[RenderableType]:
    """Kinds of failures; the example gets the room that the names leave."""
    kinds = result.errors[:ERROR_COUNT_SHOWN]
    head = ["failed with", "reason", "number"]
    rows = [
        [each.status[:NAME_LENGTH], each.reason[:NAME_LENGTH], count(each.count)] for each in kinds
    ]
    columns = zip(head, *rows, strict=True)
    room = width - sum(max(map(len, column)) + 1 for column in columns)
    if room >= EXAMPLE_LENGTH_MIN:
        head.append("for example")
        for row, each in zip(rows, kinds, strict=True):
            text = plain(each.example)
            row.append(text if len(text) <= room else text[: room - 1] + "~")
    yield grid(head, rows, texts=(0, 1, 3))
    if left := len(result.errors) - len(kinds):
        yield Text(f"and {left} other kinds")
