"""One simulated world: clients, a scheduler, a shard group, and what is on its way between them.

Everything that happens follows from the seed. Knows no time but its own.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from router.core.blame_checks import Blame
from router.core.cache_checks import CacheOrder
from router.core.fair_line import FairLine
from router.core.plan_checks import PlanCheck
from router.core.result_checks import expected_events
from router.core.room_checks import RoomCheck
from router.core.simulated_clients import Client
from router.core.simulated_life import VOCABULARY_SIZE, GroupLife
from router.core.simulated_model import Violation, require
from router.core.simulated_requests import RequestSource
from router.core.simulated_worlds import draw_world, has_weak_digests, most_request_tokens
from router.core.simulation_checks import (
    check_empty,
    check_line,
    check_state,
    check_timer_count,
    fingerprint,
    live_rows,
    tried_ids,
)

from santacoder_router.core.plan import Event, Finished, FinishReason, StepPlan, Tokens
from santacoder_router.core.room import displaced_by
from santacoder_router.core.scheduler import Scheduler

NUM_EVENTS, KEPT_EVENTS = 350, 200


class Outcome(NamedTuple):
    """A seed has held: a digest of all its events, and how much happened."""

    digest: str
    event_count: int
    token_count: int


class Simulation:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.config, self.weather = draw_world(self._random)
        self._has_weak_digests = has_weak_digests(seed)
        self._now = 1000.0
        self._source = RequestSource(self._random, self.config, self.weather, VOCABULARY_SIZE)
        self.clients: dict[int, Client] = {}
        self._live: dict[int, Client] = {}
        self._line = FairLine(self.config.aging_seconds, self.clients)
        self._blame = Blame(self.clients, self.config)
        self.scheduler = Scheduler(self.config, b"simulated seed")
        self._cut_rate = self.weather.cut_rate
        self._life = self._begin_life()
        self._log: deque[tuple[object, ...]] = deque(maxlen=KEPT_EVENTS)
        self._digest = blake2b(digest_size=16)
        self._event_count = 0
        self._token_count = 0

    def run(self) -> Outcome:
        """Lives through the seed, then lets everything end."""
        limit = most_request_tokens(self.config)
        require(self.scheduler.max_request_tokens == limit, "I5 wrong limit", limit)
        actions = {
            self._arrive: self.weather.arrive,
            self._refuse: 0.1,
            self._cancel: self.weather.cancel,
            self._plan: 6.0,
            self._execute: self.weather.execute,
            self._deliver: self.weather.deliver,
            self._die: self.weather.die,
            self._misdeliver: self.weather.misdeliver,
            self._wake: self.weather.wake,
            self._make_room: 0.2,
            self._hold: self.weather.hold,
            self._let_go: 2 * self.weather.hold,
        }
        names, weights = list(actions), list(actions.values())
        # What finds nothing to do is no event.
        while self._event_count < NUM_EVENTS:
            self._now += self._random.expovariate(100.0)
            (action,) = self._random.choices(names, weights)
            action()
            if action != self._execute:
                check_state(self.scheduler, self.config)
        self._drain()
        return Outcome(self._digest.hexdigest(), self._event_count, self._token_count)

    def story(self) -> str:
        """The last events, one a line, and the world they happened in."""
        entries = [*self._log, (self.config, self.weather)]
        return "\n".join(" ".join(map(str, entry)) for entry in entries)

    def _drain(self) -> None:
        """No more arrivals and faults: all must end within what the work left can take (L1)."""
        self._cut_rate = self._life.shard.poison_rate = 0.0
        for client in self._line.held:
            self.scheduler.hold(client.request.request_id, False, self._now)
            self._line.let_go(client, self._now)
        work = sum(client.longest_text for client in self._live.values())
        rounds = 2 * self.config.plans_in_flight * work + 50
        while self._live or self._life.in_flight_count:
            rounds -= 1
            require(rounds > 0, "L1 requests do not end", self.scheduler.stats)
            self._now += 0.001
            self._go_round()
        self._go_round()
        check_empty(self.scheduler, self.config)
        require(self._life.shard.running_count == 0, "L5 the shard still runs sequences")

    def _go_round(self) -> None:
        self._plan()
        self._execute()
        self._deliver()
        check_state(self.scheduler, self.config)

    def _begin_life(self) -> GroupLife:
        return GroupLife(
            self.config,
            self.clients,
            self._random,
            self.weather.poison_rate,
            is_cache_exact=not self._has_weak_digests,
        )

    def _arrive(self) -> None:
        for _ in range(self._random.choice([1, 1, 3])):
            client = self._source.draw(self._now)
            request_id = client.request.request_id
            self.clients[request_id] = self._live[request_id] = client
            self.scheduler.add(client.request, self._now)
            self._line.arrive(client, self._now)
            self._note("arrive", client.request)
            check_timer_count(self.scheduler)

    def _refuse(self) -> None:
        before = fingerprint(self.scheduler)
        request = self._source.draw_impossible()
        self._note("refuse", request)
        try:
            self.scheduler.add(request, self._now)
        except ValueError:
            require(fingerprint(self.scheduler) == before, "I5 a refused request leaves traces")
        else:
            raise Violation(f"I5 an impossible request is accepted: {request}")

    def _cancel(self) -> None:
        if not self.clients:
            return
        among = self._live if self._live and self._random.random() < 0.9 else self.clients
        request_id = self._random.choice(list(among))
        was_live = request_id in self._live
        reason = self._random.choice([FinishReason.CANCELLED, FinishReason.FAILED])
        self._note("cancel", request_id, reason)
        order = CacheOrder(self.scheduler)
        events = self.scheduler.cancel(request_id, self._now, reason)
        expected = [Finished(request_id, reason)] if was_live else []
        require(events == expected, "I4 cancel brings one end or nothing", events)
        order.check_releases()
        self._receive(events)

    def _make_room(self) -> None:
        """Somebody comes to a queue that is full, and others may have to go for it."""
        client = self._source.draw(self._now)
        self.clients[client.request.request_id] = client
        request, waiting = client.request, self.scheduler.waiting
        places = self._random.choice([0, 1, 1, 5])
        tokens = self._random.choice([0, 0, len(request.prompt_ids)])
        work = len(request.prompt_ids) + request.max_new_tokens
        check = RoomCheck(request.caller, request.priority, work, self._line.lines)
        displaced = displaced_by(request.caller, request.priority, work, waiting, (places, tokens))
        numbers = None if displaced is None else [one.request.request_id for one in displaced]
        self._note("make room", request, places, tokens, numbers)
        check.check(displaced, places, tokens)
        for request_id in numbers or ():
            reason = FinishReason.DISPLACED
            self._receive(self.scheduler.cancel(request_id, self._now, reason))

    def _hold(self) -> None:
        """A reader is behind: its request gives up its slot, if it has one."""
        if self._live:
            client = self._random.choice(list(self._live.values()))
            self._note("hold", client.request.request_id)
            order = CacheOrder(self.scheduler)
            self.scheduler.hold(client.request.request_id, True, self._now)
            order.check_releases()
            self._line.hold(client)

    def _let_go(self) -> None:
        """A reader has caught up, or was never behind."""
        if self._live:
            among = self._line.held or list(self._live.values())
            client = self._random.choice(among)
            self._note("let go", client.request.request_id)
            self.scheduler.hold(client.request.request_id, False, self._now)
            self._line.let_go(client, self._now)

    def _wake(self) -> None:
        """Time goes on to the next deadline, to the moment."""
        self._now = max(self._now, self.scheduler.next_deadline() or 0.0)
        self._plan()

    def _plan(self) -> None:
        """Asks for a plan, and checks what was planned against what the router knows."""
        is_window_open = self._life.in_flight_count < self.config.plans_in_flight
        check = PlanCheck(self.scheduler, self.config, self.clients, self._line)
        order = CacheOrder(self.scheduler)
        plan, events = self.scheduler.plan(self._now)
        self._line.tried = tried_ids(self.scheduler)
        self._blame.check_trial(self._line.tried or ())
        self._note("plan", plan, events)
        self._receive([event for event in events if isinstance(event, Finished)])
        require(plan is None or is_window_open, "I12 plan beyond the window", plan)
        check.make_way()
        # A trial of suspects begins when the plans before it are answered.
        in_flight = self.scheduler._group.in_flight
        if is_window_open and not self.scheduler._suspects.waits_for(in_flight):
            check.check(plan, events, self._now)
            self._life.cache.is_exact &= not order.check_evictions(plan)
        order.check_releases()
        self._receive([event for event in events if not isinstance(event, Finished)])
        check_line(self.scheduler, list(self._live.values()), self._now)
        if plan is not None:
            self._send(plan)

    def _send(self, plan: StepPlan) -> None:
        for row in plan.rows:
            require(row.sequence in self._live, "I18 planned after its end", row.sequence)
            is_held = self.clients[row.sequence] in self._line.held
            require(not is_held, "I18 planned though nobody reads", row.sequence)
            has_started = self.clients[row.sequence].has_started
            require(has_started, "I4 planned without a start", row.sequence)
        self._life.send(plan, self.scheduler)

    def _execute(self) -> None:
        number = self._life.execute(self._cut_rate)
        if number is not None:
            self._note("execute", number)

    def _deliver(self) -> None:
        result = self._life.take_result()
        if result is None:
            return
        live = live_rows(self.scheduler)
        order = CacheOrder(self.scheduler)
        events = self.scheduler.apply(result, self._now)
        self._note("deliver", result, events)
        order.check_releases()
        expected = expected_events(self._life.next_answered, result, live)
        require(events == expected, "I1 a result brings other events", events, expected)
        self._receive(events)
        self._life.follow_result(result, live)

    def _die(self) -> None:
        """The shard group dies: whatever is on its way is lost."""
        self._note("die")
        self._line.die()
        at_work = self.scheduler._group.at_work()
        self._life = self._begin_life()
        events = self.scheduler.reset(self._now)
        self._line.tried = tried_ids(self.scheduler)
        self._blame.check_death([run.sequence.request.request_id for run in at_work], events)
        self._receive(events)

    def _misdeliver(self) -> None:
        """A result comes again, too early or with a row too few: nothing changes (I2, I3)."""
        results = self._life.out_of_place()
        if not results:
            return
        result = self._random.choice(results)
        self._note("misdeliver", result)
        before = fingerprint(self.scheduler)
        events = self.scheduler.apply(result, self._now)
        require(events == [], "I2 I3 a result out of place counts", events)
        require(fingerprint(self.scheduler) == before, "I3 a result out of place changes state")

    def _receive(self, events: list[Event]) -> None:
        for event in events:
            client = self.clients[event.request_id]
            client.receive(event, self._now, VOCABULARY_SIZE)
            if isinstance(event, Tokens):
                self._token_count += len(event.token_ids)
            if client.finished is not None:
                del self._live[event.request_id]
                self._line.end(client)
                self._source.remember(client)

    def _note(self, *facts: object) -> None:
        self._event_count += 1
        self._log.append((round(self._now, 4), *facts))
        self._digest.update(repr(facts).encode())
