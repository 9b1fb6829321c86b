"""Facts of batching: what a plan holds, in which order, and what results do."""

from __future__ import annotations

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned, run_to_end

from santacoder_router.core.plan import (
    Finished,
    FinishReason,
    Retire,
    RowResult,
    RowState,
    SamplingParameters,
    Started,
    StepResult,
    TokenLogprobs,
    Tokens,
)


def test_nothing_to_do_is_no_plan() -> None:
    assert make_scheduler().plan(0.0) == (None, [])


def test_a_first_plan_admits_grants_and_runs_the_prompt() -> None:
    scheduler = make_scheduler()
    sampling = SamplingParameters(temperature=0.5, seed=3)
    request = make_request(
        7,
        range(6),
        new=5,
        min_new_tokens=2,
        sampling=sampling,
        stop_ids=(3,),
        logit_bias=((1, 2.0),),
    )
    scheduler.add(request, 0.0)
    plan, events = scheduler.plan(0.0)
    assert plan is not None
    assert (plan.number, plan.num_steps, plan.retires, plan.copies) == (1, 1, (), ())
    (admit,) = plan.admits
    assert (admit.sequence, admit.generation, admit.token_ids) == (7, 1, tuple(range(6)))
    assert (admit.prompt_length, admit.computed_length) == (6, 0)
    assert (admit.remaining_min_tokens, admit.remaining_max_tokens) == (2, 5)
    assert (admit.sampling, admit.stop_ids, admit.logit_bias) == (sampling, (3,), ((1, 2.0),))
    (grant,), (row,) = plan.grants, plan.rows
    assert (grant.slot, grant.first_index, len(grant.block_ids)) == (admit.slot, 0, 2)
    assert (row.sequence, row.slot, row.token_count, row.sample) == (7, admit.slot, 6, True)
    assert row.kv_token_limit == 8
    assert events == [Started(7, 0)]


def test_a_decode_row_is_planned_before_its_token_is_known() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(6)), 0.0)
    planned(scheduler)
    (row,) = planned(scheduler).rows
    assert (row.token_count, row.sample) == (1, True)


def test_no_more_plans_are_in_flight_than_configured() -> None:
    scheduler = make_scheduler(plans_in_flight=3)
    scheduler.add(make_request(1, range(6), new=20), 0.0)
    plans = [planned(scheduler) for _ in range(3)]
    assert [plan.number for plan in plans] == [1, 2, 3]
    assert scheduler.plan(0.0) == (None, [])
    scheduler.apply(answer(plans[0]), 0.0)
    assert planned(scheduler).number == 4


def test_no_step_is_planned_past_the_maximum_while_results_are_out() -> None:
    scheduler = make_scheduler(plans_in_flight=4)
    scheduler.add(make_request(1, range(6), new=2), 0.0)
    planned(scheduler)
    planned(scheduler)
    assert scheduler.plan(0.0)[0] is None


def test_a_long_prompt_runs_in_chunks_and_samples_with_the_last() -> None:
    scheduler = make_scheduler(tokens_per_step=5, plans_in_flight=4)
    scheduler.add(make_request(1, range(12)), 0.0)
    rows = [planned(scheduler).rows[0] for _ in range(4)]
    assert [row.token_count for row in rows] == [5, 5, 2, 1]
    assert [row.sample for row in rows] == [False, False, True, True]


