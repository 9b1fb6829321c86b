"""Who may be held to have killed the shard group, worked out from its deaths alone (L7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from router.core.simulated_clients import Client
from router.core.simulated_model import require

from santacoder_router.core.plan import Event, Finished, FinishReason
from santacoder_router.core.settings import SchedulerConfig
from santacoder_router.core.suspects import CLEARING_TOKEN_COUNT


class Blame:
    """Counts, for each request, the deaths in which it ran since it last got somewhere."""

    def __init__(self, clients: Mapping[int, Client], config: SchedulerConfig) -> None:
        self._clients = clients
        # Most ids of a request that plans in flight hold, and what clears it.
        self._window = config.plans_in_flight * config.steps_per_lease + CLEARING_TOKEN_COUNT
        self._deaths: Counter[int] = Counter()
        # How many ids it had at the last of them; a window of plans later it has got somewhere.
        self._had: dict[int, int] = {}
        # How many it had at its last death.
        self._last_had: dict[int, int] = {}

    def check_death(self, running: Sequence[int], events: list[Event]) -> None:
        """The group died while `running` ran, and the scheduler told `events`."""
        for request_id in running:
            has = self._last_had[request_id] = len(self._clients[request_id].delivered)
            if has > self._had.get(request_id, has) + self._window:
                self._deaths[request_id] = 0
            self._had[request_id] = has
            self._deaths[request_id] += 1
        require(len(events) <= 1, "L7 one death condemns many", events)
        for event in events:
            is_verdict = isinstance(event, Finished) and event.reason is FinishReason.POISON
            require(is_verdict, "L7 a death brings something else", event)
            deaths = self._deaths[event.request_id]
            require(deaths >= 2, "L7 condemned without two deaths", event)
            require(list(running) == [event.request_id], "L7 condemned in company", running)

    def check_trial(self, tried: Iterable[int]) -> None:
        """These alone may run: whoever has got past its last death keeps nobody waiting."""
        for request_id in tried:
            has = len(self._clients[request_id].delivered)
            is_open = has <= self._last_had[request_id] + self._window
            require(is_open, "L2 L7 tried although it got past its death", request_id)
