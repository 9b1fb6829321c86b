"""The figures of a result as CSV, a value a line, for a spreadsheet or a data frame.

Columns: load (of a sweep's point; empty for a run), group, name, statistic, unit, value, low, high.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from santacoder_client.loadtest.result import Figure, PointResult, Result
from santacoder_client.loadtest.writers.files import write_whole

COLUMNS = ("load", "group", "name", "statistic", "unit", "value", "low", "high")

Row = tuple[object, ...]


def write_csv(path: str | Path, result: Result) -> None:
    """Writes the table. Raises LoadTestError, as for a full disk."""
    write_whole(path, to_csv(result))


def to_csv(result: Result) -> str:
    """The table as text; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    if result.sweep is None:
        writer.writerows(("", *row) for row in _rows(result))
    else:
        for point in result.sweep.points:
            writer.writerows((point.value, *row) for row in _rows(point.result))
    return text.getvalue()


def _rows(result: Result | PointResult) -> Iterator[Row]:
    for field in fields(result.outcomes):
        yield "outcomes", field.name, "", "", getattr(result.outcomes, field.name), "", ""
    for field in fields(result.rates):
        yield "rates", field.name, "", "1/s", getattr(result.rates, field.name), "", ""
    for goodput in result.goodput:
        yield "goodput", goodput.slo, "share", "", goodput.share, "", ""
        yield "goodput", goodput.slo, "per_second", "1/s", goodput.per_second, "", ""
    for name, figure in result.figures.items():
        yield from _figure_rows(name, figure)


def _figure_rows(name: str, figure: Figure) -> Iterator[Row]:
    yield "figures", name, "count", "", figure.count, "", ""
    for statistic in ("mean", "stdev", "min", "max"):
        yield "figures", name, statistic, figure.unit, getattr(figure, statistic), "", ""
    for statistic, each in figure.percentiles.items():
        yield "figures", name, statistic, figure.unit, each.value, each.low, each.high
