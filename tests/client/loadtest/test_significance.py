"""Equal runs are told to be equal 19 times of 20, and different ones to be different."""

from __future__ import annotations

import math

import numpy as np
import pytest

from santacoder_client.loadtest.bootstrap import Sample, percentile_change
from santacoder_client.loadtest.percentiles import BATCH_COUNT, Floats, figure_of
from santacoder_client.loadtest.significance import (
    Change,
    Estimate,
    Unit,
    Verdict,
    change_between,
    is_regression,
    judge,
    mean_estimate,
    share_estimate,
)


def change(difference: float, half: float, unit: Unit = "ms", before: float = 100.0) -> Change:
    after = before + difference
    return Change("x", unit, unit != "ms", before, after, difference - half, difference + half)


def verdict(*changes: Change, least_effect: float = 0.01) -> list[Verdict]:
    return [judged.verdict for judged in judge(changes, least_effect)]


def test_a_difference_beyond_its_interval_is_real_and_has_a_direction() -> None:
    assert verdict(change(10, 5)) == ["worse"]
    assert verdict(change(-10, 5)) == ["better"]
    assert verdict(change(10, 5, "1/s")) == ["better"]
    assert verdict(change(10, 11)) == ["noise"]


def test_a_small_difference_is_noise_however_sure_it_is() -> None:
    assert verdict(change(0.9, 0.01)) == ["noise"]
    assert verdict(change(0.9, 0.01), least_effect=0.001) == ["worse"]
    assert verdict(change(0.04, 0.001, before=0.05)) == ["noise"]


def test_an_interval_without_ends_is_unknown() -> None:
    assert verdict(change(10, math.inf)) == ["unknown"]
    open_above = change_between("x", "ms", False, Estimate(1, 0.9, 1.1), Estimate(9, 8, None))
    assert verdict(open_above) == ["worse"]
    open_below = change_between("x", "ms", False, Estimate(1, 0.9, None), Estimate(9, 8, 10))
    assert verdict(open_below) == ["noise"]


def test_many_comparisons_need_a_surer_difference_each() -> None:
    likely = change(10, 9.5)
    assert verdict(likely) == ["worse"]
    assert verdict(likely, *[change(0, 5)] * 9)[0] == "noise"
    assert verdict(change(10, 2), *[change(0, 5)] * 9)[0] == "worse"


def test_what_did_not_vary_at_all_differs_by_any_difference() -> None:
    assert verdict(change(10, 0)) == ["worse"]
    assert verdict(change(0, 0)) == ["noise"]


def test_shares_are_compared_by_their_difference() -> None:
    found = change(0.04, 0.01, "share", before=0.0)
    assert found.effect == pytest.approx(0.04)
    (judged,) = judge([Change("e", "share", False, 0.0, 0.04, 0.02, 0.06)], 0.01)
    assert judged.verdict == "worse"
    assert is_regression(judged, 0.03) and not is_regression(judged, 0.05)


def test_from_nothing_to_something_is_a_regression_of_any_size() -> None:
    (judged,) = judge([Change("q", "ms", False, 0.0, 40.0, 30.0, 50.0)], 0.01)
    assert judged.change.effect is None and judged.verdict == "worse"
    assert is_regression(judged, 10.0)


def test_only_what_became_worse_is_a_regression() -> None:
    worse, better, noise = judge([change(10, 2), change(-10, 2), change(10, 90)], 0.01)
    assert is_regression(worse, 0.1) and not is_regression(worse, 0.101)
    assert not is_regression(better, 0.0) and not is_regression(noise, 0.0)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634)]
)
def test_a_share_has_wilsons_interval(count: int, total: int, low: float, high: float) -> None:
    found = share_estimate(count, total)
    assert found is not None and found.value == count / total
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
    assert share_estimate(0, 0) is None


def test_what_is_counted_in_clusters_says_less() -> None:
    alone, together = share_estimate(50, 100), share_estimate(50, 100, effect=10)
    fewer = share_estimate(5, 10)
    assert alone is not None and together is not None and fewer is not None
    assert (together.low, together.high) == (fewer.low, fewer.high) != (alone.low, alone.high)


