"""grpc.health.v1 says SERVING while steps finish, to everyone who asks or watches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from router.mock_shard import Behaviour
from router.running_router import failure_of, running_router, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.server import PUBLIC_SERVICES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def ask(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", *PUBLIC_SERVICES])
def test_every_public_service_is_known(tmp_path: Path, service: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            assert (await health.Check(ask(service))).status == SERVING

    asyncio.run(scenario())


def test_a_service_that_is_not_here_is_not_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            error = await failure_of(health.Check(ask("nobody")))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            watch = health.Watch(ask("nobody"))
            unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            assert (await watch.read()).status == unknown
            watch.cancel()

    asyncio.run(scenario())


def test_steps_that_do_not_finish_are_not_serving_and_idleness_is_no_stall(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, stall_seconds=0.4) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            await asyncio.sleep(0.5)
            assert (await health.Check(ask())).status == SERVING
            running.behaviour.hangs = True
            work = asyncio.create_task(running.complete(stopping=pb.Stopping(max_new_tokens=3)))
            await until(lambda: running.step_loop.stalled_seconds > 0.45)
            assert (await health.Check(ask())).status == NOT_SERVING
            running.behaviour.hangs = False
            await work
            assert (await health.Check(ask())).status == SERVING

    asyncio.run(scenario())


def test_watchers_are_told_of_changes_also_after_one_of_them_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(), recovery_seconds=60.0) as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            leaves, stays = health.Watch(ask()), health.Watch(ask())
            for watch in (leaves, stays):
                assert (await watch.read()).status == SERVING
            leaves.cancel()
            await running.group.stop()
            assert (await asyncio.wait_for(stays.read(), 60)).status == NOT_SERVING
            await running.next_life()
            assert (await asyncio.wait_for(stays.read(), 60)).status == SERVING
            stays.cancel()

    asyncio.run(scenario())


def test_malformed_bytes_are_an_invalid_argument(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            check: Any = running.channel.unary_unary("/grpc.health.v1.Health/Check")
            error = await failure_of(check(b"\xff\xff"))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(scenario())
