"""How fast something grows, with its 95 % bound: ordinary least squares within each life. Pure.

A process that is started anew begins at another height, so each life has its own, and one slope is
common to all. Values that follow each other are alike, which would make the bound too narrow: the
error is Newey and West's, which counts that in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Life = Sequence[tuple[float, float]]
"""Samples of one life: where on the x axis (seconds, requests), and the value."""
LEAST_SAMPLE_COUNT = 8


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per unit of x. `upper` is the upper end of the 95 % interval; nan where unknown."""

    per_unit: float
    upper: float
    lower: float
    sample_count: int


def slope_of(lives: Sequence[Life]) -> Slope:
    """The common slope. Lives of one sample say nothing of it."""
    centred = [pair for life in lives if len(life) > 1 for pair in _centred(life)]
    count = len(centred)
    spread = sum(x * x for x, _ in centred)
    if count < LEAST_SAMPLE_COUNT or spread == 0:
        return Slope(math.nan, math.nan, math.nan, count)
    per_unit = sum(x * y for x, y in centred) / spread
    scores = [x * (y - per_unit * x) for x, y in centred]
    free = max(1, count - 1 - sum(len(life) > 1 for life in lives))
    lags = math.ceil(1.3 * math.sqrt(count))
    error = math.sqrt(max(0.0, _long_run_variance(scores, lags)) * count / free) / spread
    width = _quantile(lags / count) * error
    return Slope(per_unit, per_unit + width, per_unit - width, count)


def _centred(life: Life) -> list[tuple[float, float]]:
    mean_x = sum(x for x, _ in life) / len(life)
    mean_y = sum(y for _, y in life) / len(life)
    return [(x - mean_x, y - mean_y) for x, y in life]


def _quantile(share: float) -> float:
    """For 95 % where the lags are such a share of the samples (Kiefer and Vogelsang, 2005)."""
    return 1.96 + 2.9694 * share + 0.416 * share**2 - 0.5324 * share**3


def _long_run_variance(scores: Sequence[float], lags: int) -> float:
    """Of the sum of the scores, with Bartlett's weights for those that are near each other."""
    count = len(scores)
    total = sum(score * score for score in scores)
    for lag in range(1, lags + 1):
        weight = 1.0 - lag / (lags + 1)
        total += (
            2 * weight * sum(scores[place] * scores[place - lag] for place in range(lag, count))
        )
    return total
