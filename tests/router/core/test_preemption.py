"""Facts of preemption by recompute: who gives way, and how it comes back."""

from __future__ import annotations

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned, run_to_end

from santacoder_router.core.plan import Finished, Priority, Retire, RowState, StepPlan, Tokens
from santacoder_router.core.scheduler import Scheduler


def _until_preemption(scheduler: Scheduler) -> StepPlan:
    """Runs until a plan preempts somebody; that plan is unanswered."""
    while True:
        plan = planned(scheduler)
        if scheduler.stats.preemption_count:
            return plan
        scheduler.apply(answer(plan), 0.0)


def _two_that_outgrow_the_pool(first: Priority, second: Priority) -> Scheduler:
    scheduler = make_scheduler(block_count=5, plans_in_flight=1)
    scheduler.add(make_request(1, range(4), new=12, priority=first), 0.0)
    scheduler.add(make_request(2, range(10, 14), new=12, priority=second), 0.0)
    return scheduler


def test_the_younger_of_a_class_gives_way_and_its_blocks_are_used_at_once() -> None:
    scheduler = _two_that_outgrow_the_pool(Priority.NORMAL, Priority.NORMAL)
    plan = _until_preemption(scheduler)
    assert plan.retires == (Retire(2, 1),)
    assert [row.sequence for row in plan.rows] == [1]
    assert scheduler.queued_request_count == 1


def test_the_lower_class_gives_way_though_it_is_older() -> None:
    plan = _until_preemption(_two_that_outgrow_the_pool(Priority.LOW, Priority.HIGH))
    assert plan.retires == (Retire(1, 1),)


@pytest.mark.fault("R15")
def test_a_preempted_sequence_comes_back_as_prompt_and_accepted_output() -> None:
    scheduler = _two_that_outgrow_the_pool(Priority.NORMAL, Priority.NORMAL)
    plan = _until_preemption(scheduler)
    scheduler.cancel(1, 0.0)
    scheduler.apply(answer(plan), 0.0)
    back, events = scheduler.plan(0.0)
    assert back is not None and events == []
    (admit,) = back.admits
    accepted = len(admit.token_ids) - 4
    assert accepted > 0
    assert (admit.sequence, admit.generation, admit.prompt_length) == (2, 2, 4)
    assert admit.token_ids == (10, 11, 12, 13) + (9,) * accepted
    assert admit.remaining_max_tokens == 12 - accepted
    assert admit.computed_length > 0


def test_ids_in_flight_at_a_preemption_are_dropped_and_sampled_again() -> None:
    scheduler = make_scheduler(block_count=5, plans_in_flight=4)
    scheduler.add(make_request(1, range(7), new=9), 0.0)
    scheduler.add(make_request(2, range(10, 17), new=9), 0.0)
    plans = [planned(scheduler) for _ in range(3)]
    assert plans[2].retires == (Retire(2, 1),)
    assert scheduler.apply(answer(plans[0]), 0.0) == [Tokens(1, (9,), ())]
    assert scheduler.apply(answer(plans[1]), 0.0) == [Tokens(1, (9,), ())]
    scheduler.cancel(1, 0.0)
    (admit,) = planned(scheduler).admits
    assert (admit.token_ids, admit.remaining_max_tokens) == (tuple(range(10, 17)), 9)


@pytest.mark.fault("R15")
def test_the_first_in_order_is_never_preempted_and_all_finish_in_a_pool_for_one() -> None:
    scheduler = make_scheduler(block_count=4, plans_in_flight=1)
    for request_id in (1, 2, 3):
        start = 10 * request_id
        scheduler.add(make_request(request_id, range(start, start + 4), new=12), 0.0)
    plans = run_to_end(scheduler)
    assert all(retire != Retire(1, 1) for plan in plans[:11] for retire in plan.retires)
    assert scheduler.stats.preemption_count > 0
    assert scheduler.stats.running_request_count == scheduler.queued_request_count == 0


def test_a_preempted_sequence_can_be_cancelled_while_it_waits() -> None:
    scheduler = _two_that_outgrow_the_pool(Priority.NORMAL, Priority.NORMAL)
    _until_preemption(scheduler)
    (event,) = scheduler.cancel(2, 0.0)
    assert isinstance(event, Finished)
    assert scheduler.queued_request_count == scheduler.queued_token_count == 0


def test_an_admission_leaves_a_block_for_each_running_sequence() -> None:
    scheduler = make_scheduler(block_count=3, plans_in_flight=1)
    scheduler.add(make_request(1, range(5), new=3), 0.0)
    scheduler.apply(answer(planned(scheduler), ((9,), RowState.RUNNING)), 0.0)
    scheduler.add(make_request(2, range(10, 13), new=1), 0.0)
    assert planned(scheduler).admits == ()
