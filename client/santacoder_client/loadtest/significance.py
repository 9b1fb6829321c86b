"""Whether two measured values differ by more than noise. Knows numbers, no metrics and no files.

Of each value there is an estimate with a 95 % interval. The interval of the difference is MOVER's
(Zou & Donner 2008), which keeps the two tails apart; of times and rates it is taken of their
logarithms, for these differ by factors. Where many values are compared at once, one in
20 would differ by chance, so the differences are judged together by Holm's rule (1979): of 20
comparisons of equal runs, 19 show no difference at all. What a single run cannot know, another
day's machine, is in none of this: that is what `least_effect` is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "noise", "unknown"]
Unit = Literal["ms", "1/s", "share"]
LEVEL = 0.05
Z = 1.959964
LEAST_MS = 0.05
"""A smaller difference of times is this client's, in Python, whatever the statistics say."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval; an end that is None is unbounded."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """A value before and after, and the 95 % interval of after - before."""

    name: str
    unit: Unit
    higher_is_better: bool
    before: float
    after: float
    low: float
    high: float

    @property
    def effect(self) -> float | None:
        """The change as a part of the value before; of shares, their plain difference."""
        return self.relative(self.after - self.before)

    def relative(self, difference: float) -> float | None:
        """A difference as `effect` has it; None where there was nothing before, or no bound."""
        if not math.isfinite(difference):
            return None
        if self.unit == "share":
            return difference
        return difference / self.before if self.before else None

    @property
    def chance(self) -> float:
        """How likely so large a difference is between equals (two-sided)."""
        low, difference, high = self.low, self.after - self.before, self.high
        if self.unit != "share" and min(self.before, self.after) > 0:
            low, difference, high = (
                _logarithm(1 + each / self.before) for each in (low, difference, high)
            )
        if not difference:
            return 1.0
        # The tail on the side of 0 is what keeps 0 apart from the difference.
        tail = difference - low if difference > 0 else high - difference
        return math.erfc(Z * abs(difference) / tail / math.sqrt(2)) if tail > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A change and what it means."""

    change: Change
    verdict: Verdict


def change_between(
    name: str, unit: Unit, higher_is_better: bool, before: Estimate, after: Estimate
) -> Change:
    """The change from one estimate to an independent other one."""
    ends = [each for each in (before.low, after.low) if each is not None]
    if unit != "share" and min(before.value, after.value, *ends) > 0:
        early, late = _of_logarithm(before), _of_logarithm(after)
        below, above = _mover(early, late)
        factors = (math.exp(late.value - early.value + each) for each in (-below, above))
        low, high = (before.value * (factor - 1) if factor else -math.inf for factor in factors)
    else:
        below, above = _mover(before, after)
        difference = after.value - before.value
        low, high = difference - below, difference + above
    return Change(
        name=name,
        unit=unit,
        higher_is_better=higher_is_better,
        before=before.value,
        after=after.value,
        low=low,
        high=high,
    )


def judge(changes: Sequence[Change], least_effect: float) -> tuple[Judged, ...]:
    """All changes of a comparison, judged together."""
    real = _holm([change.chance for change in changes])
    return tuple(
        Judged(change, _verdict(change, is_real, least_effect))
        for change, is_real in zip(changes, real, strict=True)
    )


def is_regression(judged: Judged, least_effect: float) -> bool:
    """Whether something became worse by at least so much."""
    effect = judged.change.effect
    # From nothing to something is more than any part of nothing.
    return judged.verdict == "worse" and (effect is None or abs(effect) >= least_effect)


def share_estimate(count: float, total: float, effect: float = 1.0) -> Estimate | None:
    """A share with Wilson's interval (1927); None of nothing.

    `effect` is how many of what was counted weigh no more than one that is independent.
    """
    if total <= 0:
        return None
    share = count / total
    total /= effect
    middle = (share + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    half /= 1 + Z * Z / total
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def mean_estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of stretches of a run (batch means) with its interval; None of fewer than 2."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = _student(count - 1) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def _verdict(change: Change, is_real: bool, least_effect: float) -> Verdict:
    if not math.isfinite(change.low) and not math.isfinite(change.high):
        return "unknown"
    difference, effect = change.after - change.before, change.effect
    small = effect is not None and abs(effect) < least_effect
    if not is_real or small or (change.unit == "ms" and abs(difference) < LEAST_MS):
        return "noise"
    return "better" if (difference > 0) is change.higher_is_better else "worse"


def _holm(chances: Sequence[float]) -> list[bool]:
    """Which are real, at a level that holds for all together."""
    real = [False] * len(chances)
    ordered = sorted(range(len(chances)), key=chances.__getitem__)
    for place, index in enumerate(ordered):
        if chances[index] > LEVEL / (len(chances) - place):
            break
        real[index] = True
    return real


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by Cornish and Fisher's expansion; exact for 1 and 2."""
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]
    z2 = Z * Z
    first = (z2 + 1) / (4 * freedom)
    second = ((5 * z2 + 16) * z2 + 3) / (96 * freedom**2)
    third = (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * freedom**3)
    return Z * (1 + first + second + third)


def _mover(before: Estimate, after: Estimate) -> tuple[float, float]:
    """How far the interval of after - before reaches below and above the difference."""
    below = math.hypot(_down(after), _up(before))
    return below, math.hypot(_up(after), _down(before))


def _of_logarithm(estimate: Estimate) -> Estimate:
    low, high = (None if each is None else math.log(each) for each in (estimate.low, estimate.high))
    return Estimate(math.log(estimate.value), low, high)


def _logarithm(factor: float) -> float:
    return math.log(factor) if factor > 0 else -math.inf


def _down(estimate: Estimate) -> float:
    return math.inf if estimate.low is None else estimate.value - estimate.low


def _up(estimate: Estimate) -> float:
    return math.inf if estimate.high is None else estimate.high - estimate.value
