"""The search finds what is known of queues: capacity, the knee, the most that meets an SLO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
import pytest
from client.loadtest.records import answered
from hypothesis import given
from hypothesis import strategies as st

from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.knee import (
    Search,
    Seen,
    best_of,
    bracket,
    geometric,
    keeping_up,
    keeps_up,
    knee_of,
)
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.slo import parse_slo
from santacoder_client.loadtest.window import Window

SERVICE_SECONDS = 0.02
"""One server, one request at a time: it can do 50 a second."""
SLO = parse_slo("e2e<100ms")
WARM_UP, STEADY = 5.0, 40.0
Run = Callable[[float], Seen]


def md1(rate: float, seconds: float, seed: int) -> list[RequestRecord]:
    """An M/D/1 queue: Poisson arrivals, one server, the same service for all."""
    random = np.random.default_rng(seed)
    free_at, records = 0.0, []
    arrivals = itertools.accumulate(random.exponential(1 / rate, round(rate * seconds * 1.5)))
    for index, due in enumerate(itertools.takewhile(lambda at: at < seconds, arrivals)):
        free_at = max(due, free_at) + SERVICE_SECONDS
        records.append(answered(index, due=due, first=free_at - due))
    return records


def seen(load: float, records: Sequence[RequestRecord], share: float = 0.99) -> Seen:
    window = Window.planned(WARM_UP, STEADY, 0.0)
    summary = summarize(records, window, [SLO])
    bins = [b.in_flight for b in summary.timeline if window.holds(b.at_seconds)]
    rates, met = summary.rates, summary.goodput[0].share
    assert rates.offered_per_second is not None and rates.finished_per_second is not None
    return Seen(
        load=load,
        offered_per_second=rates.offered_per_second,
        finished_per_second=rates.finished_per_second,
        seconds=STEADY,
        in_flight_mean=fmean(bins),
        met_slo=met is not None and met >= share,
    )


def at(rate: float, seed: int = 0) -> Seen:
    return seen(rate, md1(rate, WARM_UP + STEADY, seed))


def searched(search: Search, run: Run) -> list[Seen]:
    tried: list[Seen] = []
    while (load := search.next_load(tried)) is not None:
        assert len(tried) < 50 and load not in [each.load for each in tried]
        tried.append(run(load))
    return tried


def share_within(rate: float, wait_seconds: float) -> float:
    """Part of an M/D/1 queue's requests that wait no longer (Erlang 1909)."""
    load = rate * SERVICE_SECONDS
    total = 0.0
    for count in range(math.floor(wait_seconds / SERVICE_SECONDS + 1e-9) + 1):
        ahead = rate * (count * SERVICE_SECONDS - wait_seconds)
        total += ahead**count / math.factorial(count) * math.exp(-ahead)
    return (1 - load) * total


def true_limit() -> float:
    """The highest rate of the queue at which 99 % end within the SLO."""
    rates = np.arange(10.0, 50.0, 0.1)
    return float(max(rate for rate in rates if share_within(float(rate), 0.08) >= 0.99))


def test_a_sweep_finds_the_most_that_meets_the_slo() -> None:
    truth = true_limit()
    assert 25 < truth < 30
    found = []
    for seed in range(5):
        tried = searched(Search("rate", geometric(1, 64, 8)), lambda rate, s=seed: at(rate, s))  # type: ignore[misc]
        best = best_of(tried)
        assert best is not None and best[1] is not None
        assert best[1].load <= 1.06 * best[0].load, "looked closer until 5 % apart"
        found.append(best[0].load)
    # Forty seconds of a queue vary; the middle of five sweeps does not by much.
    assert sorted(found)[2] == pytest.approx(truth, rel=0.12)


def test_a_sweep_without_an_slo_finds_capacity_and_the_knee_there() -> None:
    def run(rate: float) -> Seen:
        measured = at(rate)
        return Seen(rate, *[getattr(measured, name) for name in list(Seen.__slots__)[1:5]])

    tried = searched(Search("rate", geometric(2, 128, 7)), run)
    low, high = bracket("rate", tried)
    assert low is not None and high is not None
    assert low.load == pytest.approx(50, rel=0.1) and high.load == pytest.approx(50, rel=0.15)
    knee = knee_of("rate", tried)
    assert knee is not None and knee.load == pytest.approx(50, rel=0.1)
    assert best_of(tried) is None


def test_the_climb_ends_where_the_server_no_longer_keeps_up() -> None:
    tried = searched(Search("rate", tuple(float(r) for r in range(10, 1000, 10)), 0), at)
    assert [each.load for each in tried][-1] in (60.0, 70.0)


def test_a_server_that_is_never_full_has_no_knee_and_no_first_miss() -> None:
    tried = searched(Search("rate", (1.0, 2.0, 4.0, 8.0)), at)
    assert [each.load for each in tried] == [1, 2, 4, 8]
    assert knee_of("rate", tried) is None
    best = best_of(tried)
    assert best is not None and (best[0].load, best[1]) == (8, None)


