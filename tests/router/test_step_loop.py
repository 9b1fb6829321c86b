"""The heartbeat by itself: who is woken, who is interrupted, and what a fault ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from router.mock_shard import Behaviour, ids_of
from router.running_router import make_log, request, running_router, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.core import plan as core
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig
from santacoder_router.fail_stop import SchedulerFault
from santacoder_router.metrics import Metrics
from santacoder_router.step_loop import StepLoop


class Reader:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[core.Event] = []
        self.errors: list[Exception] = []
        self.name = "a request"

    def read(self, event: core.Event) -> None:
        self.events.append(event)

    def fail(self, error: Exception) -> None:
        self.errors.append(error)


def make_loop() -> StepLoop:
    config = SchedulerConfig(16, 8, 2, 4, 32, 1, 2, 64)
    scheduler = Scheduler(config, b"seed")
    return StepLoop(scheduler, Metrics(), time.monotonic, make_log([]))


def a_request(number: int) -> core.Request:
    return core.Request(number, ids_of("abc"), 5)


def test_a_fault_in_a_request_ends_the_loop_too() -> None:
    async def scenario() -> None:
        loop = make_loop()
        reader = Reader()
        with pytest.raises(SchedulerFault):
            loop.submit(core.Request(1, (), 5), reader)
        never: asyncio.Task[object] = asyncio.create_task(asyncio.sleep(600))
        with pytest.raises(SchedulerFault):
            await asyncio.wait_for(loop.hold(never), 60)  # type: ignore[arg-type]
        never.cancel()

    asyncio.run(scenario())


def test_a_cancelled_request_hears_nothing_more_and_cancelling_again_is_nothing() -> None:
    async def scenario() -> None:
        loop = make_loop()
        reader = Reader()
        loop.submit(a_request(1), reader)
        loop.cancel(1)
        loop.cancel(1)
        loop.abandon(ValueError())
        assert (reader.events, reader.errors) == ([], [])
        assert loop.scheduler.stats.queued_request_count == 0

    asyncio.run(scenario())


def test_abandoned_requests_are_told_once() -> None:
    async def scenario() -> None:
        loop = make_loop()
        readers = [Reader(), Reader()]
        for number, reader in enumerate(readers, start=1):
            loop.submit(a_request(number), reader)
        error = ValueError()
        loop.abandon(error)
        loop.abandon(ValueError())
        assert [reader.errors for reader in readers] == [[error], [error]]

    asyncio.run(scenario())


def test_a_lease_is_not_cut_short_for_those_who_begin_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Steps seem quick, so that leases are granted.
        behaviour = Behaviour(step_seconds=0.01, reported_step_seconds=1e-5, steps_per_lease=32)
        async with running_router(tmp_path, behaviour) as running:
            stopping = pb.Stopping(max_new_tokens=20, ignore_eos=True)
            for text in ("first", "second"):
                await running.complete(text=text, stopping=stopping)
            plans = running.group.shards[0].plans
            assert any(plan.admits and plan.num_steps > 1 for plan in plans)
            assert behaviour.interrupted_plan_numbers == []

    asyncio.run(scenario())


def test_someone_who_waits_cuts_a_lease_short(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Steps seem quick, so that leases are granted, and are slow, so that someone can wait.
        behaviour = Behaviour(step_seconds=0.05, reported_step_seconds=3e-5, steps_per_lease=32)
        async with running_router(tmp_path, behaviour) as running:
            long = pb.Stopping(max_new_tokens=200, ignore_eos=True)
            first = asyncio.create_task(running.complete(stopping=long))
            shard = running.group.shards[0]
            await until(lambda: any(plan.num_steps > 8 for plan in shard.plans))
            await until(lambda: shard.step_count > 8)
            short = pb.Stopping(max_new_tokens=1)
            await running.complete(text="second", stopping=short)
            assert behaviour.interrupted_plan_numbers
            first.cancel()

    asyncio.run(scenario())


def test_a_reader_that_is_slow_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            message = pb.StreamCompleteRequest(completion=request())
            unread = [running.completion.StreamComplete(message) for _ in range(4)]
            answer = await asyncio.wait_for(running.complete(), 60)
            assert answer.choices[0].token_ids
            for call in unread:
                call.cancel()

    asyncio.run(scenario())
