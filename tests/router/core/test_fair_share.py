"""Facts of sharing: who gets how much, who makes room, and how long a newcomer will wait."""

from __future__ import annotations

from collections import Counter

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned

from santacoder_router.core.drain import DrainRate
from santacoder_router.core.plan import Caller, Priority, Request, RowState
from santacoder_router.core.room import displaced_by
from santacoder_router.core.scheduler import Scheduler

FLOODER, LIGHT, HEAVY = Caller("flooder"), Caller("light"), Caller("heavy", weight=3.0)


def one_slot(**changes: float) -> Scheduler:
    return make_scheduler(
        slot_count=1, plans_in_flight=1, queue_wait_seconds=1e6, aging_seconds=1e6, **changes
    )


class Turns:
    """One slot; every sequence uses all its tokens in one answer. Remembers who had turns."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.callers: list[str] = []
        self._count = 0
        self._known: dict[int, Request] = {}

    def add(self, caller: Caller, prompt_length: int = 4, now: float = 0.0, **more: object) -> int:
        self._count += 1
        request = make_request(self._count, range(prompt_length), new=1, caller=caller, **more)
        self._known[self._count] = request
        self.scheduler.add(request, now)
        return self._count

    def next(self, now: float = 0.0) -> Request:
        plan = planned(self.scheduler, now)
        self.scheduler.apply(answer(plan, ((5,), RowState.LENGTH)), now)
        [row] = plan.rows
        request = self._known[row.sequence]
        self.callers.append(request.caller.name)
        return request


def test_a_flooder_does_not_delay_whoever_asks_for_less() -> None:
    turns = Turns(one_slot())
    for _ in range(500):
        turns.add(FLOODER)
    for _ in range(20):
        turns.add(LIGHT)
        turns.next()
        turns.next()
    assert Counter(turns.callers) == {"flooder": 20, "light": 20}


def test_callers_share_by_work_and_by_weight() -> None:
    turns = Turns(one_slot())
    for _ in range(200):
        turns.add(FLOODER, prompt_length=19)
        turns.add(LIGHT, prompt_length=4)
        turns.add(HEAVY, prompt_length=19)
    work: Counter[str] = Counter()
    for _ in range(150):
        request = turns.next()
        work[request.caller.name] += len(request.prompt_ids) + 1
    assert work["light"] == pytest.approx(work["flooder"], rel=0.1)
    assert work["heavy"] == pytest.approx(3 * work["flooder"], rel=0.1)


def test_whoever_is_alone_gets_everything_and_owes_nothing_afterwards() -> None:
    turns = Turns(one_slot())
    for _ in range(50):
        turns.add(LIGHT)
        turns.next()
    for _ in range(4):
        turns.add(LIGHT)
        turns.add(FLOODER)
    for _ in range(8):
        turns.next()
    assert turns.callers[50:] == ["light", "flooder"] * 4


def test_within_a_callers_class_it_goes_by_arrival() -> None:
    turns = Turns(one_slot())
    numbers = [turns.add(FLOODER, now=float(second)) for second in range(5)]
    assert [turns.next(9.0).request_id for _ in range(5)] == numbers


def test_new_tokens_that_were_not_used_are_given_back() -> None:
    scheduler = one_slot()
    for number, caller in enumerate([LIGHT, FLOODER] * 3, start=1):
        scheduler.add(make_request(number, range(4), new=40, caller=caller), 0.0)
    order: list[int] = []
    for _ in range(6):
        plan = planned(scheduler)
        [row] = plan.rows
        order.append(row.sequence)
        # The light one ends after a token; the flooder is cut off when it has used all.
        state = RowState.END_OF_TEXT if row.sequence % 2 else RowState.LENGTH
        scheduler.apply(answer(plan, ((5,), state)), 0.0)
    assert order[:2] == [1, 2] and order[2] in (3, 4)


def test_a_caller_runs_so_many_and_the_others_go_past_it() -> None:
    scheduler = make_scheduler(slot_count=4, plans_in_flight=1)
    few = Caller("few", running_limit=2)
    for number in range(1, 5):
        scheduler.add(make_request(number, range(4), caller=few), 0.0)
    scheduler.add(make_request(5, range(4), caller=LIGHT), 0.0)
    plan = planned(scheduler)
    assert [admit.sequence for admit in plan.admits] == [1, 5, 2]
    ended = ((9,), RowState.LENGTH)
    running = ((9,), RowState.RUNNING)
    scheduler.apply(answer(plan, ended, running, running), 0.0)
    assert [admit.sequence for admit in planned(scheduler).admits] == [3]


def test_a_flood_of_a_low_class_delays_no_high_one_and_still_moves() -> None:
    turns = Turns(
        make_scheduler(slot_count=1, plans_in_flight=1, queue_wait_seconds=1e6, aging_seconds=5.0)
    )
    for _ in range(400):
        turns.add(FLOODER, priority=Priority.LOW)
    waits: list[int] = []
    # A turn takes a second, and a high one comes every other second.
    for second in range(0, 200, 2):
        wanted = turns.add(LIGHT, now=float(second), priority=Priority.HIGH)
        done = [turns.next(second + late).request_id for late in (0.0, 1.0)]
        waits.append(done.index(wanted))
    assert sum(waits) == 0
    assert turns.callers.count("flooder") == 100


def test_a_low_class_moves_though_the_high_one_takes_all_there_is() -> None:
    turns = Turns(
        make_scheduler(slot_count=1, plans_in_flight=1, queue_wait_seconds=1e6, aging_seconds=5.0)
    )
    for _ in range(50):
        turns.add(FLOODER, priority=Priority.LOW)
    for second in range(101):
        turns.add(LIGHT, now=float(second), priority=Priority.HIGH)
        turns.add(LIGHT, now=float(second), priority=Priority.HIGH)
        turns.next(float(second))
    # Two classes up takes ten seconds, each time.
    assert 8 <= turns.callers.count("flooder") <= 11


def full_queue() -> Turns:
    """Nobody has a slot yet: six of the flooder, one of the light, and before them two low ones."""
    turns = Turns(one_slot())
    for caller, count, priority in (
        (FLOODER, 2, Priority.LOW),
        (FLOODER, 6, Priority.NORMAL),
        (LIGHT, 1, Priority.NORMAL),
    ):
        for _ in range(count):
            turns.add(caller, priority=priority)
    return turns


@pytest.mark.parametrize(
    ("caller", "priority", "places", "leave"),
    [
        # A lower class makes room first, the newest first.
        (LIGHT, Priority.NORMAL, 1, [2]),
        (FLOODER, Priority.NORMAL, 2, [2, 1]),
        # Then the longest line, until it is no longer than the newcomer's.
        (LIGHT, Priority.NORMAL, 4, [2, 1, 8, 7]),
        (FLOODER, Priority.NORMAL, 3, None),
        (Caller("new"), Priority.NORMAL, 7, [2, 1, 8, 7, 6, 5, 4]),
        (Caller("new"), Priority.NORMAL, 8, None),
        # A low newcomer displaces nobody above it.
        (LIGHT, Priority.LOW, 1, [2]),
        (LIGHT, Priority.LOW, 3, None),
        (LIGHT, Priority.HIGH, 9, [2, 1, 8, 7, 6, 5, 4, 3, 9]),
    ],
)
def test_who_makes_room_in_a_full_queue(
    caller: Caller, priority: Priority, places: int, leave: list[int] | None
) -> None:
    waiting = full_queue().scheduler.waiting
    before = [sequence.request.request_id for sequence in waiting]
    displaced = displaced_by(caller, priority, 5, waiting, (places, 0))
    numbers = None if displaced is None else [each.request.request_id for each in displaced]
    assert numbers == leave
    assert [sequence.request.request_id for sequence in waiting] == before


def test_whoever_has_had_a_slot_keeps_its_place() -> None:
    scheduler = make_scheduler(block_count=3, plans_in_flight=1)
    scheduler.add(make_request(1, range(4), new=8, caller=LIGHT), 0.0)
    scheduler.add(make_request(2, range(10, 14), new=8, caller=FLOODER), 0.0)
    while scheduler.stats.preemption_count == 0:
        scheduler.apply(answer(planned(scheduler)), 0.0)
    assert [sequence.request.request_id for sequence in scheduler.waiting] == [2]
    assert displaced_by(LIGHT, Priority.HIGH, 5, scheduler.waiting, (1, 0)) is None


def test_the_time_until_a_turn_is_measured_and_is_the_callers_own() -> None:
    turns = Turns(one_slot())
    for _ in range(60):
        turns.add(FLOODER)
    waiting = turns.scheduler.waiting
    assert waiting.seconds_until_turn(FLOODER, Priority.NORMAL, 0.0) is None
    for second in range(20):
        turns.next(float(second))
    # One in line takes a second; 40 of the flooder's are left, and nobody else's.
    assert waiting.seconds_until_turn(FLOODER, Priority.NORMAL, 19.0) == pytest.approx(40, rel=0.1)
    assert waiting.seconds_until_turn(LIGHT, Priority.NORMAL, 19.0) == 0.0
    assert waiting.seconds_until_turn(LIGHT, Priority.LOW, 19.0) == pytest.approx(40, rel=0.1)
    for _ in range(10):
        turns.add(LIGHT, now=19.0)
    assert waiting.seconds_until_turn(LIGHT, Priority.NORMAL, 19.0) == pytest.approx(20, rel=0.1)
    # Nobody gets a slot any more: it takes longer and longer.
    assert (waiting.seconds_until_turn(LIGHT, Priority.NORMAL, 60.0) or 0.0) > 100


def test_slots_that_were_free_tell_of_no_rate() -> None:
    rate = DrainRate()
    for second in range(100):
        rate.take(10, float(second))
    assert rate.seconds_for(10, 100.0) is None
    rate.block(100.0)
    for second in range(101, 131):
        rate.take(10, float(second))
    assert rate.seconds_for(10, 130.0) == pytest.approx(1.0, rel=0.01)
    rate.rest()
    assert rate.seconds_for(10, 1000.0) == pytest.approx(1.0, rel=0.01)


def test_callers_who_have_nothing_are_forgotten() -> None:
    turns = Turns(one_slot())
    for number in range(5000):
        turns.add(Caller(f"once {number}"))
        turns.add(Caller("always"))
        turns.next()
    waiting = turns.scheduler.waiting
    share = waiting.share(Priority.NORMAL)
    assert len(waiting._loads) <= len(waiting) + 1
    assert len(share._lines) <= 2 * len(waiting) + 64 + 2 * 1024 + 1
