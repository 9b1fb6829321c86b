"""Who keeps its slot longest, and who goes first in a caller's line. Knows no blocks and no plans.

Whose line has its turn is decided in `waiting.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from santacoder_router.core.plan import Request

Rank = Callable[[Request, float], float]
"""(request, arrival) to a number: the smallest goes first, and the greatest is preempted first."""


def aged_priority(aging_seconds: float) -> Rank:
    """Order by priority, where every `aging_seconds` since arrival count as one class more.

    Everybody ages alike, so two requests never change places: the class at any moment,
    `priority + (now - arrival) / aging_seconds`, orders them as the number below does. An order
    that does not move cannot make two sequences preempt each other in turn, and nobody starves.
    """

    def rank(request: Request, arrival: float) -> float:
        return arrival - request.priority * aging_seconds

    return rank