def test_decode_rows_come_before_prefill_and_share_the_steps_budget() -> None:
    scheduler = make_scheduler(tokens_per_step=8)
    scheduler.add(make_request(1, range(4)), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    scheduler.add(make_request(2, range(20, 40)), 0.0)
    scheduler.add(make_request(3, range(40, 44)), 0.0)
    plan = planned(scheduler)
    assert [(row.sequence, row.token_count) for row in plan.rows] == [(1, 1), (2, 7)]
    assert len(plan.admits) == 1


def test_beside_answers_a_prompt_runs_in_short_steps() -> None:
    scheduler = make_scheduler(tokens_beside_answers=16)
    scheduler.add(make_request(1, range(4)), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    scheduler.add(make_request(2, range(20, 60)), 0.0)
    assert [(row.sequence, row.token_count) for row in planned(scheduler).rows] == [(1, 1), (2, 15)]


def test_a_backlog_of_prompts_makes_steps_longer_again() -> None:
    scheduler = make_scheduler(tokens_beside_answers=16, block_count=256, slot_count=16)
    scheduler.add(make_request(1, range(4)), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    for number in range(2, 12):
        scheduler.add(make_request(number, range(100 * number, 100 * number + 32)), 0.0)
    counts = [row.token_count for row in planned(scheduler).rows]
    assert counts == [1, 32, 320 // 8 - 32]


def test_beside_many_answers_prompts_still_move_on() -> None:
    scheduler = make_scheduler(tokens_beside_answers=1)
    scheduler.add(make_request(1, range(4)), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    scheduler.add(make_request(2, range(20, 40)), 0.0)
    assert [row.token_count for row in planned(scheduler).rows] == [1, 4]


def test_more_slots_than_tokens_in_a_step_are_not_used() -> None:
    scheduler = make_scheduler(tokens_per_step=2, slot_count=8)
    for request_id in (1, 2, 3):
        scheduler.add(make_request(request_id, [request_id]), 0.0)
    assert len(planned(scheduler).rows) == 2
    assert len(planned(scheduler).rows) == 2
    assert scheduler.queued_request_count == 1


def test_accepted_ids_are_reported_once_and_the_maximum_ends_the_request() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), new=2), 0.0)
    assert scheduler.apply(answer(planned(scheduler), ((5,), RowState.RUNNING)), 0.0) == [
        Tokens(1, (5,), ())
    ]
    assert scheduler.apply(answer(planned(scheduler), ((6,), RowState.LENGTH)), 0.0) == [
        Tokens(1, (6,), ()),
        Finished(1, FinishReason.LENGTH),
    ]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (RowState.END_OF_TEXT, FinishReason.END_OF_TEXT),
        (RowState.STOP_ID, FinishReason.STOP_ID),
    ],
)
def test_an_id_that_ends_the_text_is_named_and_not_output(
    state: RowState, reason: FinishReason
) -> None:
    scheduler = make_scheduler(steps_per_lease=4)
    scheduler.add(make_request(1, range(4), logprob_count=0), 0.0)
    plan = planned(scheduler)
    logprobs = (TokenLogprobs(-1.0, ()), TokenLogprobs(-2.0, ()))
    result = StepResult(plan.number, 0, 1, True, (RowResult((5, 0), state, logprobs),), 0.1)
    assert scheduler.apply(result, 0.0) == [
        Tokens(1, (5,), logprobs[:1]),
        Finished(1, reason, matched_id=0),
    ]


def test_an_ending_id_alone_brings_no_tokens() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4)), 0.0)
    result = answer(planned(scheduler), ((0,), RowState.END_OF_TEXT))
    assert scheduler.apply(result, 0.0) == [Finished(1, FinishReason.END_OF_TEXT, matched_id=0)]


def test_a_sequence_that_was_cancelled_is_retired_with_the_next_plan_even_if_nothing_runs() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), new=2), 0.0)
    scheduler.apply(answer(planned(scheduler), ((5,), RowState.RUNNING)), 0.0)
    scheduler.cancel(1, 0.0)
    plan = planned(scheduler)
    assert (plan.retires, plan.rows, plan.num_steps) == ((Retire(1, 1),), (), 1)
    assert scheduler.apply(answer(plan), 0.0) == []
    assert scheduler.plan(0.0) == (None, [])


def test_a_sequence_that_the_shards_ended_is_retired_with_the_next_plan_that_has_rows() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4), new=1), 0.0)
    scheduler.apply(answer(planned(scheduler), ((5,), RowState.LENGTH)), 0.0)
    assert scheduler.plan(0.0) == (None, [])
    scheduler.add(make_request(2, range(4), new=1), 0.0)
    plan = planned(scheduler)
    assert (plan.retires, len(plan.rows)) == ((Retire(1, 1),), 1)


def test_a_slot_may_be_retired_and_taken_in_one_plan() -> None:
    scheduler = make_scheduler(slot_count=1)
    scheduler.add(make_request(1, range(4), new=1), 0.0)
    scheduler.add(make_request(2, range(4), new=1), 0.0)
    scheduler.apply(answer(planned(scheduler), ((5,), RowState.LENGTH)), 0.0)
    plan = planned(scheduler)
    assert plan.retires == (Retire(1, 1),)
    assert [(admit.sequence, admit.slot) for admit in plan.admits] == [(2, 0)]


def test_after_a_cancel_the_next_plan_lacks_the_sequence_and_its_blocks_are_free() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(3)), 0.0)
    scheduler.add(make_request(2, range(10, 13)), 0.0)
    first = planned(scheduler)
    assert scheduler.stats.held_block_count == 2
    assert scheduler.cancel(1, 0.0) == [Finished(1, FinishReason.CANCELLED)]
    assert scheduler.stats.held_block_count == 1
    assert scheduler.stats.free_block_count == 31
    plan = planned(scheduler)
    assert plan.retires == (Retire(1, 1),)
    assert [row.sequence for row in plan.rows] == [2]
    events = scheduler.apply(answer(first), 0.0)
    assert events == [Tokens(2, (9,), ())]


def test_a_cancel_is_idempotent_and_knows_no_strangers() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(3)), 0.0)
    assert len(scheduler.cancel(1, 0.0)) == 1
    assert scheduler.cancel(1, 0.0) == []
    assert scheduler.cancel(99, 0.0) == []
    assert scheduler.plan(0.0) == (None, [])


def test_a_cancel_may_name_another_reason() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(3)), 0.0)
    assert scheduler.cancel(1, 0.0, FinishReason.FAILED) == [Finished(1, FinishReason.FAILED)]


