"""Percentiles with 95 % intervals, from samples. Knows no requests and no units.

A percentile is the linear interpolation between the two closest of the sorted values (type 7 of
Hyndman & Fan 1996, numpy's default). Harrell-Davis would vary less, but no one could check it by
hand, and every other tool's figure would differ by its definition alone.

The interval is by order statistics (Conover 1999, section 3.2; the number of values below a true
quantile is binomial): the ranks below and above which at most 2.5 % each of the binomial lie. It
supposes nothing of the distribution. It does suppose independent values, which latencies are not:
one stall slows all that run. So the sample's size is first divided by the design effect (Woodruff
1952; Kish 1965): how much more the share of values below the percentile varies between 30 stretches
of the run (batch means: Schmeiser 1982) than it would if all were independent.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from santacoder_client.loadtest.result import Figure, Percentile

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
BATCH_COUNT = 30
_TAIL = 0.025


def figure_of(values_ms: Floats, batches: Integers) -> Figure | None:
    """The whole figure of a sample; None without one. `batches` are the stretches, by value."""
    count = len(values_ms)
    if not count:
        return None
    order = np.argsort(values_ms)
    ordered, batches = values_ms[order], batches[order]
    return Figure(
        unit="ms",
        count=count,
        mean=float(ordered.mean()),
        stdev=float(ordered.std(ddof=1)) if count > 1 else None,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        percentiles={name: percentile(ordered, batches, q) for name, q in QUANTILES.items()},
    )


def percentile(ordered: Floats, batches: Integers, quantile: float) -> Percentile:
    """One percentile of sorted values.

    There is no value unless at least one of the values is expected beyond it: p99 needs 100. An
    end of the interval is None where no value is far enough out to bound it.
    """
    count = len(ordered)
    if count < fewest(quantile):
        return Percentile(None, None, None)
    value = interpolated(ordered, quantile)
    low_rank, high_rank = ranks(count, quantile, design_effect(ordered, batches, value))
    return Percentile(
        value=value,
        low=min(value, float(ordered[low_rank - 1])) if low_rank else None,
        high=max(value, float(ordered[high_rank - 1])) if high_rank else None,
    )


def fewest(quantile: float) -> int:
    """The size from which on a sample says something of a quantile."""
    return round(1 / (1 - quantile))


def interpolated(ordered: Floats, quantile: float) -> float:
    """The percentile of sorted values, which must not be none."""
    place = (len(ordered) - 1) * quantile
    below = math.floor(place)
    low = float(ordered[below])
    high = float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (high - low) * (place - below)


def design_effect(ordered: Floats, batches: Integers, value: float) -> float:
    """How many values weigh no more than one that is independent, in the share up to `value`."""
    below_count = int(np.searchsorted(ordered, value, side="right"))
    totals = np.bincount(batches, minlength=1)
    return share_effect(np.bincount(batches[:below_count], minlength=len(totals)), totals)


def share_effect(counts: Integers, totals: Integers) -> float:
    """The design effect of a share that was counted in stretches; at least 1."""
    filled, total = int((totals > 0).sum()), int(totals.sum())
    share = float(counts.sum()) / total if total else 0.0
    if filled < 2 or not 0 < share < 1:
        return 1.0
    residuals = counts - share * totals
    between = float((residuals**2).sum()) * filled / (filled - 1)
    return max(1.0, between / (total * share * (1 - share)))


def ranks(count: int, quantile: float, effect: float) -> tuple[int | None, int | None]:
    """The ranks, from 1, of the interval's ends; None where the sample does not reach that far."""
    effective = max(1, math.floor(count / effect))
    first, shares = _binomial(effective, quantile)
    # At most so much lies below `low`: the largest rank whose binomial tail is still so thin.
    low = first + int(np.searchsorted(np.cumsum(shares), _TAIL, side="right"))
    from_above = np.cumsum(shares[::-1])
    high = first + len(shares) - int(np.searchsorted(from_above, _TAIL, side="right"))
    low_rank = math.floor((low - 1) * count / effective) + 1 if low >= 1 else None
    high_rank = math.ceil(high * count / effective) if high <= effective else None
    return low_rank, high_rank


def _binomial(count: int, share: float) -> tuple[int, Floats]:
    """The binomial's probabilities around its mean, and the number that the first stands for.

    By the ratio of neighbours, from the mode outwards; beyond 12 deviations there is nothing.
    """
    reach = 12 * math.sqrt(count * share * (1 - share)) + 12
    first = max(0, math.floor(count * share - reach))
    last = min(count, math.ceil(count * share + reach))
    numbers = np.arange(first, last, dtype=np.float64)
    steps = np.log((count - numbers) / (numbers + 1)) + math.log(share / (1 - share))
    logarithms = np.concatenate([[0.0], np.cumsum(steps)])
    shares = np.exp(logarithms - logarithms.max())
    return first, shares / shares.sum()
