"""Numbers as a person reads them: three figures that count, a unit, no exponent."""

from __future__ import annotations

import math

ABSENT = "\N{EN DASH}"
THIN = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"


def count(value: float | None) -> str:
    """A whole number with its thousands apart: 12 345."""
    return ABSENT if value is None else f"{value:,.0f}".replace(",", THIN)


def amount(value: float | None) -> str:
    """Three figures that count: 0.0123, 1.23, 123, 12 345."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    decimals = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    text = f"{value:,.{decimals}f}".replace(",", THIN)
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(milliseconds: float | None) -> str:
    """A time with the unit that suits it: 430 µs, 12.3 ms, 1.25 s, 3 min."""
    if milliseconds is None:
        return ABSENT
    if milliseconds == 0:
        return "0" + SPACE + "ms"
    for limit, divisor, unit in ((1, 0.001, "µs"), (1_000, 1, "ms"), (120_000, 1_000, "s")):
        # What would be rounded up to the limit has the next unit.
        if abs(milliseconds) < limit * 0.9995:
            return amount(milliseconds / divisor) + SPACE + unit
    return amount(milliseconds / 60_000) + SPACE + "min"


def share(value: float | None) -> str:
    """A share of one in percent; 100 % and 0 % only where it is exactly that."""
    if value is None:
        return ABSENT
    percent = 100 * value
    if 99.9 < percent < 100:
        return "over" + SPACE + "99.9" + SPACE + "%"
    if 0 < percent < 0.01:
        return "under" + SPACE + "0.01" + SPACE + "%"
    return amount(percent) + SPACE + "%"


def figure(value: float | None, unit: str) -> str:
    """A value in its metric's unit."""
    return duration(value) if unit in ("ms", "") else amount(value) + SPACE + unit


def plural(number: float | None, one: str, many: str = "") -> str:
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def between(low: str, high: str) -> str:
    """Two values as a span; a unit that both have is said once, after both."""
    low_value, _, low_unit = low.partition(SPACE)
    same = low_unit == high.partition(SPACE)[2]
    return f"{low_value if same else low}\N{EN DASH}{high}"


def interval(low: float | None, high: float | None, unit: str = "ms") -> str:
    """An interval, one end of which a small sample may not know; empty if it knows neither."""
    if low is not None and high is not None:
        return between(figure(low, unit), figure(high, unit))
    if low is not None:
        return f"over {figure(low, unit)}"
    return f"under {figure(high, unit)}" if high is not None else ""
