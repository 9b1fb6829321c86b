"""All ranks as one: the same bytes to each, and the first failure of any ends the group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from router.mock_shard import Behaviour, MockGroup, ids_of
from router.running_router import until

from santacoder_router import group_watch, shard_group
from santacoder_router.core import plan as core
from santacoder_router.handshake import GroupMixed, GroupRefused
from santacoder_router.shard_group import ShardGroup, connect

LEASE_SECONDS = 0.0025
PROMPT = ids_of("abc")


@contextlib.asynccontextmanager
async def connected(
    folder: Path,
    behaviour: Behaviour,
    size: int = 2,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[ShardGroup, MockGroup]]:
    mock = MockGroup(folder, behaviour, size)
    await mock.start()
    group = await connect(mock.addresses, clock)
    group.open(lambda: None)
    try:
        yield group, mock
    finally:
        await group.close()
        await mock.stop()


def first_plan(num_steps: int = 1) -> core.StepPlan:
    """Admits one sequence and runs its prompt."""
    admit = core.Admit(
        1, 1, 0, PROMPT, len(PROMPT), 0, core.SamplingParameters(), 0, 9, False, (), (), None
    )
    row = core.Row(1, 0, len(PROMPT), True, 16)
    return core.StepPlan(1, (), (admit,), (core.BlockGrant(0, 0, (5,)),), (), (row,), num_steps)


def next_plan(number: int, num_steps: int = 1) -> core.StepPlan:
    """Runs one more token of it."""
    return core.StepPlan(number, (), (), (), (), (core.Row(1, 0, 1, True, 16),), num_steps)


def test_every_rank_gets_the_same_plan_and_rank_0_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, Behaviour()) as (group, mock):
            group.send(first_plan(), LEASE_SECONDS)
            await until(lambda: bool(group._arrived))
            [arrived] = group.take_results()
            oracle = mock.behaviour.oracle
            assert arrived.result.rows[0].token_ids == (oracle.next_id(list(PROMPT), False),)
            assert group.take_results() == []
            await until(lambda: len(mock.shards[1].plans) == 1)
            assert mock.shards[0].plans == mock.shards[1].plans
            assert group.description.epoch == 1
            assert group.description.tokenizer_json

    asyncio.run(scenario())


def test_a_lease_answers_step_by_step_and_an_interrupt_cuts_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05)
        async with connected(tmp_path, behaviour, size=1) as (group, mock):
            group.send(first_plan(), LEASE_SECONDS)
            group.send(next_plan(2, num_steps=4), LEASE_SECONDS)
            group.interrupt_lease(is_somebody_queued=True)
            assert mock.behaviour.interrupted_plan_numbers == []
            await until(lambda: mock.shards[0].step_count == 1)
            behaviour.hangs = True
            await until(lambda: 1 not in group._in_flight)
            group.interrupt_lease(is_somebody_queued=False)
            group.interrupt_lease(is_somebody_queued=True)
            group.interrupt_lease(is_somebody_queued=True)
            await until(lambda: bool(behaviour.interrupted_plan_numbers))
            behaviour.hangs = False
            await until(lambda: 2 not in group._in_flight)
            assert behaviour.interrupted_plan_numbers == [2]
            results = [arrived.result for arrived in group.take_results()]
            assert results[0].plan_number == 1
            assert results[-1].final and mock.shards[0].step_count < 5

    asyncio.run(scenario())


def test_a_lease_that_is_nearly_over_is_let_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05, reported_step_seconds=1e-5)
        async with connected(tmp_path, behaviour, size=1) as (group, mock):
            for plan in (first_plan(), next_plan(2)):
                group.send(plan, LEASE_SECONDS)
            await until(lambda: not group._in_flight)
            group.send(next_plan(3, num_steps=4), LEASE_SECONDS)
            group.interrupt_lease(is_somebody_queued=True)
            await until(lambda: not group._in_flight)
            assert mock.behaviour.interrupted_plan_numbers == []
            assert mock.shards[0].step_count == 6

    asyncio.run(scenario())


async def heard(group: ShardGroup) -> None:
    """Waits for a frame of every rank: its stream is open."""
    before = list(group._watch.heard_at)
    await until(lambda: all(a > b for a, b in zip(group._watch.heard_at, before, strict=True)))


async def failure(group: ShardGroup) -> shard_group.GroupFailure:
    await until(lambda: group.failure is not None)
    assert group.failure is not None
    return group.failure


@pytest.mark.fault("S11")
def test_a_rank_that_received_something_else_ends_the_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(lies_about_digest_rank=1)
        async with connected(tmp_path, behaviour) as (group, _):
            group.send(first_plan(), LEASE_SECONDS)
            failed = await failure(group)
            assert "differs from rank" in failed.message
            assert group.take_results() == []

    asyncio.run(scenario())


@pytest.mark.fault("S1")
def test_a_rank_that_dies_ends_the_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, Behaviour()) as (group, mock):
            await heard(group)
            await mock.shards[1].stop()
            failed = await failure(group)
            assert failed.rank == 1 and "stream ended" in failed.message

    asyncio.run(scenario())


@pytest.mark.fault("S2", "S14")
def test_a_rank_that_falls_silent_ends_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_watch, "HEARTBEAT_LIMIT_SECONDS", 0.4)
    monkeypatch.setattr(group_watch, "CHECK_SECONDS", 0.05)
    now = [100.0]

    async def scenario() -> None:
        behaviour = Behaviour(heartbeat_seconds=0.01)
        async with connected(tmp_path, behaviour, clock=lambda: now[0]) as (group, _):
            for _ in range(50):
                # No step is as long as a look of the watchdog: that would be a router that stood.
                now[0] += 0.02
                await until(lambda: group._watch.heard_at == [now[0]] * 2)
            assert group.failure is None
            behaviour.is_silent = True
            while group.failure is None:
                now[0] += 0.02
                await asyncio.sleep(0.02)
            assert "no heartbeat" in group.failure.message

    asyncio.run(scenario())


@pytest.mark.fault("R5")
def test_a_machine_that_stood_still_is_not_held_against_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_watch, "CHECK_SECONDS", 0.02)
    now = [100.0]

    async def scenario() -> None:
        behaviour = Behaviour(hangs=True)
        async with connected(tmp_path, behaviour, clock=lambda: now[0]) as (group, mock):
            group.send(first_plan(), LEASE_SECONDS)
            await until(lambda: bool(mock.shards[0].plans))
            behaviour.is_silent = True
            now[0] += 600.0
            # Half a second of silence after it, in which the watchdog looks again and again.
            await asyncio.sleep(0.5)
            assert group.failure is None

    asyncio.run(scenario())


@pytest.mark.fault("S10")
def test_a_step_that_never_ends_ends_the_group_although_hearts_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_watch, "DEADLINE_MARGIN_SECONDS", 0.1)
    monkeypatch.setattr(group_watch, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr("santacoder_router.deadline.FIRST_USE_SECONDS", 0.1)

    async def scenario() -> None:
        behaviour = Behaviour(heartbeat_seconds=0.05, hangs=True)
        async with connected(tmp_path, behaviour) as (group, _):
            await asyncio.sleep(0.3)
            # Idle is no hang, however long it lasts.
            assert group.failure is None and group.stalled_seconds() == 0
            group.send(first_plan(), LEASE_SECONDS)
            await asyncio.sleep(0.05)
            assert group.stalled_seconds() > 0.02
            assert "plan 1: no step for" in (await failure(group)).message

    asyncio.run(scenario())


@pytest.mark.fault("S4")
def test_a_sequence_at_fault_does_not_end_the_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(fails_sequence=1)
        async with connected(tmp_path, behaviour, size=1) as (group, _):
            group.send(first_plan(), LEASE_SECONDS)
            await until(lambda: bool(group._failed_sequences))
            assert group.take_failed_sequences() == {1: "it alone"}
            assert group.failure is None

    asyncio.run(scenario())


def test_an_orderly_end_half_closes_every_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, Behaviour()) as (group, mock):
            await heard(group)
            await group.close(graceful=True)
            assert [shard.stream_ended_cleanly for shard in mock.shards] == [True, True]

    asyncio.run(scenario())


@pytest.mark.fault("S24")
def test_a_group_that_is_not_there_or_does_not_fit_is_not_connected(tmp_path: Path) -> None:
    async def scenario() -> None:
        mock = MockGroup(tmp_path, Behaviour(), size=2)
        with pytest.raises(grpc.aio.AioRpcError):
            await connect(mock.addresses, time.monotonic)
        await mock.start()
        with pytest.raises(GroupRefused, match="group of 2"):
            await connect(mock.addresses[:1], time.monotonic)
        with pytest.raises(GroupRefused, match="answers as rank 1"):
            await connect(mock.addresses[::-1], time.monotonic)
        await mock.shards[1].stop()
        stranger = MockGroup(tmp_path, Behaviour(fingerprint="other"), size=2).shards[1]
        await stranger.start()
        with pytest.raises(GroupMixed, match="checkpoint_fingerprint"):
            await connect(mock.addresses, time.monotonic)
        await stranger.stop()
        await mock.stop()

    asyncio.run(scenario())
