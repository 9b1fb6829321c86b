"""What a chart is: lines, bars and marks on two axes, in the data's own units. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from santacoder_client.loadtest.page.scale import Scale


@dataclass(frozen=True, slots=True)
class Axis:
    title: str
    scale: Scale
    label: Callable[[float], str]
    """A value in words, for ticks and readings."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float | None]]
    """In the order of x; None breaks the line."""
    style: int
    """1 to 5: colour and dash together, so that colour alone never tells lines apart."""
    dots: bool = False
    intervals: Sequence[tuple[float, float, float]] = ()
    """x, low and high of a bar of uncertainty."""

    @property
    def known(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if y is not None]


@dataclass(frozen=True, slots=True)
class Bar:
    begin: float
    end: float
    height: float


@dataclass(frozen=True, slots=True)
class Bars:
    name: str
    bars: Sequence[Bar]
    style: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A straight line across the chart that says what is special there."""

    at: float
    label: str
    upright: bool = True


@dataclass(frozen=True, slots=True)
class Band:
    """A span of x that is set apart."""

    begin: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart with its words."""

    name: str
    """An identifier for the page's own use."""
    title: str
    how: str
    """One line on how to read it."""
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    bars: Sequence[Bars] = ()
    marks: Sequence[Mark] = ()
    bands: Sequence[Band] = ()
    wide: bool = False
    legend: bool = True
    """False where the title says what the only line or bar is."""

    def alternative(self) -> str:
        """The chart in words, for whoever does not see it."""
        said = [self._line_in_words(line) for line in self.lines if line.known]
        said += [self._bars_in_words(group) for group in self.bars if group.bars]
        said += [f"marked: {mark.label}" for mark in self.marks]
        return f"{self.y.title} against {self.x.title}. {'; '.join(said) or 'no values'}."

    def _line_in_words(self, line: Line) -> str:
        low_x, low = min(line.known, key=_height)
        high_x, high = max(line.known, key=_height)
        if low == high:
            return f"{line.name} {self.y.label(high)} throughout"
        return (
            f"{line.name} from {self.y.label(low)} at {self.x.label(low_x)}"
            f" to {self.y.label(high)} at {self.x.label(high_x)}"
        )

    def _bars_in_words(self, group: Bars) -> str:
        tallest = max(group.bars, key=lambda bar: bar.height)
        span = f"{self.x.label(tallest.begin)} to {self.x.label(tallest.end)}"
        return f"{group.name}: most, {self.y.label(tallest.height)}, from {span}"


def _height(point: tuple[float, float]) -> float:
    return point[1]
