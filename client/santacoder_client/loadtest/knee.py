"""Which load to try next, and what the tried ones say. Pure; runs nothing.

Up the ladder first, until the server no longer keeps up; then the gap between the highest load that
was good and the lowest above it that was not is halved again and again. Good is a load that meets
the SLO, or without an SLO one that the server keeps up with; of requests at once, which no server
fails to keep up with, the gaps beside the knee are halved instead.

The knee is Kneedle's (Satopaa et al. 2011): with loads and throughputs both scaled to 0..1, the
load whose throughput lies farthest above the straight line from the first point to the last. Where
everything offered is served to the end there is no knee.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Variable = Literal["rate", "concurrency"]

KEPT_SHARE = 0.97
"""Part of what is offered that a server which keeps up finishes."""
DEEP_SHARE = 0.8
"""A server that finishes less is past any doubt."""
GAIN_SHARE = 1.03
"""More at once that brings no more than this brings nothing."""
KNEE_POINTS_MIN = 3
KNEE_HEIGHT_MIN = 0.05
"""Below that a curve is a straight line that varies."""
METHOD = "largest distance above the chord (Kneedle)"


@dataclass(frozen=True, slots=True)
class Seen:
    """A load that was tried, and what came of it."""

    load: float
    offered_per_second: float
    finished_per_second: float
    seconds: float
    in_flight_mean: float
    """Requests under way at a time."""
    met_slo: bool | None = None
    """Whether enough of them met every SLO; None without an SLO."""
    client_limited: bool = False
    """The load tester was the limit: a higher load would say nothing of the server."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for, and how long."""

    variable: Variable
    ladder: tuple[float, ...]
    """Loads to try, rising."""
    halvings: int = 5
    resolution: float = 0.05
    """How close two loads may be, as a part of the lower one."""

    def next_load(self, seen: Sequence[Seen]) -> float | None:
        """The load to try after these, in the order of trial; None if enough is known."""
        climbed = [each for each in seen if each.load in self.ladder]
        if len(climbed) < len(self.ladder) and not self._is_over_the_top(climbed):
            return self.ladder[len(climbed)]
        if len(seen) - len(climbed) >= self.halvings:
            return None
        if self.variable == "concurrency" and any(each.met_slo is None for each in seen):
            return self._beside_knee(seen)
        load = self._between(*bracket(self.variable, seen))
        return None if load in [each.load for each in seen] else load

    def _beside_knee(self, seen: Sequence[Seen]) -> float | None:
        """Users at once have no load that is just too much; the knee itself is looked at closer."""
        knee = knee_of(self.variable, seen)
        ordered = sorted(seen, key=lambda each: each.load)
        pairs = [pair for pair in itertools.pairwise(ordered) if knee in pair]
        pairs.sort(key=lambda pair: -pair[1].load / pair[0].load)
        loads = (self._between(*pair) for pair in pairs)
        return next((load for load in loads if load is not None), None)

    def _is_over_the_top(self, climbed: Sequence[Seen]) -> bool:
        """Whether the last step of the ladder is past doubt, or the second one in doubt."""
        kept = keeping_up(self.variable, climbed)
        doubts = [not k or each.client_limited for k, each in zip(kept, climbed, strict=True)]
        if not climbed:
            return False
        last = climbed[-1]
        deep = self.variable == "rate" and (
            last.finished_per_second < DEEP_SHARE * last.offered_per_second
        )
        return (doubts[-1] and deep) or doubts[-2:] == [True, True]

    def _between(self, low: Seen | None, high: Seen | None) -> float | None:
        """A load between the two, if there is one that would say more."""
        if low is None or high is None or high.load <= low.load * (1 + self.resolution):
            return None
        if self.variable == "concurrency":
            middle = float(round((low.load + high.load) / 2))
            return middle if low.load < middle < high.load else None
        # In the middle of their ratio: loads are apart by factors, not by steps.
        return rounded(math.sqrt(low.load * high.load))


def keeping_up(variable: Variable, seen: Sequence[Seen]) -> list[bool]:
    """Whether the server kept up with each of the loads, which rise."""
    if variable == "rate":
        return [keeps_up(each) for each in seen]
    best, kept = 0.0, []
    for each in seen:
        kept.append(each.finished_per_second > GAIN_SHARE * best)
        best = max(best, each.finished_per_second)
    return kept


def keeps_up(each: Seen) -> bool:
    """Whether as much was finished as was offered, but for chance.

    Both are counted in the same window, so they differ by how many more were under way at its end
    than at its begin; by chance that is about the root of twice those under way.
    """
    missing = each.offered_per_second - each.finished_per_second
    by_chance = 3 * math.sqrt(2 * each.in_flight_mean + 1) / each.seconds
    return missing <= max((1 - KEPT_SHARE) * each.offered_per_second, by_chance)


def bracket(variable: Variable, seen: Sequence[Seen]) -> tuple[Seen | None, Seen | None]:
    """The highest load that was good, and the lowest one above it, which was not."""
    ordered = sorted(seen, key=lambda each: each.load)
    low, high = None, None
    for each, good in zip(ordered, _goodness(variable, ordered), strict=True):
        if good:
            low, high = each, None
        # Where the load tester was too slow, the server has missed nothing.
        elif high is None and not each.client_limited:
            high = each
    return low, high


def best_of(seen: Sequence[Seen]) -> tuple[Seen, Seen | None] | None:
    """The highest load that met the SLO, and the lowest above it that missed; None if none did."""
    if any(each.met_slo is None for each in seen):
        return None
    low, high = bracket("rate", seen)
    return (low, high) if low is not None else None


def knee_of(variable: Variable, seen: Sequence[Seen]) -> Seen | None:
    """The knee of throughput over load; None where there is none to be seen."""
    ordered = sorted(seen, key=lambda each: each.load)
    if len(ordered) < KNEE_POINTS_MIN or all(keeping_up(variable, ordered)):
        return None
    heights = list(_heights(ordered))
    place = max(range(len(heights)), key=heights.__getitem__)
    return ordered[place] if heights[place] >= KNEE_HEIGHT_MIN else None


def geometric(low: float, high: float, count: int) -> tuple[float, ...]:
    """Loads from one to another, each the same factor above the last."""
    if count == 1:
        return (low,)
    factor = (high / low) ** (1 / (count - 1))
    inner = {rounded(low * factor**step) for step in range(1, count - 1)}
    # Rounded, neighbours may be the same, or outside.
    return tuple(sorted({low, high} | {load for load in inner if low < load < high}))


def rounded(load: float) -> float:
    """Three figures: more would look like knowledge."""
    return float(f"{load:.3g}")


def _goodness(variable: Variable, ordered: Sequence[Seen]) -> list[bool]:
    kept = keeping_up(variable, ordered)
    return [
        good if each.met_slo is None else each.met_slo
        for each, good in zip(ordered, kept, strict=True)
    ]


def _heights(ordered: Sequence[Seen]) -> Iterator[float]:
    """How far each point lies above the line from the first to the highest."""
    loads = [each.load for each in ordered]
    finished = [each.finished_per_second for each in ordered]
    width, least, most = loads[-1] - loads[0], min(finished), max(finished)
    for load, done in zip(loads, finished, strict=True):
        across = (load - loads[0]) / width if width else 0.0
        up = (done - least) / (most - least) if most > least else 0.0
        yield up - across
