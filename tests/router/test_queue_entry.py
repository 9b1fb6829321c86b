"""Who may join the queue: what is measured and told, and that one that stands is kept short."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from router.core.scheduling import answer, make_request, make_scheduler, planned

from santacoder_router.accounts import Account
from santacoder_router.caller_limits import KNOWN
from santacoder_router.core.plan import Caller, Priority, RowState
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.errors import DeadlineExceeded, Overloaded, Reason, RouterError
from santacoder_router.limits import Limits
from santacoder_router.queue_entry import Newcomer, enter, retry_seconds

LIMITS = Limits(
    context_token_count=64,
    token_count=100,
    vocabulary_size=100,
    infill_supported=True,
    running_request_count=1,
)
ALICE, BOB = Caller("alice"), Caller("bob")


def newcomer(caller: Caller, seconds_left: float = 60.0) -> Newcomer:
    return Newcomer(caller, Priority.NORMAL, 1, 4, 5, seconds_left)


def worked_off(seconds: int, count: int) -> Scheduler:
    """One slot; alice's requests take a second each, for so long."""
    scheduler = make_scheduler(slot_count=1, plans_in_flight=1, queue_wait_seconds=1e6)
    for number in range(1, count + 1):
        scheduler.add(make_request(number, range(4), new=1, caller=ALICE), 0.0)
    for second in range(seconds):
        scheduler.apply(answer(planned(scheduler, second), ((5,), RowState.LENGTH)), second)
    return scheduler


def an_account() -> Account:
    return Account("alice", "alice", KNOWN, lambda: 0.0)


def refusal(
    scheduler: Scheduler, entering: Newcomer, account: Account, now: float, **limits: Any
) -> RouterError:
    changed = dataclasses.replace(LIMITS, **limits)
    with pytest.raises(RouterError) as caught:
        enter(entering, scheduler.waiting, changed, account, now)
    return caught.value


def test_a_queue_that_was_full_is_kept_short_for_whoever_found_it_so() -> None:
    scheduler, account = worked_off(seconds=12, count=15), an_account()
    # Three seconds of work are ahead of alice: many users who ask one after the other may wait.
    assert enter(newcomer(ALICE), scheduler.waiting, LIMITS, account, 11.0) == []
    too_many = refusal(scheduler, newcomer(ALICE), account, 11.0, queued_request_count=3)
    assert too_many.reason is Reason.QUEUE_FULL
    error = refusal(scheduler, newcomer(ALICE), account, 11.0)
    assert isinstance(error, Overloaded) and error.reason is Reason.QUEUE_FULL
    assert error.message == (
        "queue: was full a moment ago, and is kept short; got a wait of 3.0 s; allowed 0.5 s"
    )
    assert error.retry_after_seconds == pytest.approx(3.0, rel=0.1)
    # Neither is another caller's business, nor another class.
    assert enter(newcomer(ALICE), scheduler.waiting, LIMITS, an_account(), 11.0) == []
    above = dataclasses.replace(newcomer(ALICE), priority=Priority.HIGH)
    assert enter(above, scheduler.waiting, LIMITS, account, 11.0) == []
    # As many as the slots run at once may wait in any case.
    wide = dataclasses.replace(LIMITS, running_request_count=8)
    assert enter(newcomer(ALICE), scheduler.waiting, wide, account, 11.0) == []
    # Ten seconds after the last refusal all is as before, however long the queue is.
    patient = dataclasses.replace(LIMITS, queue_wait_seconds=10.0, running_request_count=1)
    scheduler.waiting._drain._since = 21.5
    assert enter(newcomer(ALICE), scheduler.waiting, patient, account, 21.5) == []


def test_who_would_be_late_is_refused_by_what_is_ahead_of_it() -> None:
    scheduler = worked_off(seconds=9, count=18)
    late = refusal(scheduler, newcomer(ALICE, seconds_left=5.0), an_account(), 8.0)
    assert isinstance(late, DeadlineExceeded) and late.metadata == {"at": "admission"}
    assert late.message.startswith("deadline: would pass in the queue; got 5.00 s; allowed above ")
    too_long = refusal(scheduler, newcomer(ALICE), an_account(), 8.0, queue_wait_seconds=8.5)
    assert too_long.reason is Reason.QUEUE_TIMEOUT
    assert too_long.retry_after_seconds == pytest.approx(9.0, rel=0.1)
    assert (
        enter(newcomer(BOB, seconds_left=5.0), scheduler.waiting, LIMITS, an_account(), 8.0) == []
    )


def test_the_time_to_come_back_has_bounds_and_a_guess_where_nothing_is_known() -> None:
    assert [retry_seconds(wait) for wait in (None, 0.0, 2.5, 1e9)] == [1.0, 0.1, 2.5, 60.0]
    scheduler = make_scheduler(slot_count=1)
    scheduler.add(make_request(1, range(4), caller=ALICE), 0.0)
    full = refusal(scheduler, newcomer(ALICE), an_account(), 0.0, queued_request_count=1)
    assert (full.reason, full.retry_after_seconds) == (Reason.QUEUE_FULL, 1.0)
