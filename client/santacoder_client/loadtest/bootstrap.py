"""How far a percentile's difference between two runs would vary, by resampling the runs' requests.

Requests are drawn by stretches of the run (block bootstrap: Kuensch 1989), 30 as for the intervals
of a single run: those who waited in the same queue are no independent witnesses. Seeded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from santacoder_client.loadtest.percentiles import (
    Floats,
    Integers,
    fewest,
    interpolated,
)
from santacoder_client.loadtest.significance import Change

REPLICATE_COUNT = 1000
BIN_COUNT = 4096
"""Values are drawn as bins of so many equal parts of the sample; a smaller one is drawn exactly."""
FILLED_MIN = 10
"""Of fewer stretches no drawing says how they vary."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's values in one run, in milliseconds, and the stretch of each."""

    values: Floats
    batches: Integers


def percentile_change(
    name: str, before: Sample, after: Sample, quantile: float, seed: int = 0
) -> Change | None:
    """The change of a percentile; None where a sample is too small for it."""
    random = np.random.default_rng(seed)
    samples = (before, after)
    if any(len(each.values) < fewest(quantile) for each in samples):
        return None
    if any(len(np.unique(each.batches)) < FILLED_MIN for each in samples):
        return None
    old, new = (_replicates(each, quantile, random) for each in samples)
    low, high = np.quantile(new - old, [0.025, 0.975])
    values = [interpolated(np.sort(each.values), quantile) for each in samples]
    difference = values[1] - values[0]
    return Change(
        name=name,
        unit="ms",
        higher_is_better=False,
        before=values[0],
        after=values[1],
        low=min(float(low), difference),
        high=max(float(high), difference),
    )


def _replicates(sample: Sample, quantile: float, random: np.random.Generator) -> Floats:
    """The percentile in every redrawing of the stretches."""
    counts, levels = _table(sample)
    stretches = len(counts)
    drawn = random.multinomial(stretches, [1 / stretches] * stretches, size=REPLICATE_COUNT)
    sums = np.cumsum(drawn.astype(np.float64) @ counts, axis=1)
    places = (sums < quantile * sums[:, -1:]).sum(axis=1)
    found: Floats = levels[places]
    return found


def _table(sample: Sample) -> tuple[Floats, Floats]:
    """How many values of each stretch are in each bin, and the value that stands for the bin."""
    order = np.argsort(sample.values)
    ordered = sample.values[order]
    count = len(ordered)
    bins = np.arange(count) * min(BIN_COUNT, count) // count
    kept, batches = np.unique(sample.batches, return_inverse=True)
    counts = np.zeros((len(kept), int(bins[-1]) + 1))
    np.add.at(counts, (batches[order], bins), 1)
    ends = np.flatnonzero(np.diff(bins, append=bins[-1] + 1))
    return counts, ordered[ends]
