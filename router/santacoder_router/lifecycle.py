"""Where the router is between start and end, and what a caller is told who comes at a bad moment.

Knows no sockets and no shards; whoever learns of a change says so here.
"""

from __future__ import annotations

import enum

from santacoder_router.errors import Reason, Unavailable
from santacoder_router.serving import Serving


class Phase(enum.Enum):
    """Where the router is. From `WITHDRAWING` on there is no way back."""

    WARMING = "warming"
    """No shard group has been there yet."""
    SERVING = "serving"
    """A group is there."""
    RECOVERING = "recovering"
    """The group has died; requests wait for the next one."""
    WITHDRAWING = "withdrawing"
    """The router is about to stop: health says so, and who comes all the same is served."""
    DRAINING = "draining"
    """The router is stopping."""
    LOST = "lost"
    """The group has died for good."""
    FAULT = "fault"
    """The router's own state can no longer be trusted."""


FINAL = (Phase.DRAINING, Phase.LOST, Phase.FAULT)


class Lifecycle:
    """The one phase of a router, and what it serves with once a group has been there."""

    def __init__(self) -> None:
        self._phase = Phase.WARMING
        self._serving: Serving | None = None

    @property
    def phase(self) -> Phase:
        """Where the router is."""
        return self._phase

    @property
    def serving(self) -> Serving | None:
        """What requests are served with; None until the first group."""
        return self._serving

    def begin(self, serving: Serving) -> None:
        """The first group is there."""
        self._serving = serving
        self.enter(Phase.SERVING)

    def enter(self, phase: Phase) -> None:
        """Moves on; a final phase stays, unless the router itself fails."""
        is_leaving = self._phase is Phase.WITHDRAWING and phase not in FINAL
        if (self._phase not in FINAL and not is_leaving) or phase is Phase.FAULT:
            self._phase = phase

    def admit(self) -> Serving:
        """What a new request is served with; raises Unavailable where it cannot be."""
        if self._serving is not None and self._phase not in FINAL:
            return self._serving
        raise unavailable(self._phase)


def unavailable(phase: Phase) -> Unavailable:
    """What callers are told in a phase in which nothing is served."""
    reason, message, retry_after_seconds = {
        Phase.DRAINING: (Reason.DRAINING, "the server is stopping", 1.0),
        Phase.LOST: (Reason.SHARD_LOST, "the model's processes have died", 5.0),
        Phase.FAULT: (Reason.ROUTER_FAULT, "the router has failed and is stopping", 5.0),
    }.get(phase, (Reason.WARMING, "the model is being loaded", 1.0))
    return Unavailable(reason, message, retry_after_seconds=retry_after_seconds)
