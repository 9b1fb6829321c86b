"""Facts of prefix reuse: what a request finds in the cache, and what must not be found."""

from __future__ import annotations

from router.core.scheduling import answer, make_request, make_scheduler, planned, run_to_end

from santacoder_router.core.plan import BlockCopy, RowState, Started


def test_full_blocks_of_an_earlier_prompt_are_reused() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(10), new=1), 0.0)
    (first,) = run_to_end(scheduler)[:1]
    scheduler.add(make_request(2, [*range(10), 77], new=1), 0.0)
    plan, events = scheduler.plan(0.0)
    assert plan is not None and events == [Started(2, 8)]
    assert plan.admits[0].computed_length == 8
    assert plan.grants[0].block_ids[:2] == first.grants[0].block_ids[:2]
    assert plan.rows[0].token_count == 3
    assert scheduler.stats.cached_token_count == 8


def test_a_prompt_that_differs_within_a_block_reuses_what_comes_before() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(12), new=1), 0.0)
    run_to_end(scheduler)
    scheduler.add(make_request(2, [0, 1, 2, 3, 4, 5, 99, 7, 8, 9, 10, 11], new=1), 0.0)
    assert planned(scheduler).admits[0].computed_length == 4


def test_blocks_are_shared_within_one_plan() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(10)), 0.0)
    scheduler.add(make_request(2, range(10)), 0.0)
    plan = planned(scheduler)
    assert [row.token_count for row in plan.rows] == [10, 2]
    tables = [grant.block_ids for grant in plan.grants]
    assert tables[0][:2] == tables[1][:2]
    assert tables[0][2] != tables[1][2]


def test_a_wholly_cached_prompt_copies_its_last_block_and_runs_one_token() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(8), new=1), 0.0)
    first = run_to_end(scheduler)[0]
    scheduler.add(make_request(2, range(8)), 0.0)
    plan = planned(scheduler)
    table, cached = plan.grants[0].block_ids, first.grants[0].block_ids
    assert plan.copies == (BlockCopy(cached[1], table[1]),)
    assert table[0] == cached[0] and table[1] != cached[1]
    assert plan.admits[0].computed_length == 7
    assert (plan.rows[0].token_count, plan.rows[0].sample) == (1, True)


def test_a_block_is_not_copied_in_the_plan_that_fills_it() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, range(8)), 0.0)
    scheduler.add(make_request(2, range(8)), 0.0)
    plan = planned(scheduler)
    assert plan.copies == ()
    assert plan.admits[1].computed_length == 4
    assert [row.token_count for row in plan.rows] == [8, 4]


def test_a_copys_source_is_held_until_the_plan_is_complete() -> None:
    scheduler = make_scheduler(block_count=3, plans_in_flight=1)
    scheduler.add(make_request(1, range(8), new=1), 0.0)
    run_to_end(scheduler)
    # All three blocks are needed: one shared, one copied from, one copied to.
    scheduler.add(make_request(2, range(8), new=2), 0.0)
    plan = planned(scheduler)
    (copy,) = plan.copies
    assert len({copy.source, *plan.grants[0].block_ids}) == 3
    assert scheduler.stats.cached_block_count == 1
    scheduler.apply(answer(plan), 0.0)
    # Now it may be evicted for the next token.
    assert planned(scheduler).grants[0].block_ids == (copy.source,)


def test_another_cache_key_shares_nothing() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(10), new=1, cache_key=b"one"), 0.0)
    run_to_end(scheduler)
    scheduler.add(make_request(2, range(10), new=1, cache_key=b"two"), 0.0)
    assert planned(scheduler).admits[0].computed_length == 0


def test_accepted_output_is_reused_up_to_the_last_block_whose_keys_are_written() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    # Output 9, 9, 9, 9: the last one ends the request and never gets K and V.
    scheduler.add(make_request(1, range(4), new=4), 0.0)
    run_to_end(scheduler)
    scheduler.add(make_request(2, [0, 1, 2, 3, 9, 9, 9, 9, 5], new=5), 0.0)
    assert planned(scheduler).admits[0].computed_length == 4
    scheduler.cancel(2, 0.0)
    again = make_scheduler(plans_in_flight=1)
    again.add(make_request(1, range(4), new=5), 0.0)
    run_to_end(again)
    again.add(make_request(2, [0, 1, 2, 3, 9, 9, 9, 9, 5], new=1), 0.0)
    assert planned(again).admits[0].computed_length == 8


def test_output_is_not_reused_before_it_is_accepted() -> None:
    scheduler = make_scheduler(plans_in_flight=4)
    scheduler.add(make_request(1, range(3), new=12), 0.0)
    plans = [planned(scheduler) for _ in range(3)]
    assert scheduler.stats.total_block_count - scheduler.stats.free_block_count == 2
    for plan in plans[:2]:
        scheduler.apply(answer(plan), 0.0)
    scheduler.cancel(1, 0.0)
    # Two ids accepted: positions 0 to 3 are written and known, what follows is not.
    assert scheduler.stats.cached_block_count == 1


def test_a_block_cached_by_a_sequence_that_ended_at_an_ending_id_is_reused() -> None:
    scheduler = make_scheduler(plans_in_flight=1)
    scheduler.add(make_request(1, range(3)), 0.0)
    scheduler.apply(answer(planned(scheduler), ((9,), RowState.RUNNING)), 0.0)
    scheduler.apply(answer(planned(scheduler), ((0,), RowState.END_OF_TEXT)), 0.0)
    assert scheduler.stats.cached_block_count == 1
