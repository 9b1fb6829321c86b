"""When a request is sent again: on a clock and with chances of the test's own."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from santacoder_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    RetryPolicy,
    SantaCoderError,
    ServerError,
    Unavailable,
)
from santacoder_client._retry import Pause, Retries, RetryBudget

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LOST = Unavailable("Socket closed", code=UNAVAILABLE)
UNREACHED = Unavailable("failed to connect to all addresses; last error: refused")
DRAINING = Unavailable("stopping", reason="DRAINING", retry_after=1.0)
SHARD_LOST = Unavailable("dead", reason="SHARD_LOST", retry_after=5.0)
FULL = Overloaded("full", reason="QUEUE_FULL", retry_after=1.0)
IN_USE = AlreadyExists("running", reason="REQUEST_ID_IN_USE")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def retries(clock: Clock, timeout: float | None = None, **parts: Any) -> Retries:
    policy = parts.get("policy", RetryPolicy())
    return Retries(policy, parts.get("budget", RetryBudget()), timeout, clock, lambda: 1.0)


def pauses(attempts: Retries, clock: Clock, error: SantaCoderError) -> list[float]:
    """The pauses until an error is given up on; longer than that takes nobody."""
    found: list[float] = []
    with pytest.raises(type(error)) as raised:
        while len(found) < 1000:
            found.append(attempts.after(error).seconds)
            clock.now += found[-1]
    assert raised.value is error
    return found


def test_a_server_that_is_not_reached_is_soon_given_up() -> None:
    clock = Clock()
    assert pauses(retries(clock), clock, UNREACHED) == [0.1, 0.2, 0.4]


def test_a_server_that_had_the_request_is_waited_for_until_the_outage_is_too_long() -> None:
    clock = Clock()
    attempts = retries(clock)
    assert attempts.after(LOST) == Pause(0.1, awaits_server=True)
    waited = pauses(attempts, clock, UNREACHED)
    assert waited[:5] == [0.2, 0.4, 0.8, 1.6, 2.0]
    assert 56 < sum(waited) < 60


def test_a_pause_is_drawn_from_half_of_it_on() -> None:
    for chance, expected in ((0.0, 0.05), (0.5, 0.075), (1.0, 0.1)):
        draw = iter([chance]).__next__
        attempts = Retries(RetryPolicy(), RetryBudget(), None, Clock(), draw)
        assert attempts.after(LOST).seconds == pytest.approx(expected)


def test_no_server_is_waited_for_as_long_but_not_longer() -> None:
    clock = Clock()
    attempts = retries(clock)
    attempts.after(DRAINING)
    with pytest.raises(Unavailable):
        while True:
            clock.now += attempts.not_serving(DRAINING).seconds
    assert 1056 < clock.now < 1060


def test_a_request_that_ends_every_server_is_not_sent_for_ever() -> None:
    clock = Clock()
    assert len(pauses(retries(clock), clock, LOST)) == 3


def test_what_brings_something_new_may_be_lost_any_number_of_times() -> None:
    clock = Clock()
    attempts = retries(clock)
    for _ in range(100):
        assert attempts.after(LOST).seconds == 0.1
        clock.now += 30
        attempts.progressed(has_tokens=True)


@pytest.mark.parametrize("error", [FULL, SHARD_LOST])
def test_a_refusal_is_taken_at_its_word_and_only_before_the_first_token(
    error: SantaCoderError,
) -> None:
    clock = Clock()
    after = error.retry_after
    assert after is not None
    assert pauses(retries(clock), clock, error) == [1.25 * after] * 3
    attempts = retries(clock)
    attempts.progressed(has_tokens=False)
    attempts.after(error)
    attempts.progressed(has_tokens=True)
    assert pauses(attempts, clock, error) == []
    # But a server that is new to the request may refuse it as it would any other.
    attempts.after(LOST)
    assert attempts.after(error).seconds == 1.25 * after


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("wrong"),
        Overloaded("too large"),
        ServerError("ours"),
        DeadlineExceeded("late"),
        IN_USE,
    ],
)
def test_nothing_else_is_tried_again(error: SantaCoderError) -> None:
    assert pauses(retries(Clock()), Clock(), error) == []
    assert pauses(retries(Clock(), policy=None), Clock(), LOST) == []


def test_an_id_in_use_by_the_attempt_before_is_tried_again() -> None:
    clock = Clock()
    attempts = retries(clock)
    attempts.after(LOST)
    # A server may take 40 s to see that a connection is gone.
    assert 56 < sum(pauses(attempts, clock, IN_USE)) < 60


def test_all_is_within_the_timeout() -> None:
    clock = Clock()
    attempts = retries(clock, timeout=2.0)
    assert attempts.left_seconds() == 2.0
    assert pauses(attempts, clock, FULL) == [1.25]
    attempts = retries(clock, timeout=0.5)
    clock.now += attempts.after(LOST).seconds
    assert attempts.left_seconds() == pytest.approx(0.4)
    with pytest.raises(DeadlineExceeded):
        while True:
            clock.now += attempts.not_serving(LOST).seconds
    clock.now += 10
    assert attempts.left_seconds() == 0.0


@pytest.mark.fault("C9")
def test_refusals_are_repeated_a_tenth_as_often_as_requests_are_answered() -> None:
    clock, budget = Clock(), RetryBudget()
    retry_count = 0
    for _ in range(1000):
        try:
            retries(clock, budget=budget).after(FULL)
            retry_count += 1
        except Overloaded:
            pass
        retries(clock, budget=budget).answered()
    assert 100 <= retry_count <= 110
    # What a server that is gone had is not held up by those.
    while budget.take():
        pass
    retries(clock, budget=budget).after(LOST)


@pytest.mark.parametrize(
    ("field", "value"),
    [("outage_seconds", -1.0), ("first_pause_seconds", float("nan")), ("attempt_count", 0)],
)
def test_a_policy_without_sense_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="retry"):
        RetryPolicy(**{field: value})  # type: ignore[arg-type]


def test_both_clients_take_a_policy() -> None:
    for kind in (Client, AsyncClient):
        kind("127.0.0.1:1", retry=RetryPolicy(outage_seconds=1.0))
        kind("127.0.0.1:1", retry=None)
