"""A request that brings its output goes on behind it, as one does that was preempted."""

from __future__ import annotations

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned, run_to_end

from santacoder_router.core.plan import Finished, FinishReason, RowState, Started, Tokens


def test_it_is_admitted_as_a_preempted_request_is() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(6), new=5, min_new_tokens=4, output_ids=(7, 8)), 0.0)
    plan, events = scheduler.plan(0.0)
    assert plan is not None
    (admit,), (row,) = plan.admits, plan.rows
    assert admit.token_ids == (*range(6), 7, 8)
    assert (admit.prompt_length, admit.computed_length) == (6, 0)
    assert (admit.remaining_min_tokens, admit.remaining_max_tokens) == (2, 3)
    assert (row.token_count, row.sample) == (8, True)
    assert events == [Started(1, 0)]


def test_only_what_is_new_is_told() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(6), new=4, output_ids=(7, 8)), 0.0)
    first, second = planned(scheduler), planned(scheduler)
    assert scheduler.plan(0.0)[0] is None
    assert scheduler.apply(answer(first, ((9,), RowState.RUNNING)), 0.0) == [Tokens(1, (9,), ())]
    events = scheduler.apply(answer(second, ((9,), RowState.LENGTH)), 0.0)
    assert events == [Tokens(1, (9,), ()), Finished(1, FinishReason.LENGTH)]


def test_output_found_in_the_cache_is_not_counted_as_prompt() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(12), new=1), 0.0)
    run_to_end(scheduler)
    scheduler.add(make_request(2, range(6), new=9, output_ids=tuple(range(6, 12))), 0.0)
    plan, events = scheduler.plan(0.0)
    assert plan is not None
    assert plan.admits[0].computed_length > 6
    assert events == [Started(2, 6)]


def test_one_that_has_all_its_output_is_refused() -> None:
    with pytest.raises(ValueError, match="all its new tokens"):
        make_scheduler().add(make_request(1, range(6), new=2, output_ids=(7, 8)), 0.0)
