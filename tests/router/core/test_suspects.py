"""One request kills the group whenever it runs: it is found in few deaths, and no other suffers."""

from __future__ import annotations

from math import ceil, log2
from random import Random

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    RowState,
    StepPlan,
    StepResult,
    Tokens,
)
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.core.suspects import CLEARING_TOKEN_COUNT

NEW_TOKENS = 40
PROMPT_LENGTH = 6
MOST_DEATHS = 40


class World:
    """A scheduler of `count` requests at once, and a group that dies of some at a token each."""

    def __init__(
        self, count: int, poisons: dict[int, int], window: int = 2, idle_deaths_every: int = 0
    ) -> None:
        """`idle_deaths_every`: after so many deaths the next life dies before its first plan."""
        self.idle_deaths_every = idle_deaths_every
        self.scheduler = make_scheduler(
            slot_count=count,
            block_count=16 * count,
            tokens_per_step=64 * count,
            plans_in_flight=window,
            steps_per_lease=4,
        )
        self.poisons = poisons
        self.deaths_with: dict[int, int] = dict.fromkeys(poisons, 0)
        self.outputs: dict[int, int] = {}
        self.ends: dict[int, FinishReason] = {}
        for number in range(1, count + 1):
            prompt = range(number, number + PROMPT_LENGTH)
            self.scheduler.add(make_request(number, prompt, new=NEW_TOKENS), 0.0)
            self.outputs[number] = 0

    def live(self, most_deaths: int = MOST_DEATHS) -> None:
        """Until every request has ended, with so many deaths at most."""
        plans: list[StepPlan] = []
        deaths = 0
        while len(self.ends) < len(self.outputs):
            while (plan := self.scheduler.plan(0.0)[0]) is not None:
                plans.append(plan)
            assert plans, "nobody is planned, and somebody waits"
            plan = plans.pop(0)
            if self._kills(plan):
                deaths += 1
                assert deaths <= most_deaths
                for number in self.poisons:
                    # What is in a slot ran: the group dies before it tells.
                    running = self.scheduler._group.running
                    ran = any(run.sequence.request.request_id == number for run in running)
                    self.deaths_with[number] += ran
                plans = []
                self.receive(self.scheduler.reset(0.0))
                if self.idle_deaths_every and deaths % self.idle_deaths_every == 0:
                    self.receive(self.scheduler.reset(0.0))
            else:
                self.receive(self.scheduler.apply(self._answer(plan), 0.0))

    def receive(self, events: list[Event]) -> None:
        for event in events:
            assert event.request_id not in self.ends
            if isinstance(event, Tokens):
                self.outputs[event.request_id] += len(event.token_ids)
            elif isinstance(event, Finished):
                self.ends[event.request_id] = event.reason

    def _kills(self, plan: StepPlan) -> bool:
        for row in plan.rows:
            last = self.outputs[row.sequence] + plan.num_steps - 1
            if last >= self.poisons.get(row.sequence, NEW_TOKENS):
                return True
        return False

    def _answer(self, plan: StepPlan) -> StepResult:
        rows = []
        for row in plan.rows:
            count = min(plan.num_steps, NEW_TOKENS - self.outputs[row.sequence])
            count = count if row.sample else 0
            is_last = self.outputs[row.sequence] + count == NEW_TOKENS
            rows.append(((9,) * count, RowState.LENGTH if is_last else RowState.RUNNING))
        return answer(plan, *rows)


def bound(count: int) -> int:
    """Most deaths with the poison among `count` at once."""
    return 2 + ceil(log2(count))


@pytest.mark.fault("S18")
@pytest.mark.parametrize("count", [1, 2, 3, 8, 13, 32, 256])
def test_the_guilty_one_is_found_in_few_deaths_and_the_others_end_as_they_would(
    count: int,
) -> None:
    for seed in range(20 if count < 256 else 3):
        random = Random(seed)
        guilty, token = random.randint(1, count), random.randrange(NEW_TOKENS)
        world = World(count, {guilty: token}, window=random.randint(1, 3))
        world.live()
        assert world.ends.pop(guilty) is FinishReason.POISON
        assert set(world.ends.values()) <= {FinishReason.LENGTH}
        assert world.deaths_with[guilty] <= bound(count), (seed, world.deaths_with)
        assert not world.scheduler._suspects


