"""When requests of an open loop are due, in seconds from the beginning. Pure and seeded.

Two things are kept apart: how arrivals are strewn (`gaps`, with a mean of 1) and how the rate
changes over time (`moment`, when so many are expected to have come). Any spacing fits any rate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator

from santacoder_client.loadtest.load import Load, Spacing, Step

Moment = Callable[[float], float]
"""When the expected number of arrivals reaches a count; infinity if it never does."""


def due_times(load: Load) -> Iterator[float]:
    """When each request of an open loop or a trace is due, in order, until no more are sent."""
    if load.model == "trace":
        times: Iterator[float] = (at / load.speed for at in load.trace_seconds)
    else:
        counts = itertools.accumulate(gaps(load.spacing, load.burstiness, load.seed))
        times = map(_moment_of(load), counts)
    end = load.phases.sending_seconds
    return itertools.takewhile(lambda due: due < end, times)


def gaps(spacing: Spacing, burstiness: float, seed: int) -> Iterator[float]:
    """Gaps between arrivals in units of the mean gap, for ever."""
    draw = random.Random(f"arrival-{seed}")
    match spacing:
        case "constant":
            # The first is due at once, so that so many seconds at a rate hold exactly their number.
            return itertools.chain([0.0], itertools.repeat(1.0))
        case "poisson":
            return (draw.expovariate(1.0) for _ in itertools.count())
        case "gamma":
            shape = 1.0 / burstiness
            return (draw.gammavariate(shape, burstiness) for _ in itertools.count())


def at_rate(per_second: float) -> Moment:
    """The same rate all the time."""
    return lambda count: count / per_second


def at_ramp(begin_per_second: float, end_per_second: float, seconds: float) -> Moment:
    """A rate that changes linearly over `seconds`, and then stays."""
    slope = (end_per_second - begin_per_second) / seconds
    ramp_count = (begin_per_second + end_per_second) / 2 * seconds

    def moment(count: float) -> float:
        if count > ramp_count or slope == 0:
            return seconds + _divide(count - ramp_count, end_per_second)
        # The root of begin * t + slope * t^2 / 2 = count, in the form that no cancellation spoils.
        root = math.sqrt(max(0.0, begin_per_second**2 + 2 * slope * count))
        return _divide(2 * count, begin_per_second + root) if count else 0.0

    return moment


def at_steps(steps: Iterable[Step]) -> Moment:
    """Rates one after the other; the last one stays. A rate of 0 is a pause."""
    held = tuple(steps)

    def moment(count: float) -> float:
        begin, left = 0.0, count
        for step in held[:-1]:
            in_step = step.per_second * step.seconds
            if left < in_step:
                return begin + left / step.per_second
            begin, left = begin + step.seconds, left - in_step
        return begin + _divide(left, held[-1].per_second)

    return moment


def _moment_of(load: Load) -> Moment:
    if load.model == "steps":
        return at_steps(load.steps)
    rate = load.per_second or 0.0
    if load.model == "ramp":
        return at_ramp(rate, load.end_per_second or 0.0, load.phases.steady_end)
    return at_rate(rate)


def _divide(count: float, per_second: float) -> float:
    return count / per_second if per_second else math.inf
