"""One life of a shard group: what is on its way to it and back, and what that has to add up to.

Knows plans and results; knows no arrivals and no deaths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from random import Random

from router.core.cache_checks import CacheOracle
from router.core.result_checks import LeaseOracle
from router.core.simulated_clients import Client
from router.core.simulated_model import require
from router.core.simulated_shard import SimulatedShard

from santacoder_router.core.plan import RowState, StepPlan, StepResult
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig

VOCABULARY_SIZE = 61


class GroupLife:
    """A shard group with its plans and results in flight; all of it ends when the group dies."""

    def __init__(
        self,
        config: SchedulerConfig,
        clients: Mapping[int, Client],
        random: Random,
        poison_rate: float,
        is_cache_exact: bool,
    ) -> None:
        self.shard = SimulatedShard(
            config,
            VOCABULARY_SIZE,
            lambda sequence: clients[sequence].request.cache_key,
            random,
            poison_rate,
        )
        self.cache = CacheOracle(config.block_size, is_cache_exact)
        self.leases = LeaseOracle(config)
        self._clients = clients
        self._to_shard: deque[StepPlan] = deque()
        self._to_router: deque[StepResult] = deque()
        self._in_flight: deque[StepPlan] = deque()
        # What came last, to come again; a result of an older epoch does not get this far.
        self._counted: deque[StepResult] = deque(maxlen=3)
        self._last_number = 0

    @property
    def in_flight_count(self) -> int:
        """Plans sent and not yet answered in full."""
        return len(self._in_flight)

    @property
    def next_answered(self) -> StepPlan:
        """The plan that the next result answers."""
        return self._in_flight[0]

    def send(self, plan: StepPlan, scheduler: Scheduler) -> None:
        """Takes a plan on its way, after a look at its number, its cache hits and its steps."""
        require(plan.number == self._last_number + 1, "I14 numbers have no gaps", plan.number)
        self._last_number = plan.number
        self.cache.follow_plan(plan, self._clients)
        self.leases.check(plan, scheduler)
        self._to_shard.append(plan)
        self._in_flight.append(plan)

    def execute(self, cut_rate: float) -> int | None:
        """Carries out the next plan on its way, if there is one; returns its number."""
        if not self._to_shard:
            return None
        plan = self._to_shard.popleft()
        self._to_router.extend(self.shard.execute(plan, cut_rate))
        return plan.number

    def take_result(self) -> StepResult | None:
        """The next result on its way, if there is one."""
        return self._to_router.popleft() if self._to_router else None

    def follow_result(self, result: StepResult, live: list[bool]) -> None:
        """A result has been counted; `live` are the rows that it still meant something to."""
        plan = self._in_flight[0]
        self.leases.observe(plan, result)
        for row, outcome, is_live in zip(plan.rows, result.rows, live, strict=True):
            if outcome.state is RowState.NON_FINITE:
                self.shard.learn_of_poison(row.sequence, self._last_number + 1)
                self.cache.is_exact = False
            elif is_live and outcome.token_ids:
                client = self._clients[row.sequence]
                is_matched = outcome.state in (RowState.END_OF_TEXT, RowState.STOP_ID)
                self.cache.accept(client.request, client.delivered, is_matched)
        self._counted.append(result)
        if result.final:
            self._in_flight.popleft()

    def out_of_place(self) -> list[StepResult]:
        """Results that are not the next: counted already, too early, or with a row too few."""
        results = [*self._counted, *list(self._to_router)[1:]]
        if self._to_router and self._to_router[0].rows:
            head = self._to_router[0]
            results.append(head._replace(rows=head.rows[1:]))
        return results
