"""How much one caller may have and ask for: defaults, ceilings, options, words of a token's line.

Plain values; counts nothing. Nothing is unlimited: 0 is out of range everywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from santacoder_router.core.plan import Priority

PRIORITIES = MappingProxyType({priority.name.lower(): priority for priority in Priority})


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What one caller may have at once, and how often it may ask."""

    running: int = 64
    """Most sequences in slots; more of them wait."""
    queued: int = 128
    """Most sequences that wait."""
    queued_tokens: int = 65_536
    """Most prompt tokens that wait."""
    sessions: int = 64
    """Most open editor sessions."""
    rate: float = 100.0
    """Most requests a second, of all kinds together; as many may come at once."""
    weight: float = 1.0
    """Share of the service where several want it, beside the others' weights."""
    priority: Priority = Priority.NORMAL
    """Highest class it may ask for."""


class Bounds(NamedTuple):
    """Least and greatest value of a limit, and what it says in `--help`."""

    kind: type[int] | type[float]
    least: float
    most: float
    meaning: str


BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {
        "running": Bounds(int, 1, 1024, "sequences that run at once; more of them wait"),
        "queued": Bounds(int, 1, 65_536, "sequences that wait"),
        "queued_tokens": Bounds(int, 1, 1 << 24, "prompt tokens that wait"),
        "sessions": Bounds(int, 1, 1024, "open editor sessions"),
        "rate": Bounds(float, 0.01, 10_000.0, "requests a second"),
        "weight": Bounds(float, 0.01, 100.0, "share of the service, beside others' weights"),
    }
)
OPTIONS = ("running", "queued", "queued_tokens", "sessions", "rate")

KNOWN = CallerLimits()
"""Of a caller who says who it is."""
UNKNOWN = CallerLimits(
    running=1024,
    queued=65_536,
    queued_tokens=1 << 24,
    rate=10_000.0,
    priority=Priority.HIGH,
)
"""Of a connection where nobody is asked who calls: it may stand for many, and has the ceilings.

Not of sessions: those are one editor's each.
"""


class BadLimit(Exception):
    """A limit that cannot be; the message says what is wrong with it and not what it was."""


def parse_limit(name: str, text: str) -> float | int | Priority:
    """The value of one limit by its name; raises BadLimit."""
    if name == "priority":
        if text not in PRIORITIES:
            raise BadLimit(f"not a priority; allowed {', '.join(PRIORITIES)}")
        return PRIORITIES[text]
    kind, least, most, _ = BOUNDS[name]
    allowed = f"allowed {least:g}..{most:.15g}"
    try:
        value = kind(text)
    except ValueError:
        raise BadLimit(f"not a number; {allowed}") from None
    if not least <= value <= most:
        raise BadLimit(f"out of range; {allowed}")
    return value


def parse_words(words: Sequence[str]) -> dict[str, float | int | Priority]:
    """The limits of a token's line, `name=value` each, by name; raises BadLimit."""
    limits: dict[str, float | int | Priority] = {}
    for shown, _, text in (word.partition("=") for word in words):
        name = shown.replace("-", "_")
        if name in limits:
            raise BadLimit(f"{shown}: is there twice; allowed once")
        if name != "priority" and name not in BOUNDS:
            known = ", ".join(each.replace("_", "-") for each in (*BOUNDS, "priority"))
            raise BadLimit(f"no such limit; allowed {known}")
        try:
            limits[name] = parse_limit(name, text)
        except BadLimit as error:
            raise BadLimit(f"{shown}: {error}") from None
    return limits


@dataclass(frozen=True, slots=True)
class StandingLimits:
    """What holds for callers whose token says nothing else."""

    known: CallerLimits = KNOWN
    unknown: CallerLimits = UNKNOWN


def add_caller_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of StandingLimits."""
    group = parser.add_argument_group(
        "callers",
        "limits of one caller: a token's name, else a client certificate's; a line of the token"
        " file may say others. Where nobody is asked, each connection is a caller, and only what"
        " is given here limits it",
    )
    for name in OPTIONS:
        meaning, default = BOUNDS[name].meaning, getattr(KNOWN, name)
        group.add_argument(
            f"--caller-{name.replace('_', '-')}",
            type=_option(name),
            metavar="N",
            help=f"most {meaning} ({default:g})",
        )


def standing_limits(options: argparse.Namespace) -> StandingLimits:
    """What `add_caller_arguments` has read."""
    given = {name: getattr(options, f"caller_{name}") for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    return StandingLimits(
        dataclasses.replace(KNOWN, **given), dataclasses.replace(UNKNOWN, **given)
    )


def _option(name: str) -> Callable[[str], float | int | Priority]:
    def read(text: str) -> float | int | Priority:
        try:
            return parse_limit(name, text)
        except BadLimit as error:
            what, _, allowed = str(error).partition("; ")
            raise argparse.ArgumentTypeError(f"{what}; got {text!r}; {allowed}") from None

    return read
