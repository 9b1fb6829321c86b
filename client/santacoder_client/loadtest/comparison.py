"""What stands on a command line as `name<100ms`: a name, a relation, a bound. Knows no names."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from santacoder_client.loadtest.errors import UsageError

SHAPE = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.]*?)\s*(?P<relation><=|>=|<|>)\s*(?P<number>[^\s%a-zA-Z]+|\S*?)"
    r"\s*(?P<unit>%|[a-zA-Z]*)\s*",
    re.ASCII,
)
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Comparison:
    """A bound on something."""

    text: str
    """As it was given, without spaces."""
    name: str
    relation: str
    number: float
    unit: str
    """`us`, `ms`, `s`, `%` or nothing."""

    def holds_for(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side; never for NaN."""
        return RELATIONS[self.relation](value, bound)


def parse_comparison(flag: str, text: str) -> Comparison:
    """What the text says. Raises UsageError."""
    found = SHAPE.fullmatch(text)
    number = _number(found["number"]) if found else None
    if found is None or number is None:
        raise complaint(flag, "not a comparison", text, "such as ttft<100ms")
    if found["unit"] not in {"", "%", *MILLISECONDS}:
        raise complaint(flag, "unknown unit", text, "us, ms, s, % or none")
    return Comparison(
        text="".join(text.split()),
        name=found["name"],
        relation=found["relation"],
        number=number,
        unit=found["unit"],
    )


def milliseconds(flag: str, comparison: Comparison) -> float:
    """The bound on a time. Raises UsageError without a unit of time: 100 of what?"""
    if comparison.unit not in MILLISECONDS:
        allowed = f"{comparison.name}{comparison.relation}{comparison.number:g}ms, or us, s"
        raise complaint(flag, "a time needs a unit", comparison.text, allowed)
    return comparison.number * MILLISECONDS[comparison.unit]


def plain_number(flag: str, comparison: Comparison) -> float:
    """The bound on a number without a unit. Raises UsageError."""
    if comparison.unit:
        raise complaint(flag, "no unit here", comparison.text, "a plain number")
    return comparison.number


def share(flag: str, comparison: Comparison) -> float:
    """The bound on a share: a percentage, or a number from 0 to 1. Raises UsageError."""
    number = comparison.number / 100 if comparison.unit == "%" else comparison.number
    if comparison.unit not in ("", "%") or number > 1:
        raise complaint(flag, "not a share", comparison.text, "0% to 100%, or 0 to 1")
    return number


def complaint(flag: str, wrong: str, got: str, allowed: str) -> UsageError:
    """A usage error in the form of all."""
    shown = got if len(got) <= SHOWN_CHARACTERS else got[:SHOWN_CHARACTERS] + "..."
    return UsageError(f"{flag}: {wrong}; got {shown!r}; allowed {allowed}")


def _number(text: str) -> float | None:
    if not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
