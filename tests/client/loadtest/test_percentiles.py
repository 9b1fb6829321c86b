"""Percentiles equal their definition, and their intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from santacoder_client.loadtest import percentiles
from santacoder_client.loadtest.percentiles import (
    BATCH_COUNT,
    QUANTILES,
    Floats,
    Integers,
    design_effect,
    figure_of,
    percentile,
    ranks,
)

VALUES = st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=300)


def alone(count: int) -> Integers:
    """Stretches of values that stand in no order."""
    return np.arange(count) % BATCH_COUNT


@given(VALUES)
def test_a_figure_equals_its_definition(values: list[float]) -> None:
    sample = np.array(values)
    figure = figure_of(sample, alone(len(values)))
    assert figure is not None
    assert (figure.count, figure.min, figure.max) == (len(values), min(values), max(values))
    assert figure.mean == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert (figure.stdev is None) == (len(values) == 1)
    for name, quantile in QUANTILES.items():
        found = figure.percentiles[name]
        if found.value is None:
            assert len(values) < round(1 / (1 - quantile)) and found.low is found.high is None
            continue
        assert found.value == pytest.approx(float(np.quantile(sample, quantile)), rel=1e-9)
        assert found.low is None or figure.min <= found.low <= found.value
        assert found.high is None or found.value <= found.high <= figure.max


def test_an_empty_sample_has_no_figure() -> None:
    assert figure_of(np.array([]), alone(0)) is None


@pytest.mark.parametrize(
    ("name", "fewest"), [("p50", 2), ("p90", 10), ("p95", 20), ("p99", 100), ("p99.9", 1000)]
)
def test_a_small_sample_says_nothing_of_the_tail(name: str, fewest: int) -> None:
    few = figure_of(np.arange(fewest - 1.0), alone(fewest - 1))
    enough = figure_of(np.arange(float(fewest)), alone(fewest))
    assert few is not None and enough is not None
    assert few.percentiles[name].value is None
    assert enough.percentiles[name].value is not None
    # The largest of them may be anywhere below the true percentile: nothing bounds it from above.
    assert enough.percentiles[name].high is None


def exact_binomial(count: int, share: float, most: int) -> float:
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(most + 1))


@pytest.mark.parametrize("count", [1, 5, 6, 30, 100, 300, 999])
@pytest.mark.parametrize("quantile", QUANTILES.values())
def test_the_ranks_are_the_narrowest_with_thin_tails(count: int, quantile: float) -> None:
    low, high = ranks(count, quantile, 1.0)
    if low is not None:
        assert exact_binomial(count, quantile, low - 1) <= 0.025 + 1e-9
    assert exact_binomial(count, quantile, low or 0) > 0.025 - 1e-9
    if high is not None:
        assert 1 - exact_binomial(count, quantile, high - 1) <= 0.025 + 1e-9
    assert 1 - exact_binomial(count, quantile, (high or count + 1) - 2) > 0.025 - 1e-9


def test_ranks_of_many_values_are_those_of_the_normal_limit() -> None:
    low, high = ranks(10_000_000, 0.5, 1.0)
    assert low == pytest.approx(5_000_000 - 1.96 * math.sqrt(2_500_000), abs=2)
    assert high == pytest.approx(5_000_000 + 1.96 * math.sqrt(2_500_000), abs=3)


def coverage(draw: percentiles.Floats, truth: float, quantile: float, batches: Integers) -> float:
    """Part of the rows of `draw` whose interval holds the truth."""
    held = 0
    for row in draw:
        order = np.argsort(row)
        found = percentile(row[order], batches[order], quantile)
        low = -math.inf if found.low is None else found.low
        high = math.inf if found.high is None else found.high
        held += low <= truth <= high
    return held / len(draw)


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 200), (0.9, 200), (0.99, 2000)])
def test_intervals_hold_the_truth_19_times_of_20(quantile: float, count: int) -> None:
    random = np.random.default_rng(7)
    draw = random.exponential(size=(600, count))
    truth = -math.log(1 - quantile)
    assert coverage(draw, truth, quantile, np.arange(count) * BATCH_COUNT // count) >= 0.93


def stalling(random: np.random.Generator, rows: int, count: int) -> Floats:
    """Values of which whole stretches are slow at once, each with one chance in five."""
    slow = np.repeat(random.random((rows, BATCH_COUNT)) < 0.2, count // BATCH_COUNT, axis=1)
    values: Floats = random.exponential(size=slow.shape) + np.where(slow, 2.0, 0.0)
    return values


def test_intervals_hold_the_truth_where_neighbours_are_slow_together() -> None:
    random = np.random.default_rng(3)
    truth = float(np.quantile(stalling(random, 4000, 600), 0.9))
    draw = stalling(random, 300, 600)
    batches = np.arange(600) * BATCH_COUNT // 600
    naive = coverage(draw, truth, 0.9, np.zeros(600, dtype=np.int64))
    assert naive < 0.75
    assert coverage(draw, truth, 0.9, batches) >= 0.88


def test_the_design_effect_counts_what_comes_in_clusters_once() -> None:
    random = np.random.default_rng(1)
    values = np.repeat(random.random(1000), 20)
    batches = np.repeat(np.arange(1000), 20)
    order = np.argsort(values)
    assert design_effect(values[order], batches[order], 0.5) == pytest.approx(20, rel=0.1)
    alone_values = np.sort(random.random(20_000))
    shuffled = random.integers(0, 1000, 20_000)
    assert design_effect(alone_values, shuffled, 0.5) == pytest.approx(1.0, abs=0.15)


@settings(max_examples=60)
@given(
    st.integers(1, 100_000),
    st.sampled_from(list(QUANTILES.values())),
    st.floats(1, 1e6),
)
def test_ranks_stay_inside_the_sample(count: int, quantile: float, effect: float) -> None:
    low, high = ranks(count, quantile, effect)
    narrow_low, narrow_high = ranks(count, quantile, 1.0)
    assert low is None or (1 <= low <= count and narrow_low is not None and low <= narrow_low)
    assert high is None or (1 <= high <= count and narrow_high is not None)
    assert high is None or narrow_high is None or high >= narrow_high
