"""Who is at a shard's address says what no shard says: twice, out of order, or as a stranger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from faults.calm import ask, ask_many, said
from faults.shard_links import linked
from router.mock_shard import Behaviour
from router.running_router import running_router, until

from santacoder.shard.v1 import shard_pb2, shard_pb2_grpc
from santacoder_router.lifecycle import Phase


class Once:
    """Does something to the second result that follows another, and nothing more."""

    def __init__(self, fault: Callable[..., list[shard_pb2.ExecuteResponse]]) -> None:
        self._fault = fault
        self._held: shard_pb2.ExecuteResponse | None = None
        self.is_armed = False

    def arm(self) -> None:
        """From the next result on."""
        self.is_armed = True

    def __call__(self, frame: shard_pb2.ExecuteResponse) -> list[shard_pb2.ExecuteResponse]:
        if not self.is_armed or frame.WhichOneof("frame") != "result":
            return [frame]
        held, self._held = self._held, frame
        if held is None:
            return []
        self.is_armed, self._held = False, None
        return self._fault(held, frame)


Frame = shard_pb2.ExecuteResponse


def renamed(frame: Frame) -> Frame:
    """A result of a plan that nobody has sent."""
    other = Frame()
    other.CopyFrom(frame)
    other.result.plan_number += 1000
    return other


TAMPERINGS: list[Callable[[Frame, Frame], list[Frame]]] = [
    lambda one, other: [one, one, other],
    lambda one, other: [other, one],
    lambda one, other: [other],
    lambda one, other: [one, renamed(other)],
]


@pytest.mark.fault("N8")
@pytest.mark.parametrize("steps_per_lease", [1, 4])
def test_frames_twice_or_out_of_order_end_the_group_and_change_no_token(
    tmp_path: Path, steps_per_lease: int
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.002, steps_per_lease=steps_per_lease)
        async with linked(tmp_path, behaviour) as link:
            undisturbed = said(await ask_many(link.target, 3))
            for count, tampering in enumerate(TAMPERINGS):
                once = behaviour.tamper = Once(tampering)
                assert said(await link.amid(once.arm)) == undisturbed
                assert link.failure_count == count + 1

    asyncio.run(scenario())


class Stranger(shard_pb2_grpc.ShardServiceServicer):
    """Speaks shard.v1, and is of another group: its model, or the version of its protocol."""

    def __init__(self, description: shard_pb2.DescribeResponse) -> None:
        self._description = description
        self.described_count = 0
        self.streams = 0

    async def Describe(self, *_: object) -> shard_pb2.DescribeResponse:
        self.described_count += 1
        return self._description

    async def Execute(self, *_: object) -> None:  # type: ignore[override]
        self.streams += 1


@pytest.mark.fault("N13")
@pytest.mark.parametrize("kind", ["another model", "another protocol", "no shard at all"])
def test_a_stranger_at_a_shard_s_address_is_told_no_prompt(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            golden = await ask(running.router.address)
            real = await running.group.shards[0].Describe(
                shard_pb2.DescribeRequest(include_tokenizer=True), None
            )
            real.epoch += 1
            if kind == "another model":
                real.checkpoint_fingerprint = "of a stranger"
            else:
                real.protocol_version = 99
            stranger, server = Stranger(real), grpc.aio.server()
            if kind != "no shard at all":
                shard_pb2_grpc.add_ShardServiceServicer_to_server(stranger, server)
            await running.group.stop()
            server.add_insecure_port(running.group.addresses[0])
            await server.start()
            answer = asyncio.create_task(ask(running.router.address))
            word = {
                "another model": "of a stranger",
                "another protocol": "protocol version 99; this router speaks 1",
                "no shard at all": "UNIMPLEMENTED",
            }[kind]
            await until(lambda: any(word in line.get("obstacle", "") for line in running.log))
            assert running.router.lifecycle.phase is Phase.RECOVERING
            assert stranger.streams == 0
            name = "santacoder_router_refused_groups_total"
            label = {"another model": "mixed", "another protocol": "another"}.get(kind, "mixed")
            count = running.router.metrics.registry.get_sample_value(name, {"kind": label})
            assert bool(count) is (kind != "no shard at all")
            await server.stop(None)
            await running.next_life()
            assert (await answer).choices == golden.choices

    asyncio.run(scenario())
