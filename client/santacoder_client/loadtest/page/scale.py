"""Where a value stands on an axis, from 0 to 1, and which values are worth a tick. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Scale(Protocol):
    """An axis without its words."""

    def place(self, value: float) -> float:
        """Where the value stands: 0 at the axis's begin, 1 at its end."""
        ...

    def ticks(self) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Linear:
    low: float
    high: float

    def place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0

    def ticks(self) -> list[float]:
        if self.high <= self.low:
            return [self.low]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Logarithmic:
    low: float
    high: float

    def place(self, value: float) -> float:
        if value <= 0:
            return 0.0
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        decades = math.log10(self.high / self.low)
        factors = (1, 2, 5) if decades <= 2.2 else (1, 3) if decades <= 3.2 else (1,)
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = max(1, math.ceil(decades / 7))
        values = [f * 10.0**e for e in exponents if e % every == 0 for f in factors]
        return [value for value in values if -1e-9 <= self.place(value) <= 1 + 1e-9]


@dataclass(frozen=True, slots=True)
class Tail:
    """Percentiles spread so that every further nine has as much room as the one before."""

    percentiles: Sequence[float]

    def place(self, value: float) -> float:
        first, last = (self._nines(self.percentiles[end]) for end in (0, -1))
        return (self._nines(value) - first) / (last - first) if last > first else 0.5

    def ticks(self) -> list[float]:
        return list(self.percentiles)

    @staticmethod
    def _nines(percentile: float) -> float:
        return -math.log10(max(1 - percentile / 100, 1e-9))


def from_zero(values: Iterable[float], high: float = 0.0) -> Linear:
    """A linear axis from 0 past the greatest value, to a round number."""
    top = max([high, *values])
    if top <= 0:
        return Linear(0.0, 1.0)
    step = _round_step(top / 5)
    return Linear(0.0, math.ceil(top / step - 1e-9) * step)


def for_times(values: Iterable[float]) -> Linear | Logarithmic:
    """An axis for latencies: logarithmic where they differ more than twentyfold."""
    above = [value for value in values if value > 0]
    if not above or max(above) < 20 * min(above):
        return from_zero(above)
    return spread(above)


def spread(values: Iterable[float]) -> Logarithmic:
    """A logarithmic axis around the values, which are above 0."""
    known = list(values)
    low, high = min(known), max(known)
    if high < 1.5 * low:
        low, high = low / 1.5, high * 1.5
    return Logarithmic(_round_down(low * 0.95), high * 1.1)


def _round_down(value: float) -> float:
    unit = 10.0 ** math.floor(math.log10(value))
    return float(max(factor for factor in (1, 2, 5) if factor * unit <= value * 1.000001) * unit)


def _round_step(raw: float) -> float:
    """The smallest of 1, 2, 5, 10 times a power of ten that is not below."""
    unit = 10.0 ** math.floor(math.log10(raw))
    return next(f * unit for f in (1, 2, 5, 10) if f * unit >= raw * 0.999999)
