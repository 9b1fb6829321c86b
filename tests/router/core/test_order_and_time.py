"""Facts of order and time: who goes first, and whose time is up."""

from __future__ import annotations

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned

from santacoder_router.core.plan import Finished, FinishReason, Priority, RowState
from santacoder_router.core.policy import aged_priority
from santacoder_router.core.scheduler import Scheduler


def _admission_order(scheduler: Scheduler, now: float) -> list[int]:
    """Who gets the only slot, one after the other; each runs one token."""
    order: list[int] = []
    while (plan := scheduler.plan(now)[0]) is not None:
        order += [admit.sequence for admit in plan.admits]
        scheduler.apply(answer(plan, *[((5,), RowState.LENGTH)] * len(plan.rows)), now)
    return order


def _one_slot() -> Scheduler:
    return make_scheduler(slot_count=1, plans_in_flight=1, queue_wait_seconds=1000.0)


def test_the_higher_class_goes_first_and_within_a_class_the_older() -> None:
    scheduler = _one_slot()
    for request_id, priority in enumerate((1, 2, 3, 1, 2, 3), start=1):
        request = make_request(request_id, [request_id], new=1, priority=Priority(priority))
        scheduler.add(request, 0.0)
    assert _admission_order(scheduler, 0.0) == [3, 6, 2, 5, 1, 4]


def test_a_class_that_waits_for_aging_seconds_is_worth_one_more_for_one_turn() -> None:
    scheduler = _one_slot()
    scheduler.add(make_request(1, [1], new=1, priority=Priority.LOW), 0.0)
    scheduler.add(make_request(2, [2], new=1, priority=Priority.LOW), 0.0)
    scheduler.add(make_request(3, [3], new=1, priority=Priority.NORMAL), 5.1)
    scheduler.add(make_request(4, [4], new=1, priority=Priority.NORMAL), 5.1)
    scheduler.add(make_request(5, [5], new=1, priority=Priority.HIGH), 9.9)
    assert _admission_order(scheduler, 11.0) == [5, 1, 3, 4, 2]


def test_a_low_class_is_served_though_the_high_class_never_stops_coming() -> None:
    scheduler = _one_slot()
    scheduler.add(make_request(1, [1], new=1, priority=Priority.LOW), 0.0)
    order: list[int] = []
    for second in range(20):
        scheduler.add(make_request(second + 2, [2], new=1, priority=Priority.HIGH), float(second))
        plan = planned(scheduler, float(second))
        order += [admit.sequence for admit in plan.admits]
        scheduler.apply(answer(plan, ((5,), RowState.LENGTH)), float(second))
    assert order.index(1) == 10


def test_another_policy_can_be_passed_in() -> None:
    scheduler = make_scheduler()
    last_first = Scheduler(scheduler._config, b"seed", rank=lambda request, arrival: -arrival)
    last_first.add(make_request(1, [1]), 0.0)
    last_first.add(make_request(2, [2]), 1.0)
    assert [admit.sequence for admit in planned(last_first, 1.0).admits] == [2, 1]


def test_the_order_of_two_requests_does_not_change_with_time() -> None:
    rank = aged_priority(5.0)
    low = make_request(1, [1], priority=Priority.LOW)
    high = make_request(2, [1], priority=Priority.HIGH)
    assert rank(high, 9.0) < rank(low, 0.0) < rank(high, 11.0)


def test_nobody_overtakes_a_head_that_does_not_fit() -> None:
    scheduler = make_scheduler(block_count=6, plans_in_flight=1)
    scheduler.add(make_request(1, range(8), new=4), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    scheduler.add(make_request(2, range(20, 40), new=4), 0.0)
    scheduler.add(make_request(3, [50], new=1), 0.0)
    assert planned(scheduler).admits == ()


@pytest.mark.fault("C8")
def test_a_request_past_its_deadline_is_not_admitted() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), deadline=2.0), 0.0)
    assert scheduler.next_deadline() == 2.0
    assert scheduler.plan(2.0) == (None, [Finished(1, FinishReason.DEADLINE)])
    assert scheduler.next_deadline() is None


@pytest.mark.fault("C8")
def test_a_running_request_past_its_deadline_is_in_no_further_plan() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), deadline=2.0), 0.0)
    scheduler.add(make_request(2, range(10, 14)), 0.0)
    planned(scheduler, 1.0)
    plan, events = scheduler.plan(2.0)
    assert plan is not None
    assert events == [Finished(1, FinishReason.DEADLINE)]
    assert [row.sequence for row in plan.rows] == [2]
    assert [retire.sequence for retire in plan.retires] == [1]


def test_time_is_up_even_when_the_window_of_plans_is_full() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(4), deadline=2.0), 0.0)
    planned(scheduler)
    assert scheduler.plan(3.0) == (None, [Finished(1, FinishReason.DEADLINE)])


@pytest.mark.parametrize("deadline", [5.0, 2.0])
def test_a_time_budget_ends_a_request_with_what_it_has(deadline: float) -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), time_budget_end=2.0, deadline=deadline), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    assert scheduler.plan(6.0)[1] == [Finished(1, FinishReason.TIME_BUDGET)]


@pytest.mark.fault("R4")
def test_a_wait_too_long_ends_only_requests_that_never_started() -> None:
    scheduler = make_scheduler(slot_count=1, queue_wait_seconds=3.0)
    scheduler.add(make_request(1, range(4), new=20), 0.0)
    scheduler.add(make_request(2, range(4)), 1.0)
    planned(scheduler, 1.0)
    assert scheduler.next_deadline() == 4.0
    scheduler.reset(2.0)
    plan, events = scheduler.plan(4.0)
    assert plan is not None
    assert [admit.sequence for admit in plan.admits] == [1]
    assert events == [Finished(2, FinishReason.QUEUE_TIMEOUT)]


def test_queue_counts_follow_arrival_and_admission() -> None:
    scheduler = make_scheduler(slot_count=1)
    scheduler.add(make_request(1, range(4)), 0.0)
    scheduler.add(make_request(2, range(6)), 0.0)
    assert (scheduler.queued_request_count, scheduler.queued_token_count) == (2, 10)
    planned(scheduler)
    assert (scheduler.queued_request_count, scheduler.queued_token_count) == (1, 6)
    assert scheduler.stats.running_request_count == 1
