"""How a life of the group ended. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupFailure:
    """Why a group ended: the rank that failed first, and one line; how far the group had come."""

    rank: int
    message: str
    last_plan_number: int = 0
    """The plan whose step ended last."""
    last_step: int = 0
    """How many of its steps had ended."""
    lost_plan_numbers: tuple[int, ...] = ()
    """Plans that were sent and have not ended."""
