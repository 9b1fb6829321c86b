"""When requests of an open loop are due."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace

import pytest

from santacoder_client.loadtest.arrival import at_ramp, at_steps, due_times, gaps
from santacoder_client.loadtest.load import Load, Phases, Share, Spacing, Step

MINUTE = Phases(warm_up_seconds=10, steady_seconds=40, cool_down_seconds=10)
CONSTANT = Load("constant", per_second=20, spacing="constant", phases=MINUTE)


def first_gaps(spacing: Spacing, burstiness: float = 1.0) -> list[float]:
    return list(itertools.islice(gaps(spacing, burstiness, seed=7), 20_000))


def test_a_constant_rate_is_exact_and_covers_every_phase() -> None:
    due = list(due_times(CONSTANT))
    assert len(due) == 60 * 20
    assert due[0] == 0.0
    assert due[1200 - 1] == pytest.approx(59.95)


@pytest.mark.parametrize(
    ("spacing", "burstiness", "squared_variation"),
    [("poisson", 1.0, 1.0), ("gamma", 1.0, 1.0), ("gamma", 4.0, 4.0), ("gamma", 0.25, 0.25)],
)
def test_gaps_have_a_mean_of_one_and_the_variation_asked_for(
    spacing: Spacing, burstiness: float, squared_variation: float
) -> None:
    drawn = first_gaps(spacing, burstiness)
    assert statistics.fmean(drawn) == pytest.approx(1.0, rel=0.05)
    assert statistics.variance(drawn) == pytest.approx(squared_variation, rel=0.15)


def test_a_seed_is_a_schedule_and_another_seed_another() -> None:
    load = replace(CONSTANT, model="poisson", spacing="poisson")
    assert list(due_times(load)) == list(due_times(load))
    assert list(due_times(load)) != list(due_times(replace(load, seed=1)))


def test_schedules_are_in_order_and_end_where_sending_ends() -> None:
    for model in ("poisson", "gamma", "ramp", "steps"):
        load = replace(
            CONSTANT,
            model=model,
            spacing="gamma",
            burstiness=9.0,
            end_per_second=100.0,
            steps=(Step(5, 20), Step(50, 20)),
        )
        due = list(due_times(load))
        assert due == sorted(due)
        assert 0 <= due[0] and due[-1] < 60


def test_a_ramp_has_the_mean_of_its_rates_and_then_stays() -> None:
    load = replace(CONSTANT, model="ramp", per_second=10.0, end_per_second=30.0)
    due = list(due_times(load))
    assert sum(at < 50 for at in due) == pytest.approx(20 * 50, abs=1)
    assert sum(at >= 50 for at in due) == pytest.approx(30 * 10, abs=1)
    assert sum(at < 1 for at in due) == pytest.approx(10, abs=1)


def test_a_ramp_from_nothing_begins_and_one_to_nothing_ends() -> None:
    growing, falling = at_ramp(0, 10, 10), at_ramp(10, 0, 10)
    assert growing(50) == pytest.approx(10)
    assert growing(12.5) == pytest.approx(5)
    assert falling(37.5) == pytest.approx(5)
    assert falling(51) == math.inf


def test_steps_hold_their_rates_one_after_the_other() -> None:
    moment = at_steps((Step(10, 2), Step(0, 3), Step(100, 1)))
    assert moment(10) == pytest.approx(1)
    assert moment(19.5) == pytest.approx(1.95)
    assert moment(20.0) == pytest.approx(5)
    assert moment(70) == pytest.approx(5.5)
    assert moment(220) == pytest.approx(7)


def test_a_trace_is_played_at_its_speed() -> None:
    load = Load("trace", trace_seconds=(0.0, 1.0, 3.0, 500.0), speed=2.0, phases=MINUTE)
    assert list(due_times(load)) == [0.0, 0.5, 1.5]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_shares_are_the_whole_and_do_not_overlap(workers: int) -> None:
    shares = [Share(worker, workers) for worker in range(workers)]
    for index in range(50):
        assert sum(share.holds(index) for share in shares) == 1
    for count in (0, 1, 5, 64, 1000):
        assert sum(share.of(count) for share in shares) == count


def test_a_load_survives_json() -> None:
    load = replace(CONSTANT, model="steps", steps=(Step(1, 2), Step(3, 4)), concurrency=5, seed=9)
    assert Load.from_json(load.to_json()) == load
