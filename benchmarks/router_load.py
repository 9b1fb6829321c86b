"""The load tester's own machinery on a router, in this process: users in a closed loop.

Its driver sends, its records and figures say what came; beside them the CPU time of every process
between the same two moments, and how this client itself did.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import processes
from processes import ServerProcess

from santacoder_client.loadtest.columns import Columns
from santacoder_client.loadtest.data.lengths import Lengths
from santacoder_client.loadtest.data.source import ModelFacts
from santacoder_client.loadtest.data.synthetic import SyntheticOptions, SyntheticSource
from santacoder_client.loadtest.driver import Driver, Route
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.load import Load, Phases, Share
from santacoder_client.loadtest.meter import IdleSelector, LoopMeter, MeterReading
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.result import Summary
from santacoder_client.loadtest.router_sender import RouterSender
from santacoder_client.loadtest.target import Security, Target
from santacoder_client.loadtest.window import Window

WARM_UP_SECONDS = 2.0
COOL_DOWN_SECONDS = 0.2
GRACE_SECONDS = 10.0
PROMPT_TOKEN_COUNT = 64
BYTE_COUNT = 256
USERS_PER_CHANNEL = 64


@dataclass(frozen=True, slots=True)
class Users:
    """Who asks: each again as soon as answered. New tokens from `least` to `most`, evenly."""

    api: Literal["stream", "unary"]
    count: int
    least_new_tokens: int
    most_new_tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load gave in its steady part."""

    summary: Summary
    client: MeterReading
    cpu_seconds: Mapping[str, float]
    seconds: float

    @property
    def finished_count(self) -> float:
        """Answers that ended."""
        return (self.summary.rates.finished_per_second or 0.0) * self.seconds

    @property
    def token_count(self) -> float:
        """Tokens that came, whoever had asked."""
        return (self.summary.rates.completion_tokens_per_second or 0.0) * self.seconds


async def measure(
    address: str,
    users: Users,
    seconds: float,
    servers: Mapping[str, ServerProcess],
    selector: IdleSelector,
) -> Measured:
    """Runs a load. Raises RuntimeError if a request failed: a ceiling of errors is none."""
    load = Load(
        "closed",
        concurrency=users.count,
        phases=Phases(WARM_UP_SECONDS, seconds, COOL_DOWN_SECONDS, GRACE_SECONDS),
    )
    channel_count = -(-users.count // USERS_PER_CHANNEL)
    wishes = Wishes(api=users.api, run_id=f"{users.api}-{os.getpid()}")
    sender = RouterSender(Target(address, "router", (address,)), Security(), wishes, channel_count)
    await sender.open()
    columns, meter = Columns(), LoopMeter(0, selector)
    routes = [Route(address, sender)]
    driver = Driver(load, Share(), _source(users), routes, meter, columns.add)
    began = time.monotonic()
    try:
        spent, _ = await asyncio.gather(
            _weigh(servers, load.phases, lambda: time.monotonic() - began),
            driver.run(lambda: time.monotonic() - began),
        )
    finally:
        await sender.close()
    window = Window.planned(WARM_UP_SECONDS, seconds, COOL_DOWN_SECONDS)
    summary = summarize(columns, window)
    if summary.errors:
        raise RuntimeError(f"requests failed: {summary.errors[0]}")
    return Measured(summary, meter.end(), spent, window.seconds)


def _source(users: Users) -> SyntheticSource:
    if users.least_new_tokens == users.most_new_tokens:
        new_tokens = Lengths("fixed", users.least_new_tokens, users.least_new_tokens)
    else:
        new_tokens = Lengths("uniform", users.least_new_tokens, users.most_new_tokens)
    prompt_tokens = Lengths("fixed", PROMPT_TOKEN_COUNT, PROMPT_TOKEN_COUNT)
    options = SyntheticOptions(prompt_tokens, new_tokens, seed=1)
    return SyntheticSource(options, ModelFacts(token_count=BYTE_COUNT))


async def _weigh(
    servers: Mapping[str, ServerProcess], phases: Phases, clock: Callable[[], float]
) -> dict[str, float]:
    """CPU seconds of every process in the steady part."""
    await asyncio.sleep(phases.steady_begin - clock())
    before = processes.all_cpu_seconds(servers)
    await asyncio.sleep(phases.steady_end - clock())
    after = processes.all_cpu_seconds(servers)
    return {name: after[name] - before[name] for name in after}
