"""Restarts wait longer each time, and stop after five in five minutes."""

from __future__ import annotations

import pytest

from santacoder_shard.restart_budget import RestartBudget


@pytest.mark.fault("S17")
def test_each_restart_waits_twice_as_long_and_the_sixth_is_refused() -> None:
    budget = RestartBudget()
    delays = [budget.next_delay(now=10.0 * number) for number in range(6)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, None]


@pytest.mark.fault("S17")
def test_restarts_older_than_five_minutes_are_forgotten() -> None:
    budget = RestartBudget()
    for number in range(5):
        budget.next_delay(now=float(number))
    assert budget.next_delay(now=299.0) is None
    assert budget.next_delay(now=302.5) == 2.0
    assert budget.next_delay(now=1000.0) == 0.5
