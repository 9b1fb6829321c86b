"""The limit of a step follows the steps that ran, each size for itself."""

from __future__ import annotations

from santacoder_router.deadline import FIRST_USE_SECONDS, LEAST_SECONDS, StepDeadline


def test_a_size_that_never_ran_gets_the_generous_limit() -> None:
    deadline = StepDeadline()
    deadline.observe(1, 0.001)
    assert deadline.seconds(1) == LEAST_SECONDS
    assert deadline.seconds(512) == FIRST_USE_SECONDS


def test_slow_steps_get_twenty_times_their_usual_time() -> None:
    deadline = StepDeadline()
    for _ in range(100):
        deadline.observe(500, 2.0)
    assert abs(deadline.seconds(510) - 40.0) < 1e-6


def test_a_lease_is_its_first_step_and_the_further_ones() -> None:
    deadline = StepDeadline()
    deadline.observe(64, 0.01)
    assert deadline.lease_seconds(64, 2, 5) is None
    deadline.observe(2, 0.001)
    assert deadline.lease_seconds(64, 2, 5) == 0.01 + 4 * 0.001


def test_the_usual_time_follows_a_change() -> None:
    deadline = StepDeadline()
    deadline.observe(8, 10.0)
    for _ in range(50):
        deadline.observe(8, 1.0)
    assert 20.0 <= deadline.seconds(8) < 21.0
