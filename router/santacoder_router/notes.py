"""What the router tells the process that started it: lines of `note JSON` on standard output.

Only with `--notes`: whoever reads the ready line alone is not to be surprised by others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from santacoder_router.group_failure import GroupFailure

# Of so many requests a report names some; the count tells of the others.
MOST_NAMES = 256

Note = Callable[[dict[str, object]], None]


def write_note(note: dict[str, object]) -> None:
    """One line, at once."""
    sys.stdout.write(f"note {json.dumps(note)}\n")
    sys.stdout.flush()


def no_note(_: dict[str, object]) -> None:
    """Nobody wants to know."""


def death_note(epoch: int, failure: GroupFailure, request_ids: Sequence[str]) -> dict[str, object]:
    """What is known here of a group's death: why, how far it had come, who ran. Never prompts."""
    return {
        "epoch": epoch,
        "rank": failure.rank,
        "cause": failure.message,
        "last_plan": failure.last_plan_number,
        "last_step": failure.last_step,
        "lost_plans": list(failure.lost_plan_numbers),
        "request_count": len(request_ids),
        "request_ids": list(request_ids[:MOST_NAMES]),
    }
