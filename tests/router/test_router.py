"""The end of a router: what runs may finish, what comes is refused, what is left is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from router.mock_shard import Behaviour, MockGroup
from router.running_router import (
    config,
    failure_of,
    make_log,
    reason_of,
    running_router,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.group_lives import GroupUnreachable
from santacoder_router.handshake import GroupRefused
from santacoder_router.lifecycle import Phase
from santacoder_router.router import Ending, Router


def tokens(count: int) -> pb.Stopping:
    return pb.Stopping(max_new_tokens=count, ignore_eos=True)


@pytest.mark.fault("X1")
def test_a_drain_lets_running_requests_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05)
        async with running_router(tmp_path, behaviour, drain_seconds=60.0) as running:
            work = asyncio.create_task(running.complete(stopping=tokens(200)))
            await until(lambda: running.group.shards[0].step_count > 3)
            running.router.drain()
            error = await failure_of(running.complete())
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(error) == "DRAINING"
            health = health_pb2_grpc.HealthStub(running.channel)
            status = (await health.Check(health_pb2.HealthCheckRequest())).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
            behaviour.step_seconds = 0.0
            assert len((await work).choices[0].token_ids) == 200
            assert await running.run is Ending.DRAINED
            await running.router.close()
            assert running.group.shards[0].stream_ended_cleanly

    asyncio.run(scenario())


@pytest.mark.fault("X1")
def test_while_it_withdraws_health_says_so_and_who_comes_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, withdraw_seconds=1.0) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            running.router.drain()
            status = (await health.Check(health_pb2.HealthCheckRequest())).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
            if running.router.lifecycle.phase is Phase.WITHDRAWING:  # on a machine that moves on
                assert (await running.complete()).choices
            # A group that dies and comes back meanwhile does not call the callers back.
            running.router.lifecycle.enter(Phase.SERVING)
            status = (await health.Check(health_pb2.HealthCheckRequest())).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await running.run is Ending.DRAINED
            assert running.router.lifecycle.phase is Phase.DRAINING

    asyncio.run(scenario())


def test_a_router_whose_server_has_ended_by_itself_ends_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=0.05)) as running:
            work = asyncio.create_task(running.complete(stopping=tokens(200)))
            await until(lambda: running.group.shards[0].step_count > 3)
            assert running.router._server is not None
            await running.router._server.stop(None)
            assert await running.run is Ending.FAULT
            assert (await failure_of(work)).code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            )
            assert [line["event"] for line in running.log if line["level"] == "critical"] == [
                "the server has ended"
            ]

    asyncio.run(scenario())


def test_a_drain_ends_what_takes_too_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.5)
        async with running_router(tmp_path, behaviour, drain_seconds=0.2) as running:
            work = asyncio.create_task(running.complete(stopping=tokens(200)))
            await until(lambda: running.group.shards[0].step_count > 1)
            started = time.monotonic()
            running.router.drain()
            error = await failure_of(work)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(error) == "DRAINING"
            assert 0.1 < time.monotonic() - started < 50.0  # of the 100 s that the work takes
            assert await running.run is Ending.DRAINED

    asyncio.run(scenario())


def test_no_group_in_time_is_an_error_that_says_what_stood_in_the_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        message = ""
        # A machine that stood still in the little time has not found out: again, with more.
        for start_seconds in (0.3, 3.0, 30.0):
            if "UNAVAILABLE" not in message:
                message = await unreachable(start_seconds)
        assert "UNAVAILABLE" in message

    async def unreachable(start_seconds: float) -> str:
        settings = config((f"unix:{tmp_path}/none",), start_seconds=start_seconds)
        router = Router(settings, lambda *_: None, make_log([]))
        await router.start()
        with pytest.raises(GroupUnreachable) as caught:
            await router.run()
        await router.close()
        return str(caught.value)

    asyncio.run(scenario())


@pytest.mark.fault("X6")
@pytest.mark.parametrize(
    ("behaviour", "word"),
    [(Behaviour(protocol_version=2), "protocol version 2"), (Behaviour(slot_count=0), "slot")],
)
def test_a_group_that_never_fits_is_refused_at_once(
    tmp_path: Path, behaviour: Behaviour, word: str
) -> None:
    async def scenario() -> None:
        group = MockGroup(tmp_path, behaviour)
        await group.start()
        router = Router(config(group.addresses), lambda *_: None, make_log([]))
        await router.start()
        with pytest.raises(GroupRefused, match=word):
            await router.run()
        await router.close()
        await group.stop()

    asyncio.run(scenario())


def test_shards_that_come_up_late_are_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        group = MockGroup(tmp_path, Behaviour(), size=2)
        ready = asyncio.Event()
        router = Router(config(group.addresses), lambda *_: ready.set(), make_log([]))
        await router.start()
        run = asyncio.create_task(router.run())
        await group.shards[0].start()
        await asyncio.sleep(0.3)
        assert not ready.is_set()
        await group.shards[1].start()
        await asyncio.wait_for(ready.wait(), 60)
        router.drain()
        assert await run is Ending.DRAINED
        await router.close()
        await group.stop()

    asyncio.run(scenario())
