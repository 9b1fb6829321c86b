"""Restarts wait longer each time, and stop after five in five minutes."""

from __future__ import annotations

import pytest

from santacoder_shard.restart_budget import Life, RestartBudget


@pytest.mark.fault("S17")
def test_each_restart_waits_twice_as_long_and_the_sixth_is_refused() -> None:
    budget = RestartBudget()
    delays = [budget.next_delay(10.0 * number, Life.NEVER_UP) for number in range(6)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, None]


@pytest.mark.fault("S17")
def test_restarts_older_than_five_minutes_are_forgotten() -> None:
    budget = RestartBudget()
    for number in range(5):
        budget.next_delay(float(number), Life.NEVER_UP)
    assert budget.next_delay(299.0, Life.NEVER_UP) is None
    assert budget.next_delay(302.5, Life.NEVER_UP) == 2.0
    assert budget.next_delay(1000.0, Life.NEVER_UP) == 0.5


@pytest.mark.fault("S17")
def test_a_group_that_works_starts_again_at_once_however_often_it_dies() -> None:
    budget = RestartBudget()
    for number in range(4):
        budget.next_delay(float(number), Life.NEVER_UP)
    assert [budget.next_delay(5.0, Life.WORKED) for _ in range(100)] == [0.0] * 100
    assert budget.next_delay(6.0, Life.NEVER_UP) == 0.5


@pytest.mark.fault("S17", "S18")
def test_a_group_that_dies_before_its_first_step_has_as_many_lives_as_it_takes_to_find_why() -> (
    None
):
    budget = RestartBudget()
    delays = [budget.next_delay(float(number), Life.IDLE) for number in range(13)]
    assert delays == [0.5] * 12 + [None]
    budget.next_delay(14.0, Life.WORKED)
    assert budget.next_delay(15.0, Life.IDLE) == 0.5
