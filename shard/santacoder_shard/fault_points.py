"""Faults on purpose: what a rank is told to do wrong, and when. In tests alone.

`SANTACODER_FAULTS` holds a JSON list of objects with the fields of `FaultPoint`; it is refused
unless `SANTACODER_TEST_MODE` is 1. Unarmed, nothing of this is called.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from santacoder_shard.armed import FaultPoints

VARIABLE = "SANTACODER_FAULTS"
TEST_MODE_VARIABLE = "SANTACODER_TEST_MODE"
POINTS = ("start", "prefill", "decode", "forward", "logits", "result", "sent")
ACTIONS = (
    "kill",
    "abort",
    "segv",
    "stop",
    "raise",
    "device_oom",
    "device_assert",
    "allocate",
    "hang",
    "slow",
    "stall_loop",
    "skip_collective",
    "nan_row",
    "nan_all",
    "flip_bit",
    "drop_result",
    "repeat_result",
)


class FaultsRefused(Exception):
    """Fault points are armed where they must not be, or wrongly; the message is one line."""


@dataclass(frozen=True, slots=True)
class FaultPoint:
    """One fault: at a point of a rank's life, what happens."""

    at: str
    """start, prefill or decode (before such a plan), forward, logits, result or sent."""
    action: str
    rank: int = 0
    epoch: int = 0
    """Life of the group; 0 means every one."""
    nth: int = 1
    """When the point is reached for the nth time, from 1."""
    repeats: bool = False
    """Every time from then on, not once."""
    token_id: int = -1
    """Counts only while a sequence runs whose prompt holds this id; below 0 always."""
    mark: str = ""
    """A file that is made when it happens, and in whose presence it does not happen again."""
    seconds: float = 0.0
    """How long what takes time takes."""


def read_faults(environment: Mapping[str, str]) -> tuple[FaultPoint, ...]:
    """The faults that are armed, nearly always none; raises FaultsRefused."""
    text = environment.get(VARIABLE, "")
    if not text:
        return ()
    if environment.get(TEST_MODE_VARIABLE) != "1":
        raise FaultsRefused(
            f"{VARIABLE}: fault points are for tests; got it set;"
            f" allowed only with {TEST_MODE_VARIABLE}=1"
        )
    try:
        entries = json.loads(text)
        return tuple(_fault(entry) for entry in entries)
    except (ValueError, TypeError) as error:
        raise FaultsRefused(f"{VARIABLE}: cannot be read: {error}") from None


def arm(
    faults: Iterable[FaultPoint], rank: int, epoch: int, call_soon: Callable[..., object]
) -> FaultPoints | None:
    """Those of one rank in one life of the group, ready to happen; None if there are none.

    `call_soon` runs a function on the event loop's thread.
    """
    own = [each for each in faults if each.rank == rank and each.epoch in (0, epoch)]
    if not own:
        return None
    # Here, because nobody else needs it.
    from santacoder_shard.armed import FaultPoints

    points = FaultPoints(own, call_soon)
    points.reach("start")
    return points


def _fault(entry: Mapping[str, Any]) -> FaultPoint:
    known = {field.name for field in dataclasses.fields(FaultPoint)}
    if strangers := sorted(set(entry) - known):
        raise ValueError(f"unknown field; got {strangers[0]}; allowed {', '.join(sorted(known))}")
    fault = FaultPoint(**entry)
    for name, got, allowed in (("at", fault.at, POINTS), ("action", fault.action, ACTIONS)):
        if got not in allowed:
            raise ValueError(f"{name}: unknown; got {got}; allowed {', '.join(allowed)}")
    return fault
