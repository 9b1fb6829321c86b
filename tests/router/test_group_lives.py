"""A group dies and another takes its place: clients see a pause, and every token stays right."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from router.mock_shard import Behaviour
from router.running_router import (
    Running,
    detail,
    failure_of,
    ids_in,
    reason_of,
    running_router,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.lifecycle import Phase

LONG = pb.Stopping(max_new_tokens=80, ignore_eos=True)
SEEDED = pb.Sampling(temperature=0.7, seed=11)


async def die_at(running: Running, step: int) -> None:
    """The group dies at a step, and the next one comes."""
    running.behaviour.dies_at_step = step
    await asyncio.wait_for(running.group.shards[0].died.wait(), 60)
    running.behaviour.dies_at_step = None
    await running.next_life()


@pytest.mark.fault("S1")
@pytest.mark.parametrize("size", [1, 2])
def test_a_death_in_mid_request_changes_no_token(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.001)
        async with running_router(tmp_path, behaviour, size) as running:
            undisturbed = [
                (await running.complete(text=f"prompt {n}", stopping=LONG, sampling=SEEDED))
                for n in range(3)
            ]
            step = running.group.shards[0].step_count + 20
            streams = [
                asyncio.create_task(
                    running.stream(text=f"prompt {n}", stopping=LONG, sampling=SEEDED)
                )
                for n in range(3)
            ]
            await die_at(running, step)
            for answer, events in zip(undisturbed, await asyncio.gather(*streams), strict=True):
                assert ids_in(events) == list(answer.choices[0].token_ids)
                assert sum(event.HasField("accepted") for event in events) == 1
            assert running.router.lifecycle.phase is Phase.SERVING
            # They came back as prompt and accepted tokens, not as prompts alone.
            admits = running.group.shards[0].plans[0].admits
            assert any(len(admit.token_ids) // 4 > admit.prompt_length for admit in admits)

    asyncio.run(scenario())


@pytest.mark.fault("S1")
def test_requests_that_come_while_the_group_is_dead_wait_for_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            await running.group.stop()
            await until(lambda: running.router.lifecycle.phase is Phase.RECOVERING)
            status = await health.Check(health_pb2.HealthCheckRequest())
            assert status.status == health_pb2.HealthCheckResponse.NOT_SERVING
            waiting = asyncio.create_task(running.complete())
            await asyncio.sleep(0.1)
            await running.next_life()
            assert (await waiting).choices[0].token_ids
            status = await health.Check(health_pb2.HealthCheckRequest())
            assert status.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(scenario())


@pytest.mark.fault("S1")
def test_time_passes_for_requests_while_the_group_is_dead(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            whole = await running.complete(stopping=LONG)
            running.behaviour.step_seconds = 0.1
            budget = duration_pb2.Duration(seconds=60)
            partial = asyncio.create_task(running.complete(stopping=LONG, time_budget=budget))
            await until(lambda: running.generated_count > 80)
            await running.group.stop()
            await until(lambda: running.router.lifecycle.phase is Phase.RECOVERING)
            running.pass_time(61.0)
            [choice] = (await partial).choices
            assert choice.finish_reason == pb.FINISH_REASON_TIME_BUDGET
            count = len(choice.token_ids)
            assert 0 < count < 80
            assert choice.token_ids == whole.choices[0].token_ids[:count]
            running.behaviour.step_seconds = 0.0
            await running.next_life()
            assert (await running.complete(stopping=LONG)).choices == whole.choices

    asyncio.run(scenario())


@pytest.mark.fault("S24")
def test_another_model_does_not_take_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, recovery_seconds=600.0) as running:
            running.behaviour.fingerprint = "another"
            await running.next_life()
            call = asyncio.create_task(running.complete(stopping=LONG))

            def obstacles() -> list[str]:
                return [line["obstacle"] for line in running.log if "obstacle" in line]

            await until(lambda: any("checkpoint_fingerprint" in line for line in obstacles()))
            assert running.router.lifecycle.phase is Phase.RECOVERING
            assert running.group.shards[0].plans == []
            running.router.lose_group()
            assert reason_of(await failure_of(call)) == "SHARD_LOST"

    asyncio.run(scenario())


@pytest.mark.fault("S17")
def test_when_no_group_comes_back_everything_is_answered_and_stays_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05)
        async with running_router(tmp_path, behaviour, recovery_seconds=0.3) as running:
            calls = [asyncio.create_task(running.complete(stopping=LONG)) for _ in range(3)]
            await until(lambda: running.group.shards[0].step_count > 3)
            await running.group.stop()
            for call in calls:
                assert reason_of(await failure_of(call)) == "SHARD_LOST"
            error = await failure_of(running.complete())
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.seconds > 0
            assert running.router.lifecycle.phase is Phase.LOST

    asyncio.run(scenario())


@pytest.mark.fault("S17")
def test_told_that_the_group_is_gone_it_answers_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05)
        async with running_router(tmp_path, behaviour, recovery_seconds=600.0) as running:
            calls = [asyncio.create_task(running.complete(stopping=LONG)) for _ in range(20)]
            await until(lambda: running.group.shards[0].step_count > 3)
            await running.group.stop()
            await until(lambda: running.router.lifecycle.phase is Phase.RECOVERING)
            started = time.monotonic()
            running.router.lose_group()
            errors = await asyncio.gather(*(failure_of(call) for call in calls))
            assert time.monotonic() - started < 60.0  # of the 600 s it may recover
            assert {reason_of(error) for error in errors} == {"SHARD_LOST"}
            # A group that comes back after all changes nothing any more.
            await running.next_life()
            await asyncio.sleep(0.3)
            assert reason_of(await failure_of(running.complete())) == "SHARD_LOST"

    asyncio.run(scenario())


@pytest.mark.fault("R7")
def test_a_scheduler_that_fails_ends_the_router_and_says_so_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> str:
        async with running_router(tmp_path, Behaviour(step_seconds=0.05)) as running:
            calls = [asyncio.create_task(running.complete(stopping=LONG)) for _ in range(3)]
            await until(lambda: running.group.shards[0].step_count > 3)

            def explode(*_: object) -> None:
                raise KeyError("a broken invariant")

            monkeypatch.setattr(running.step_loop.scheduler, "apply", explode)
            for call in calls:
                error = await failure_of(call)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert reason_of(error) == "ROUTER_FAULT"
            [line] = [line for line in running.log if line["level"] == "critical"]
            assert "a broken invariant" in repr(line["exc_info"])
            return (await running.run).name

    assert asyncio.run(scenario()) == "FAULT"


@pytest.mark.long
@pytest.mark.fault("N9", "X11")
def test_while_a_rank_is_missing_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    def open_count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        async with running_router(tmp_path, size=2) as running:
            golden = await running.complete(stopping=LONG)
            before, tries = open_count(), 0
            await running.group.stop()
            # One of the next life's two ranks is there, and does not mind being asked.
            running.group = running.group.next_life()
            present = running.group.shards[0]
            describe = present.Describe

            async def counted(*words: Any) -> Any:
                nonlocal tries
                tries += 1
                return await describe(*words)

            present.Describe = counted  # type: ignore[method-assign,assignment]
            await present.start()
            await until(lambda: tries >= 20)
            await running.group.shards[1].start()
            assert (await running.complete(stopping=LONG)).choices == golden.choices
            # Each try that is not forgotten connects now, too.
            await asyncio.sleep(1.0)
            assert open_count() < before + 15

    gc.disable()  # the router's own collector comes seldom, too
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
