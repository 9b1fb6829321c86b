"""The router's options on how much it takes on: its queue, slow readers, memory, one caller's part.

Every bound has a ceiling, and 0 is below the least of each: nothing is unlimited.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from santacoder_router.caller_limits import (
    StandingLimits,
    add_caller_arguments,
    standing_limits,
)

MOST_QUEUED = 65_536
MOST_QUEUED_TOKENS = 1 << 24
WAIT_SECONDS = (0.01, 600.0)
STALL_SECONDS = (0.1, 3600.0)
MEMORY_BYTES = (1 << 26, 1 << 50)


@dataclass(frozen=True, slots=True)
class OverloadConfig:
    """What the router takes on."""

    queued_request_count: int = 512
    """Most sequences waiting."""
    queued_token_count: int = 262_144
    """Most prompt tokens waiting."""
    queue_wait_seconds: float = 10.0
    """Longest wait in the queue."""
    stream_stall_seconds: float = 30.0
    """How long a reader may take nothing of what waits for it."""
    memory_limit_bytes: int | None = None
    """What the process may hold; None is what its control group or the machine has."""
    callers: StandingLimits = field(default_factory=StandingLimits)
    """What each caller may have."""


def add_overload_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of OverloadConfig."""
    standing = OverloadConfig()
    add = parser.add_argument_group(
        "overload", "what is above these is refused at once, with a time to come back"
    ).add_argument
    for flag, most, default, meaning in (
        ("requests", MOST_QUEUED, standing.queued_request_count, "sequences"),
        ("tokens", MOST_QUEUED_TOKENS, standing.queued_token_count, "prompt tokens"),
    ):
        kind = whole_number(1, most)
        text = f"most {meaning} that wait (%(default)s)"
        add(f"--queue-{flag}", type=kind, default=default, metavar="N", help=text)
    stall = "how long a reader may take nothing of what waits for it"
    for flag, bounds, default_seconds, meaning in (
        ("queue-wait", WAIT_SECONDS, standing.queue_wait_seconds, "longest wait in the queue"),
        ("stream-stall", STALL_SECONDS, standing.stream_stall_seconds, stall),
    ):
        seconds = seconds_between(*bounds)
        text = f"{meaning} (%(default)s)"
        add(f"--{flag}-seconds", type=seconds, default=default_seconds, metavar="S", help=text)
    add(
        "--memory-limit-bytes",
        type=whole_number(*MEMORY_BYTES),
        metavar="N",
        help="what the router may hold: at 85 %% new requests are refused, at 95 %% those that wait"
        " too (default: the control group's limit, else the machine's memory)",
    )
    add_caller_arguments(parser)


def overload_of(options: argparse.Namespace) -> OverloadConfig:
    """What `add_overload_arguments` has read."""
    return OverloadConfig(
        queued_request_count=options.queue_requests,
        queued_token_count=options.queue_tokens,
        queue_wait_seconds=options.queue_wait_seconds,
        stream_stall_seconds=options.stream_stall_seconds,
        memory_limit_bytes=options.memory_limit_bytes,
        callers=standing_limits(options),
    )


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: an integer from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"out of range; got {text!r}; allowed {least}..{most}")
        return value

    return read


def seconds_between(least: float, most: float) -> Callable[[str], float]:
    """A type for argparse: seconds from `least` to `most`."""

    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= most:
            allowed = f"{least:g}..{most:g} s"
            raise argparse.ArgumentTypeError(f"out of range; got {text!r}; allowed {allowed}")
        return seconds

    return read
