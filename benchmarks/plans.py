"""What router and wire add to a request of the demo checkpoint, and its tokens a second.

A request's time outside the device is the client's time less the device's, which the router counts;
divided by the plans that it took, it is the price of a plan. One request at a time, so that no
other's device time is in it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from figures import Figure, spread
from service import Service

PROMPT_TOKEN_COUNT = 32
NEW_TOKEN_COUNT = 64
STREAM_COUNT = 8
REQUEST_COUNT = 200
WARM_UP_COUNT = 10
ROUND_COUNT = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """One request: seconds at the client and on the device, and its plans."""

    client_seconds: float
    device_seconds: float
    plan_count: float

    @property
    def outside_seconds(self) -> float:
        return self.client_seconds - self.device_seconds


def measure(service: Service) -> list[Figure]:
    """Requests of one token and of 64, then eight streams."""
    generator = random.Random(2)
    for _ in range(WARM_UP_COUNT):
        _request(service, generator, NEW_TOKEN_COUNT)
    short = [_request(service, generator, 1) for _ in range(REQUEST_COUNT)]
    long = [_request(service, generator, NEW_TOKEN_COUNT) for _ in range(REQUEST_COUNT)]
    eight = [_eight_streams(service, generator) for _ in range(ROUND_COUNT)]
    whole = [cost.outside_seconds for cost in short]
    per_plan = [cost.outside_seconds / cost.plan_count for cost in long]
    one = [NEW_TOKEN_COUNT / cost.client_seconds for cost in long]
    device = sum(cost.device_seconds for cost in long)
    share = device / sum(cost.client_seconds for cost in long)
    return [
        *_quantiles("demo, router and wire, request of 1 token", whole),
        *_quantiles(f"demo, router and wire, each plan of {NEW_TOKEN_COUNT} tokens", per_plan),
        Figure(
            "demo, one stream",
            statistics.median(one),
            "tokens/s",
            beside=f"device {share:.0%} of the time",
        ),
        Figure("demo, eight streams", statistics.median(eight), "tokens/s", beside=spread(eight)),
    ]


def _request(service: Service, generator: random.Random, new_token_count: int) -> Cost:
    prompt = _prompt(generator)
    before = _device_seconds_and_plans(service)
    answer = service.complete(prompt, new_token_count)
    after = _device_seconds_and_plans(service)
    seconds = answer.ended_at - answer.sent_at
    return Cost(seconds, after[0] - before[0], after[1] - before[1])


def _eight_streams(service: Service, generator: random.Random) -> float:
    prompts = [_prompt(generator) for _ in range(STREAM_COUNT)]
    begin = time.perf_counter()
    service.complete_all(prompts, NEW_TOKEN_COUNT)
    return STREAM_COUNT * NEW_TOKEN_COUNT / (time.perf_counter() - begin)


def _prompt(generator: random.Random) -> list[int]:
    return [generator.randrange(256) for _ in range(PROMPT_TOKEN_COUNT)]


def _device_seconds_and_plans(service: Service) -> tuple[float, float]:
    metrics = service.metrics()
    return (
        metrics["santacoder_router_step_seconds_sum", ""],
        metrics["santacoder_router_step_seconds_count", ""],
    )


def _quantiles(name: str, seconds: Sequence[float]) -> list[Figure]:
    median, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
    beside = f"{len(seconds)} requests"
    return [
        Figure(f"{name}, median", 1000 * median, "ms", beside=beside),
        Figure(f"{name}, p99", 1000 * p99, "ms", beside=beside),
    ]