@pytest.mark.fault("S15")
def test_a_result_that_is_not_the_next_expected_changes_nothing() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4)), 0.0)
    first, second = planned(scheduler), planned(scheduler)
    assert scheduler.apply(answer(second), 0.0) == []
    assert scheduler.apply(answer(first, first_step=1), 0.0) == []
    assert len(scheduler.apply(answer(first), 0.0)) == 1
    assert scheduler.apply(answer(first), 0.0) == []
    assert len(scheduler.apply(answer(second), 0.0)) == 1


def test_a_row_at_its_kv_limit_goes_on_when_planned_again() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(4), new=2), 0.0)
    scheduler.apply(answer(planned(scheduler)), 0.0)
    plan = planned(scheduler)
    assert scheduler.apply(answer(plan, ((), RowState.KV_LIMIT)), 0.0) == []
    again = planned(scheduler)
    assert again.rows == plan.rows
    events = scheduler.apply(answer(again, ((5,), RowState.LENGTH)), 0.0)
    assert events == [Tokens(1, (5,), ()), Finished(1, FinishReason.LENGTH)]


@pytest.mark.fault("S7")
def test_a_row_that_is_not_finite_ends_its_sequence_and_what_it_cached() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(9)), 0.0)
    scheduler.add(make_request(2, range(20, 24)), 0.0)
    plan = planned(scheduler)
    bad, good = ((), RowState.NON_FINITE), ((5,), RowState.RUNNING)
    assert scheduler.apply(answer(plan, bad, good), 0.0) == [
        Finished(1, FinishReason.NON_FINITE),
        Tokens(2, (5,), ()),
    ]
    assert scheduler.stats.cached_block_count == 0
    scheduler.add(make_request(3, range(9)), 0.0)
    assert planned(scheduler).admits[0].computed_length == 0


@pytest.mark.fault("S7")
def test_what_a_cancelled_sequence_cached_is_forgotten_when_its_row_is_not_finite() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(9)), 0.0)
    plan = planned(scheduler)
    scheduler.cancel(1, 0.0)
    assert scheduler.stats.cached_block_count == 2
    assert scheduler.apply(answer(plan, ((), RowState.NON_FINITE)), 0.0) == []
    assert scheduler.stats.cached_block_count == 0


def test_a_row_masked_without_a_reason_fails_its_request() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(4)), 0.0)
    result = answer(planned(scheduler), ((), RowState.MASKED))
    assert scheduler.apply(result, 0.0) == [Finished(1, FinishReason.FAILED)]


@pytest.mark.fault("S1")
def test_a_group_death_puts_running_requests_first_with_what_was_accepted() -> None:
    scheduler = make_scheduler(slot_count=1)
    scheduler.add(make_request(1, range(8), new=6, min_new_tokens=3), 0.0)
    first = planned(scheduler)
    lost = planned(scheduler)
    scheduler.apply(answer(first, ((5,), RowState.RUNNING)), 0.0)
    scheduler.add(make_request(2, range(8), priority=3), 0.0)
    assert scheduler.reset(1.0) == []
    assert scheduler.apply(answer(lost), 1.0) == []
    plan, events = scheduler.plan(1.0)
    assert plan is not None and events == []
    assert (plan.number, plan.retires) == (1, ())
    (admit,) = plan.admits
    assert (admit.sequence, admit.generation, admit.computed_length) == (1, 2, 0)
    assert (admit.token_ids, admit.prompt_length) == ((*range(8), 5), 8)
    assert (admit.remaining_min_tokens, admit.remaining_max_tokens) == (2, 5)


def test_everything_is_back_after_the_last_request() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    for request_id in range(1, 12):
        scheduler.add(make_request(request_id, range(request_id, 2 * request_id)), 0.0)
    run_to_end(scheduler)
    stats = scheduler.stats
    assert stats.free_block_count + stats.cached_block_count == stats.total_block_count == 32
    assert (stats.running_request_count, stats.queued_request_count) == (0, 0)
    assert (stats.queued_token_count, stats.plans_in_flight) == (0, 0)
    assert scheduler.next_deadline() is None


def test_a_request_that_can_never_run_is_refused() -> None:
    scheduler = make_scheduler(block_count=4, context_token_count=64)
    assert scheduler.max_request_tokens == 16
    with pytest.raises(ValueError, match="got 17; allowed 2 to 16"):
        scheduler.add(make_request(1, range(9), new=8), 0.0)
    with pytest.raises(ValueError, match="needs a prompt"):
        scheduler.add(make_request(2, []), 0.0)
    with pytest.raises(ValueError, match="room for one new token"):
        scheduler.add(make_request(3, range(4), new=0), 0.0)
    assert scheduler.queued_request_count == 0


def test_a_request_of_the_largest_size_runs() -> None:
    scheduler = make_scheduler(block_count=4, plans_in_flight=1)
    scheduler.add(make_request(1, range(8), new=8), 0.0)
    plans = run_to_end(scheduler)
    assert sum(len(plan.rows) for plan in plans) == 8