def test_a_server_too_slow_for_the_least_load_is_not_searched_below_it() -> None:
    tried = searched(Search("rate", (80.0, 160.0, 320.0)), at)
    assert [each.load for each in tried] == [80.0]
    assert best_of(tried) is None and knee_of("rate", tried) is None


@pytest.mark.parametrize("rate", [5.0, 25.0, 40.0, 45.0])
def test_a_server_with_room_keeps_up_however_the_requests_fall(rate: float) -> None:
    assert sum(keeps_up(at(rate, seed)) for seed in range(20)) >= 19


@pytest.mark.parametrize("rate", [60.0, 75.0, 200.0])
def test_a_server_without_room_does_not_keep_up(rate: float) -> None:
    assert not any(keeps_up(at(rate, seed)) for seed in range(10))


def closed(users: float) -> Seen:
    """Users of a server that can do 50 a second, each answered in 100 ms while it has room."""
    finished = min(users / 0.1, 50.0) if users < 100 else 45.0
    return Seen(users, finished, finished, 20.0, users)


def test_users_at_once_have_their_knee_where_more_bring_no_more() -> None:
    tried = searched(Search("concurrency", (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)), closed)
    loads = sorted(each.load for each in tried)
    assert 64 not in loads, "two doublings without a gain are enough"
    knee = knee_of("concurrency", tried)
    assert knee is not None and knee.load in (4, 5, 6)
    assert all(load == int(load) for load in loads)
    assert keeping_up("concurrency", [closed(n) for n in (1, 2, 5, 8, 120)]) == [
        *(True, True, True, False, False)
    ]


def test_a_load_tester_at_its_limit_climbs_no_further() -> None:
    def run(load: float) -> Seen:
        return Seen(load, load, load, 20.0, 1.0, met_slo=True, client_limited=load >= 4)

    tried = searched(Search("rate", (1.0, 2.0, 4.0, 8.0, 16.0)), run)
    assert [each.load for each in tried] == [1, 2, 4, 8], "the second time it is believed"


def test_a_load_that_the_load_tester_could_not_bring_is_no_miss_of_the_server() -> None:
    def run(load: float) -> Seen:
        slow = load in (4.0, 5.66)
        return Seen(load, load, load, 20.0, 1.0, met_slo=load < 8 and not slow, client_limited=slow)

    tried = searched(Search("rate", (1.0, 2.0, 4.0)), run)
    best = best_of(tried)
    assert best is not None and (best[0].load, best[1]) == (2, None)
    again = [run(2.0), run(8.0), run(4.0)]
    found = best_of(again)
    assert found is not None and found[1] is not None and found[1].load == 8
    assert Search("rate", (2.0, 8.0)).next_load(again) is None, "the same load again says no more"


def test_one_bad_point_does_not_end_the_climb_and_does_not_hide_the_best() -> None:
    def run(load: float) -> Seen:
        finished = 0.9 * load if load == 2 else load
        return Seen(load, load, finished, 60.0, 0.0, met_slo=load != 2 and load < 9)

    tried = searched(Search("rate", (1.0, 2.0, 4.0, 8.0, 16.0), halvings=1), run)
    assert [each.load for each in tried] == [1, 2, 4, 8, 16, 11.3]
    best = best_of(tried)
    assert best is not None and (best[0].load, best[1] and best[1].load) == (8, 11.3)


@given(
    st.lists(st.floats(0.1, 1e4), min_size=1, max_size=8, unique=True).map(sorted),
    st.floats(0.05, 2e4),
    st.integers(0, 8),
    st.sampled_from(["rate", "concurrency"]),
)
def test_every_search_ends_and_brackets_the_limit(
    ladder: list[float], limit: float, halvings: int, variable: str
) -> None:
    assert variable in ("rate", "concurrency")
    search = Search(variable, tuple(ladder), halvings)  # type: ignore[arg-type]

    def run(load: float) -> Seen:
        return Seen(load, load, min(load, limit), 1e6, 0.0, met_slo=load <= limit)

    tried = searched(search, run)
    assert len(tried) <= len(ladder) + halvings
    best = best_of(tried)
    assert (best is None) == (ladder[0] > limit)
    if best is not None:
        assert best[0].load <= limit and (best[1] is None or best[1].load > limit)
        assert best[0].load == max(each.load for each in tried if each.met_slo)


@given(st.floats(0.01, 1e3), st.floats(1.001, 1e3), st.integers(2, 64))
def test_a_range_rises_from_end_to_end(low: float, factor: float, count: int) -> None:
    loads = geometric(low, low * factor, count)
    assert loads[0] == low and loads[-1] == low * factor
    assert list(loads) == sorted(set(loads)) and 2 <= len(loads) <= count
