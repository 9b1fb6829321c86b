"""Runs the scheduler in simulated worlds, one a seed, and checks its invariants at every event.

    python tests/router/core/simulate.py --seed N [--verbose]     one seed, with its last events
    python tests/router/core/simulate.py --seeds 5000 [--first N] many, until one fails

Everything that happens follows from the seed: configuration, arrivals, options, cancels, deadlines,
delays, cut leases, rows gone bad, deaths of the shard group. Knows no time but its own.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from hashlib import blake2b
from pathlib import Path
from random import Random

# Run as a script, only this file's own folder would be searched.
sys.path.insert(0, str(Path(__file__).parents[2]))

from router.core.simulated_clients import Client, RequestSource
from router.core.simulated_model import Violation, require
from router.core.simulated_shard import SimulatedShard
from router.core.simulated_worlds import draw_config, draw_weather
from router.core.simulation_checks import (
    check_admission_order,
    check_empty,
    check_progress,
    check_state,
    check_timers,
)

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    RowState,
    StepPlan,
    StepResult,
)
from santacoder_router.core.scheduler import Scheduler

VOCABULARY_SIZE = 61
NUM_EVENTS = 400
KEPT_EVENTS = 200


class Simulation:
    """One world: clients, a scheduler, a shard group, and what is on its way between them."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.config = draw_config(self._random)
        self.weather = draw_weather(self._random)
        self._now = 1000.0
        self._source = RequestSource(self._random, self.config.max_request_tokens, VOCABULARY_SIZE)
        self.clients: dict[int, Client] = {}
        self._live: list[int] = []
        self.scheduler = Scheduler(self.config, b"simulated seed")
        self._cut_rate = self.weather.cut_rate
        self._begin_epoch(self.weather.poison_rate)
        self._log: deque[tuple[object, ...]] = deque(maxlen=KEPT_EVENTS)
        self._digest = blake2b(digest_size=16)

    def run(self) -> str:
        """Lives through the seed, then lets everything end; returns a digest of all events."""
        weather = self.weather
        actions = {
            self._arrive: weather.arrive,
            self._cancel: weather.cancel,
            self._plan: 6.0,
            self._execute: weather.execute,
            self._deliver: weather.deliver,
            self._die: weather.die,
            self._repeat: weather.repeat,
        }
        for _ in range(NUM_EVENTS):
            self._now += self._random.expovariate(100.0)
            self._random.choices(list(actions), list(actions.values()))[0]()
            check_state(self.scheduler, self.config)
        self._drain()
        return self._digest.hexdigest()

    def story(self) -> str:
        """The last events, one a line."""
        return "\n".join(" ".join(map(str, entry)) for entry in self._log)

    def _drain(self) -> None:
        """No more arrivals and faults: all must end within what the work left can take (L1)."""
        self._cut_rate = 0.0
        self._shard.poison_rate = 0.0
        requests = [self.clients[request_id].request for request_id in self._live]
        work = sum(len(request.prompt_ids) + request.max_new_tokens for request in requests)
        rounds = 2 * self.config.plans_in_flight * work + 50
        while self._live or self._to_shard or self._to_router or self._in_flight:
            rounds -= 1
            require(rounds > 0, "L1 requests do not end", self.scheduler.stats)
            self._now += 0.001
            self._plan()
            self._execute()
            self._deliver()
            check_state(self.scheduler, self.config)
        self._plan()
        self._execute()
        self._deliver()
        check_empty(self.scheduler, self.config)
        require(self._shard.running_count == 0, "L5 the shard still runs sequences")

    def _begin_epoch(self, poison_rate: float) -> None:
        self._shard = SimulatedShard(
            self.config,
            VOCABULARY_SIZE,
            lambda sequence: self.clients[sequence].request.cache_key,
            self._random,
            poison_rate,
        )
        self._to_shard: deque[StepPlan] = deque()
        self._to_router: deque[StepResult] = deque()
        self._in_flight: deque[StepPlan] = deque()
        self._last_result: StepResult | None = None
        self._last_number = 0

    def _arrive(self) -> None:
        client = self._source.draw(self._now)
        request = client.request
        self._note("arrive", request)
        self.clients[request.request_id] = client
        self._live.append(request.request_id)
        self.scheduler.add(request, self._now)
        check_timers(self.scheduler)

    def _cancel(self) -> None:
        if not self.clients:
            return
        is_live_wanted = self._live and self._random.random() < 0.9
        request_id = self._random.choice(self._live if is_live_wanted else list(self.clients))
        was_live = self.clients[request_id].finished is None
        self._note("cancel", request_id)
        events = self.scheduler.cancel(request_id, self._now)
        expected = [Finished(request_id, FinishReason.CANCELLED)] if was_live else []
        require(events == expected, "I4 cancel brings one end or nothing", events)
        self._receive(events)

    def _plan(self) -> None:
        """Asks for a plan, and checks what was planned against what the router knows."""
        is_window_open = len(self._in_flight) < self.config.plans_in_flight
        waiting = self.scheduler._waiting._sequences
        restored = frozenset(
            sequence.request.request_id for sequence in waiting if sequence.is_restored
        )
        plan, events = self.scheduler.plan(self._now)
        self._note("plan", plan, events)
        self._receive(events)
        if is_window_open:
            check_progress(self.scheduler, plan)
        if plan is None:
            return
        require(is_window_open, "I12 plan beyond the window", plan.number)
        require(plan.number == self._last_number + 1, "I14 numbers have no gaps", plan.number)
        self._last_number = plan.number
        check_admission_order(self.scheduler, plan, restored)
        for row in plan.rows:
            self._check_row_owner(row.sequence)
        self._to_shard.append(plan)
        self._in_flight.append(plan)

    def _check_row_owner(self, request_id: int) -> None:
        client = self.clients[request_id]
        require(client.finished is None, "I18 planned after its end", request_id)
        require(client.has_started, "I4 planned without a start", request_id)
        ends = (client.request.deadline, client.request.time_budget_end)
        is_in_time = all(end is None or end > self._now for end in ends)
        require(is_in_time, "I17 planned past its time", request_id)

    def _execute(self) -> None:
        if self._to_shard:
            plan = self._to_shard.popleft()
            self._note("execute", plan.number)
            self._to_router.extend(self._shard.execute(plan, self._cut_rate))

    def _deliver(self) -> None:
        if not self._to_router:
            return
        result = self._to_router.popleft()
        plan = self._in_flight[0]
        events = self.scheduler.apply(result, self._now)
        self._note("deliver", result, events)
        for row, outcome in zip(plan.rows, result.rows, strict=True):
            if outcome.state is RowState.NON_FINITE:
                self._shard.learn_of_poison(row.sequence, self._last_number + 1)
        if result.final:
            self._in_flight.popleft()
        self._last_result = result
        self._receive(events)

    def _die(self) -> None:
        """The shard group dies: whatever is on its way is lost."""
        self._note("die")
        self._begin_epoch(self.weather.poison_rate)
        self._receive(self.scheduler.reset(self._now))

    def _repeat(self) -> None:
        """A result that has been counted comes again: nothing changes."""
        if self._last_result is not None:
            before = self.scheduler.stats
            events = self.scheduler.apply(self._last_result, self._now)
            require(events == [], "I2 I3 a repeated result counts", events)
            require(self.scheduler.stats == before, "I3 a repeated result changes state")

    def _receive(self, events: list[Event]) -> None:
        for event in events:
            client = self.clients[event.request_id]
            client.receive(event, self._now, VOCABULARY_SIZE)
            if client.finished is not None:
                self._live.remove(event.request_id)
                self._source.remember(client)

    def _note(self, *facts: object) -> None:
        self._log.append((round(self._now, 4), *facts))
        self._digest.update(repr(facts).encode())


def run_seed(seed: int, verbose: bool = False) -> str:
    """Runs one seed; returns its digest. A Violation carries seed, world and last events."""
    simulation = Simulation(seed)
    try:
        digest = simulation.run()
    except Exception as error:
        what = f"seed {seed}: {type(error).__name__}: {error}"
        replay = f"replay: python tests/router/core/simulate.py --seed {seed}"
        world = f"{simulation.config}\n{simulation.weather}"
        raise Violation("\n".join((simulation.story(), world, what, replay))) from error
    if verbose:
        print(simulation.story())
    return digest


def main() -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Simulates the scheduler from seeds.")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--first", type=int, default=0, help="first of many seeds (default: 0)")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds (default: 500)")
    parser.add_argument("--verbose", action="store_true", help="print the last events in any case")
    options = parser.parse_args()
    first, count = (options.first, options.seeds) if options.seed is None else (options.seed, 1)
    try:
        for seed in range(first, first + count):
            digest = run_seed(seed, options.verbose)
            if count == 1:
                print(f"seed {seed} holds, digest {digest}")
    except Violation as violation:
        print(violation)
        return 1
    if count > 1:
        print(f"seeds {first} to {first + count - 1} hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