def test_times_differ_by_factors() -> None:
    slower = change_between("x", "ms", False, Estimate(100, 50, 200), Estimate(10, 5, 20))
    assert slower.effect == pytest.approx(-0.9)
    low, high = slower.relative(slower.low), slower.relative(slower.high)
    assert low is not None and high is not None and -1 < low < -0.9 < high < 0
    faster = change_between("x", "ms", False, Estimate(10, 5, 20), Estimate(100, 50, 200))
    assert faster.chance == pytest.approx(slower.chance), "there and back is the same way"


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706)])
def test_a_mean_of_stretches_has_students_interval(freedom: int, t: float) -> None:
    values = [float(value % 3) for value in range(freedom + 1)]
    found = mean_estimate(values)
    assert found is not None and found.high is not None
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.high - found.value == pytest.approx(t * error, rel=0.02)
    assert mean_estimate([1.0]) is None


def run(random: np.random.Generator, slower: float = 1.0, stall_ms: float = 0.0) -> Sample:
    """A run of 600 requests; in some stretches all are slow."""
    slow = np.repeat(random.random(BATCH_COUNT) < 0.3, 20)
    values: Floats = slower * 50 * random.lognormal(0.0, 0.4, 600) + stall_ms * slow
    return Sample(values, np.repeat(np.arange(BATCH_COUNT), 20))


def by_intervals(before: Sample, after: Sample, at: str) -> Change:
    figures = [figure_of(each.values, each.batches) for each in (before, after)]
    early, late = (figure.percentiles[at] for figure in figures if figure is not None)
    assert early.value is not None and late.value is not None
    return change_between(
        at,
        "ms",
        False,
        Estimate(early.value, early.low, early.high),
        Estimate(late.value, late.low, late.high),
    )


def drawn(before: Sample, after: Sample, at: str) -> Change:
    found = percentile_change(at, before, after, {"p50": 0.5, "p90": 0.9}[at])
    assert found is not None
    return found


@pytest.mark.parametrize("method", [by_intervals, drawn])
@pytest.mark.parametrize("at", ["p50", "p90"])
def test_equal_runs_with_stalls_rarely_differ(method: object, at: str) -> None:
    assert callable(method)
    random = np.random.default_rng(5)
    changes = [method(run(random, stall_ms=60), run(random, stall_ms=60), at) for _ in range(40)]
    # Judged alone, 2 of 40 are wrong on average.
    assert sum(verdict(each) != ["noise"] for each in changes) <= 6


@pytest.mark.parametrize("method", [by_intervals, drawn])
@pytest.mark.parametrize("at", ["p50", "p90"])
def test_a_run_that_is_a_quarter_slower_is_told_apart(method: object, at: str) -> None:
    assert callable(method)
    random = np.random.default_rng(6)
    changes = [method(run(random), run(random, slower=1.25), at) for _ in range(20)]
    assert sum(verdict(each) == ["worse"] for each in changes) >= 18
    for each in changes:
        assert each.low <= each.after - each.before <= each.high


def test_stretches_drawn_whole_say_less_than_requests_drawn_alone() -> None:
    random = np.random.default_rng(8)
    before, after = run(random, stall_ms=60), run(random, stall_ms=60)
    whole = drawn(before, after, "p90")
    shuffled = drawn(
        Sample(before.values, random.permutation(before.batches)),
        Sample(after.values, random.permutation(after.batches)),
        "p90",
    )
    assert whole.high - whole.low > 1.5 * (shuffled.high - shuffled.low)


def test_a_small_sample_is_not_drawn_from() -> None:
    few = Sample(np.arange(50.0), np.arange(50) % BATCH_COUNT)
    assert percentile_change("x", few, few, 0.99) is None
    together = Sample(np.arange(500.0), np.zeros(500, dtype=np.int64))
    assert percentile_change("x", together, together, 0.5) is None


def test_drawing_is_the_same_every_time() -> None:
    random = np.random.default_rng(9)
    before, after = run(random), run(random)
    assert drawn(before, after, "p90") == drawn(before, after, "p90")


def test_millions_of_values_are_drawn_as_bins() -> None:
    random = np.random.default_rng(10)
    batches = np.repeat(np.arange(BATCH_COUNT), 20_000)
    one, two = (Sample(random.exponential(10, 600_000), batches) for _ in range(2))
    found = percentile_change("x", one, two, 0.99)
    assert found is not None
    assert found.before == pytest.approx(10 * math.log(100), rel=0.02)
    assert (found.high - found.low) / found.before < 0.05
