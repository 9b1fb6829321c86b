"""Values on the command line: text in, a number or an ArgumentTypeError out. Knows no option."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from santacoder_client.loadtest.load import Step

MOST_PER_SECOND = 1e6
MOST_COUNT = 100_000
MOST_SECONDS = 7 * 86_400.0
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(us|ms|s|m|h|)", re.ASCII)
_SHOWN_CHARACTERS = 64


def refused(problem: str, text: str, allowed: str) -> argparse.ArgumentTypeError:
    """The error in the form of all errors; argparse puts the option in front."""
    return argparse.ArgumentTypeError(
        f"{problem}; got {text[:_SHOWN_CHARACTERS]!r}; allowed {allowed}"
    )


def number(low: float, high: float, above_low: bool = False) -> Callable[[str], float]:
    """A finite number between bounds; `above_low` leaves the lower one out."""
    allowed = f"{'above ' if above_low else ''}{low:g} to {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above_low else low <= value) or not value <= high:
            raise refused("not a number in range", text, allowed)
        return value

    return parse


def count(low: int = 1, high: int = MOST_COUNT) -> Callable[[str], int]:
    """A whole number between bounds."""

    def parse(text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) <= 20
        if not plain or not low <= int(text) <= high:
            raise refused("not a whole number in range", text, f"{low} to {high}")
        return int(text)

    return parse


rate = number(0, MOST_PER_SECOND, above_low=True)
share = number(0, 1)


def percentage(most: float = 100) -> Callable[[str], float]:
    """A part of one, from `5%` or `0.5%`."""

    def parse(text: str) -> float:
        digits = text.removesuffix("%")
        plain = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", digits, re.ASCII)
        if not text.endswith("%") or plain is None or float(digits) > most:
            raise refused("not a percentage", text, f"0% to {most:g}%, such as 5%")
        return float(digits) / 100

    return parse


def duration(text: str) -> float:
    """Seconds, from `90`, `500ms`, `5s`, `2m` or `1h`."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not seconds <= MOST_SECONDS:
        raise refused("not a duration", text, "up to 7 days, such as 500ms, 30s or 2m")
    return seconds


def positive_duration(text: str) -> float:
    """A duration that is not nothing."""
    seconds = duration(text)
    if not seconds:
        raise refused("no time at all", text, "above 0, such as 500ms, 30s or 2m")
    return seconds


def ramp(text: str) -> tuple[float, float]:
    """Two rates, `10:100`; one of them may be 0."""
    ends = text.split(":")
    if len(ends) != 2:
        raise refused("not a ramp", text, "FROM:TO, two rates")
    begin, end = (number(0, MOST_PER_SECOND)(part) for part in ends)
    if begin == end == 0:
        raise refused("never sends anything", text, "FROM:TO, not both 0")
    return begin, end


def steps(text: str) -> tuple[Step, ...]:
    """Rates with how long each is held, `10@5s,20@5s`."""
    found = []
    for part in text.split(","):
        per_second, at, seconds = part.partition("@")
        if not at:
            raise refused("not a list of steps", text, "RATE@TIME,RATE@TIME")
        held = number(0, MOST_PER_SECOND)(per_second)
        found.append(Step(held, positive_duration(seconds)))
    if not any(step.per_second for step in found):
        raise refused("never sends anything", text, "a step with a rate above 0")
    return tuple(found)
