"""Facts of leases: how many steps a plan runs."""

from __future__ import annotations

from router.core.scheduling import answer, make_request, make_scheduler, planned

from santacoder_router.core.lease import StepTime
from santacoder_router.core.plan import RowState
from santacoder_router.core.scheduler import Scheduler


def _decoding(new: int = 40, step_seconds: float = 0.001, **changes: object) -> Scheduler:
    """A scheduler with one sequence, whose decode steps take `step_seconds`."""
    changes = {"steps_per_lease": 16, "plans_in_flight": 1, "lease_seconds": 0.008, **changes}
    scheduler = make_scheduler(**changes)
    scheduler.add(make_request(1, range(4), new=new), 0.0)
    for _ in range(2):
        plan = planned(scheduler)
        assert plan.num_steps == 1
        scheduler.apply(answer(plan, device_seconds=step_seconds), 0.0)
    return scheduler


def test_nothing_known_of_a_steps_time_means_one_step() -> None:
    assert StepTime().steps_within(1.0, 16) == 1


def test_a_step_time_follows_what_it_observes() -> None:
    step_time = StepTime()
    step_time.observe(0.004, 4)
    assert step_time.steps_within(0.0105, 16) == 10
    for _ in range(40):
        step_time.observe(0.002, 1)
    assert step_time.steps_within(0.0105, 16) == 5


def test_a_lease_lasts_as_long_as_the_configuration_allows() -> None:
    assert planned(_decoding(step_seconds=0.001)).num_steps == 8


def test_a_steps_time_above_the_limit_still_gives_one_step() -> None:
    assert planned(_decoding(step_seconds=1.0)).num_steps == 1


def test_plans_in_flight_share_the_time_of_a_lease() -> None:
    scheduler = _decoding(plans_in_flight=2)
    assert planned(scheduler).num_steps == 4
    assert planned(scheduler).num_steps == 4


def test_a_lease_ends_at_the_shards_limit() -> None:
    assert planned(_decoding(steps_per_lease=3)).num_steps == 3


def test_a_lease_does_not_pass_the_fewest_tokens_left() -> None:
    assert planned(_decoding(new=5)).num_steps == 3


def test_a_lease_needs_blocks_for_all_its_steps_and_preempts_nobody() -> None:
    # Two sequences of two blocks each fill the pool; the first has room for two more tokens.
    scheduler = _decoding(block_count=4, new=12)
    scheduler.add(make_request(2, range(10, 14), new=12), 0.0)
    plan = planned(scheduler)
    assert [row.kv_token_limit for row in plan.rows] == [8, 8]
    assert plan.num_steps == 2
    assert scheduler.stats.preemption_count == 0


def test_a_lease_may_begin_with_a_prompt() -> None:
    scheduler = _decoding()
    scheduler.add(make_request(2, range(10, 16), new=5), 0.0)
    plan = planned(scheduler)
    assert [row.token_count for row in plan.rows] == [1, 6]
    assert plan.num_steps == 5
    scheduler.apply(answer(plan, ((1,) * 5, RowState.RUNNING), ((2,) * 5, RowState.LENGTH)), 0.0)
    assert [row.token_count for row in planned(scheduler).rows] == [1]


def test_a_plan_with_part_of_a_prompt_runs_one_step() -> None:
    scheduler = _decoding(tokens_per_step=6)
    scheduler.add(make_request(2, range(10, 18)), 0.0)
    plan = planned(scheduler)
    assert [row.token_count for row in plan.rows] == [1, 5]
    assert plan.num_steps == 1


def test_who_waits_for_a_slot_does_not_shorten_a_lease() -> None:
    scheduler = _decoding(slot_count=1)
    scheduler.add(make_request(2, range(10, 16)), 0.0)
    assert planned(scheduler).num_steps == 8


def test_steps_that_a_lease_cut_short_did_not_run_are_planned_again() -> None:
    scheduler = _decoding(new=10)
    plan = planned(scheduler)
    assert plan.num_steps == 8
    scheduler.apply(answer(plan, ((9, 9, 9), RowState.RUNNING), steps_run=3), 0.0)
    assert planned(scheduler).num_steps == 5


def test_a_lease_may_be_answered_in_parts() -> None:
    scheduler = _decoding(new=10)
    plan = planned(scheduler)
    part = answer(plan, ((5, 6), RowState.RUNNING), steps_run=2, final=False)
    scheduler.apply(part, 0.0)
    assert scheduler.plan(0.0)[0] is None
    rest = answer(plan, ((7,) * 6, RowState.LENGTH), first_step=2, steps_run=6)
    events = scheduler.apply(rest, 0.0)
    assert len(events) == 2
    assert scheduler.stats.running_request_count == 0