@pytest.mark.fault("S18")
def test_two_guilty_ones_are_both_found() -> None:
    for seed in range(20):
        random = Random(seed)
        guilty = random.sample(range(1, 17), 2)
        world = World(16, {number: random.randrange(NEW_TOKENS) for number in guilty})
        world.live()
        assert {number: world.ends.pop(number) for number in guilty} == dict.fromkeys(
            guilty, FinishReason.POISON
        )
        assert set(world.ends.values()) == {FinishReason.LENGTH}


@pytest.mark.fault("S18")
@pytest.mark.parametrize("every", [1, 2])
def test_deaths_while_nobody_runs_hide_nobody(every: int) -> None:
    for seed in range(10):
        random = Random(seed)
        guilty = random.randint(1, 8)
        world = World(8, {guilty: random.randrange(NEW_TOKENS)}, idle_deaths_every=every)
        world.live()
        assert world.ends[guilty] is FinishReason.POISON
        assert world.deaths_with[guilty] <= bound(8), (seed, world.deaths_with)


def test_a_group_that_is_ended_from_outside_is_held_against_nobody() -> None:
    scheduler = three_running()
    for _ in range(5):
        assert len(planned(scheduler).rows) == 3
        assert scheduler.reset(0.0, is_excused=True) == []
    assert not scheduler._suspects


def kill(scheduler: Scheduler) -> list[Event]:
    return scheduler.reset(0.0)


def three_running() -> Scheduler:
    scheduler = make_scheduler(
        slot_count=8,
        plans_in_flight=1,
        block_count=200,
        blocks_per_sequence=64,
        context_token_count=256,
    )
    for number in (1, 2, 3):
        scheduler.add(make_request(number, range(number, number + 6), new=100), 0.0)
    return scheduler


@pytest.mark.fault("S18")
def test_one_death_or_two_with_progress_between_are_held_against_nobody() -> None:
    scheduler = three_running()
    for _ in range(3):
        for _ in range(CLEARING_TOKEN_COUNT + 2):
            scheduler.apply(answer(planned(scheduler)), 0.0)
        assert len(planned(scheduler).rows) == 3
        assert kill(scheduler) == []
        assert not scheduler._waiting.is_trying


def tried(scheduler: Scheduler) -> StepPlan:
    """Two deaths, and the first half is tried."""
    for _ in range(2):
        planned(scheduler)
        assert kill(scheduler) == []
    return planned(scheduler)


def test_while_half_is_tried_everybody_else_waits_and_may_be_cancelled() -> None:
    scheduler = three_running()
    first = tried(scheduler)
    assert {row.sequence for row in first.rows} == {1, 2}
    scheduler.add(make_request(4, range(40, 46)), 0.0)
    assert scheduler.cancel(3, 0.0) == [Finished(3, FinishReason.CANCELLED)]
    assert scheduler.plan(0.0) == (None, [])
    for number in (1, 2):
        scheduler.cancel(number, 0.0)
    scheduler.apply(answer(first), 0.0)
    assert {row.sequence for row in planned(scheduler).rows} == {4}


def test_a_half_that_gets_past_its_point_makes_way_for_the_other() -> None:
    scheduler = three_running()
    plan = tried(scheduler)
    tried_count = 0
    while {row.sequence for row in plan.rows} == {1, 2}:
        tried_count += plan.num_steps
        scheduler.apply(answer(plan), 0.0)
        plan = planned(scheduler)
    assert tried_count > CLEARING_TOKEN_COUNT
    assert {row.sequence for row in plan.rows} == {3}
    assert kill(scheduler) == [Finished(3, FinishReason.POISON)]
    assert {row.sequence for row in planned(scheduler).rows} == {1, 2}
