"""The link between router and shards misbehaves: requests pause, and no token is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from faults.calm import ask, ask_many, expect_calm, said, supervised
from router.fault_proxy import FaultProxy, Way, fault_proxy
from router.mock_shard import Behaviour
from router.running_router import Running, running_router, until

from santacoder.shard.v1 import shard_pb2, shard_pb2_grpc
from santacoder_client import Completion
from santacoder_router import shard_group
from santacoder_router.lifecycle import Phase

Figure = Callable[[str, object], None]
FAILURES = "santacoder_router_group_failures_total"


@dataclass
class Linked:
    """A router whose every shard is behind a proxy."""

    running: Running
    proxies: list[FaultProxy]
    golden: Completion

    @property
    def target(self) -> str:
        return self.running.router.address

    @property
    def failure_count(self) -> int:
        """Lives of the group that have ended."""
        return int(self.running.router.metrics.registry.get_sample_value(FAILURES) or 0)

    async def until_dead(self, count: int) -> None:
        """So many lives have ended."""
        await until(lambda: self.failure_count >= count)

    async def amid(self, fault: Callable[[], object], count: int = 3) -> list[Completion]:
        """Answers, amid which the fault comes."""
        before = self.running.generated_count
        answers = asyncio.create_task(ask_many(self.target, count))
        await until(lambda: self.running.generated_count > before + 5)
        fault()
        return await answers


@asynccontextmanager
async def linked(
    folder: Path, behaviour: Behaviour | None = None, size: int = 1
) -> AsyncIterator[Linked]:
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(fault_proxy(f"unix:{folder}/{rank}.sock"))
            for rank in range(size)
        ]
        addresses = tuple(proxy.target for proxy in proxies)
        behaviour = behaviour or Behaviour(step_seconds=0.002)
        running = await stack.enter_async_context(
            running_router(folder, behaviour, size, shard_addresses=addresses)
        )
        await stack.enter_async_context(supervised(running))
        golden = await ask(running.router.address)
        link = Linked(running, proxies, golden)
        yield link
        await expect_calm(running, golden)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """Silence is noticed in a moment; where the machine stands still, once too often."""
    monkeypatch.setattr(shard_group, "HEARTBEAT_LIMIT_SECONDS", 0.5)
    monkeypatch.setattr(shard_group, "CHECK_SECONDS", 0.1)
    return Behaviour(step_seconds=0.002, heartbeat_seconds=0.1)


async def cut_everywhere(folder: Path, step_bytes: int) -> None:
    async with linked(folder, size=2) as link:
        undisturbed = said(await ask_many(link.target, 3))
        for rank, proxy in enumerate(link.proxies):
            before = proxy.answered_byte_count
            assert said(await ask_many(link.target, 3)) == undisturbed
            byte_count = proxy.answered_byte_count - before
            for place in range(40, byte_count, step_bytes):
                deaths = link.failure_count
                proxy.cut_after_answers(place)
                assert said(await ask_many(link.target, 3)) == undisturbed, (rank, place)
                await link.until_dead(deaths + 1)


@pytest.mark.fault("N2")
def test_a_cut_link_to_any_rank_changes_no_token(tmp_path: Path) -> None:
    asyncio.run(cut_everywhere(tmp_path, step_bytes=6000))


@pytest.mark.long
@pytest.mark.fault("N2")
def test_a_cut_link_to_any_rank_at_many_bytes_changes_no_token(tmp_path: Path) -> None:
    asyncio.run(cut_everywhere(tmp_path, step_bytes=97))


SILENCES: list[tuple[Way, ...]] = [("to target", "to caller"), ("to target",), ("to caller",)]


async def silence(folder: Path, behaviour: Behaviour, ways: tuple[Way, ...]) -> float:
    """How long after the link went silent the group is given up; its tokens are right."""
    loop = asyncio.get_running_loop()
    async with linked(folder, behaviour) as link:
        undisturbed = said(await ask_many(link.target, 3))
        [proxy] = link.proxies
        at = 0.0

        def swallow() -> None:
            nonlocal at
            at = loop.time()
            proxy.silence(*ways)

        answers = asyncio.create_task(link.amid(swallow))
        await until(lambda: link.failure_count > 0)
        seconds = loop.time() - at
        # The old life's frames come now, if they come, and are of another epoch.
        proxy.heal()
        assert said(await answers) == undisturbed
        return seconds


@pytest.mark.fault("N3")
def test_a_silent_link_is_given_up_and_no_token_is_lost(tmp_path: Path, hurried: Behaviour) -> None:
    asyncio.run(silence(tmp_path, hurried, SILENCES[0]))


@pytest.mark.long
@pytest.mark.fault("N3", "N4")
@pytest.mark.parametrize("ways", SILENCES, ids=["both ways", "to the shard", "from the shard"])
def test_a_silent_link_is_found_within_six_seconds(
    tmp_path: Path, ways: tuple[Way, ...], record_property: Figure
) -> None:
    seconds = asyncio.run(silence(tmp_path, Behaviour(step_seconds=0.002), ways))
    line = f"T6 (N3, N4), link silent {' and '.join(ways)}: given up after {seconds:.2f} s"
    record_property("figure", line)
    # By heartbeats after 3.5 s, by pings after 8 at the latest, on a machine that does not stand.
    assert seconds < 18.0


@pytest.mark.fault("N5", "N7")
def test_a_slow_and_a_crumbling_link_only_take_longer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with linked(tmp_path) as link:
            undisturbed = said(await ask_many(link.target, 3))
            [proxy] = link.proxies
            proxy.latency_seconds, proxy.jitter_seconds = 0.02, 0.01
            assert said(await ask_many(link.target, 3)) == undisturbed
            proxy.latency_seconds = proxy.jitter_seconds = 0.0
            proxy.segment_bytes = 1
            assert said(await ask_many(link.target, 3)) == undisturbed
            assert link.failure_count == 0

    asyncio.run(scenario())


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


async def flap(folder: Path, count: int, seconds: float) -> None:
    async with linked(folder) as link:
        undisturbed = said(await ask_many(link.target, 3))
        [proxy] = link.proxies
        answers = asyncio.create_task(ask_many(link.target, 3))
        for _ in range(count):
            proxy.cut()
            proxy.refuses = not proxy.refuses
            await asyncio.sleep(seconds)
        proxy.refuses = False
        assert said(await answers) == undisturbed
        assert link.failure_count > 0
        assert link.running.router.lifecycle.phase is Phase.SERVING


@pytest.mark.fault("N9")
def test_a_link_that_comes_and_goes_pauses_requests(tmp_path: Path) -> None:
    asyncio.run(flap(tmp_path, count=8, seconds=0.1))


@pytest.mark.long
@pytest.mark.fault("N9")
def test_a_link_that_comes_and_goes_for_half_a_minute_pauses_requests(tmp_path: Path) -> None:
    asyncio.run(flap(tmp_path, count=60, seconds=0.5))


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
            await server.stop(None)
            await running.next_life()
            assert (await answer).choices == golden.choices

    asyncio.run(scenario())
