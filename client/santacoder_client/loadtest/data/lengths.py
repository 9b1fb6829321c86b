"""How many tokens: fixed, or drawn from a distribution with bounds. Knows no token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.settings import Setting, shown
from santacoder_client.loadtest.data.source import DataError

MOST_TOKENS = 1_000_000
ALLOWED = (
    "N, uniform:LOW:HIGH, normal:MEAN:STDEV:LOW:HIGH or lognormal:MEDIAN:SIGMA:LOW:HIGH "
    f"with 1 <= LOW <= HIGH <= {MOST_TOKENS}"
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts."""

    form: str
    """`fixed`, `uniform`, `normal` or `lognormal`."""
    low: int
    high: int
    centre: float = 0.0
    """Mean of a normal, median of a lognormal."""
    spread: float = 0.0
    """Standard deviation: of the counts, or of their logarithms."""

    def __str__(self) -> str:
        match self.form:
            case "fixed":
                return str(self.low)
            case "uniform":
                return f"uniform:{self.low}:{self.high}"
        return f"{self.form}:{self.centre:g}:{self.spread:g}:{self.low}:{self.high}"

    def draw(self, draws: Draws) -> int:
        """One count. What lies outside the bounds is left out, not moved onto them."""
        match self.form:
            case "fixed":
                return self.low
            case "uniform":
                return draws.between(self.low, self.high)
            case "normal":
                drawn = _within(NormalDist(self.centre, self.spread), self.low, self.high, draws)
            case _:
                logarithms = NormalDist(math.log(self.centre), self.spread)
                low, high = math.log(self.low), math.log(self.high)
                drawn = math.exp(_within(logarithms, low, high, draws))
        return min(max(round(drawn), self.low), self.high)


def parse_lengths(what: str, text: str) -> Lengths:
    """Reads `128`, `uniform:64:512`, `normal:256:64:16:1024` or `lognormal:256:0.6:16:1024`."""
    form, *numbers = text.split(":")
    match form, len(numbers):
        case "uniform", 2:
            low, high = (_number(int, number) for number in numbers)
            lengths = Lengths("uniform", int(low), int(high))
        case "normal" | "lognormal", 4:
            centre, spread = (_number(float, number) for number in numbers[:2])
            low, high = (_number(int, number) for number in numbers[2:])
            lengths = Lengths(form, int(low), int(high), centre, spread)
        case _, 0:
            low = _number(int, form)
            lengths = Lengths("fixed", int(low), int(low))
        case _:
            raise DataError(f"{what}: not a number of tokens; got {shown(text)}; allowed {ALLOWED}")
    problem = _problem(lengths)
    if problem:
        raise DataError(f"{what}: {problem}; got {shown(text)}; allowed {ALLOWED}")
    return lengths


NewTokens = Annotated[
    Lengths,
    Setting(parse_lengths, "64", "TOKENS", "answer length where the data has none, as N or drawn"),
]


def _number(kind: Callable[[str], float], text: str) -> float:
    """The number; -1, which every form refuses, for what is none."""
    # int() would take `1_000` and ` 1`.
    if not text.isascii() or not set(text) <= set("0123456789.e+-"):
        return -1
    try:
        number = kind(text)
    except ValueError:
        return -1
    return number if math.isfinite(number) else -1


def _problem(lengths: Lengths) -> str:
    if not 1 <= lengths.low <= MOST_TOKENS or not 1 <= lengths.high <= MOST_TOKENS:
        return "not a number of tokens, or out of range"
    if lengths.low > lengths.high:
        return "LOW is above HIGH"
    if lengths.form not in ("normal", "lognormal"):
        return ""
    if not lengths.low <= lengths.centre <= lengths.high:
        return "its centre is no number between LOW and HIGH"
    return "" if lengths.spread > 0 else "its spread is no number above 0"


def _within(normal: NormalDist, low: float, high: float, draws: Draws) -> float:
    """A draw of the part of a normal distribution that lies between two bounds."""
    from_share, to_share = normal.cdf(low), normal.cdf(high)
    share = from_share + (to_share - from_share) * draws.uniform()
    # inv_cdf knows no ends; the caller holds the bounds.
    return normal.inv_cdf(min(max(share, 1e-15), 1 - 1e-15))
