"""A measured figure beside its goal and its peer, and the table of them. Measures nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEADINGS = ("figure", "measured", "goal", "met", "beside it")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table; `beside` names the peer or says what the figure is made of."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    beside: str = ""

    @property
    def is_met(self) -> bool | None:
        """None where there is no goal."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    def cells(self) -> tuple[str, ...]:
        goal = ""
        if self.at_least is not None:
            goal = f">= {self.at_least:g}"
        elif self.at_most is not None:
            goal = f"<= {self.at_most:g}"
        met = {None: "", True: "yes", False: "NO"}[self.is_met]
        return (self.name, f"{self.value:.4g} {self.unit}".strip(), goal, met, self.beside)


def table(figures: Sequence[Figure]) -> str:
    """Lines of text, columns aligned."""
    return aligned([HEADINGS, *(figure.cells() for figure in figures)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each as lines of text; the first is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write_json(path: Path, figures: Sequence[Figure], facts: dict[str, object]) -> None:
    """The same for programs, with the facts of the run."""
    rows = [asdict(figure) | {"is_met": figure.is_met} for figure in figures]
    path.write_text(json.dumps({**facts, "figures": rows}, indent=2) + "\n")


def spread(values: Sequence[float]) -> str:
    """The least and the greatest of a median's values."""
    return f"{min(values):.3g} to {max(values):.3g} of {len(values)}"


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours by theirs in the same round."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
