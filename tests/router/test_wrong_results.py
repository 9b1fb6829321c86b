"""A group that answers wrongly: nothing wrong reaches a client, and the others never notice."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from router.mock_shard import Behaviour
from router.running_router import Running, failure_of, reason_of, running_router, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.shard.v1 import shard_pb2
from santacoder_router import shard_group

LONG = pb.Stopping(max_new_tokens=40, ignore_eos=True)
Result = shard_pb2.StepResult
Spoil = Callable[[Result], list[Result]]


def prompt(number: int) -> str:
    return f"prompt {number}"


async def answers(running: Running, count: int) -> list[list[int]]:
    """The ids of so many requests at once."""
    asked = (running.complete(text=prompt(number), stopping=LONG) for number in range(count))
    return [list(done.choices[0].token_ids) for done in await asyncio.gather(*asked)]


def spoil_at(step: int, spoil: Spoil) -> Spoil:
    """Spoils the result of the n-th step from now on, once; one that samples."""
    left = [step]

    def hook(result: Result) -> list[Result]:
        if result.token_ids:
            left[0] -= 1
        return spoil(result) if left[0] == 0 and result.token_ids else [result]

    return hook


def copy_of(result: Result) -> Result:
    copied = Result()
    copied.CopyFrom(result)
    return copied


def twice(result: Result) -> list[Result]:
    return [result, copy_of(result)]


def of_an_earlier_plan(result: Result) -> list[Result]:
    stale = copy_of(result)
    stale.plan_number = max(1, result.plan_number - 5)
    return [stale, result]


def of_another_step(result: Result) -> list[Result]:
    other = copy_of(result)
    other.first_step += 7
    other.final = False
    return [other, result]


def with_an_unknown_id(result: Result) -> list[Result]:
    ids = [2**31] * (len(result.token_ids) // 4)
    result.token_ids = struct.pack(f"<{len(ids)}I", *ids)
    return [result]


def with_no_finite_row(result: Result) -> list[Result]:
    count = len(result.row_states)
    result.row_token_counts = bytes(4 * count)
    result.token_ids = b""
    result.row_states = bytes([shard_pb2.ROW_STATE_NON_FINITE]) * count
    return [result]


async def replace_groups(running: Running) -> None:
    """Where a group has failed another takes its place, as long as this runs."""
    name = "santacoder_router_group_failures_total"
    value = running.router.metrics.registry.get_sample_value
    while True:
        await until(lambda: (value(name) or 0) >= running.group.epoch)
        await running.next_life()


async def spoiled_answers(tmp_path: Path, spoil: Spoil, count: int = 3) -> list[list[int]]:
    """What clients get of a group that spoils a result; held to be what they got before."""
    async with running_router(tmp_path, Behaviour(steps_per_lease=1)) as running:
        whole = await answers(running, count)
        running.behaviour.spoil = spoil_at(12, spoil)
        supervisor = asyncio.create_task(replace_groups(running))
        try:
            spoiled = await answers(running, count)
        finally:
            supervisor.cancel()
        assert spoiled == whole
        assert running.group.epoch > 1, "the result was not spoiled, or nobody minded"
        return spoiled


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(twice, marks=pytest.mark.fault("S15")),
        pytest.param(of_an_earlier_plan, marks=pytest.mark.fault("S15")),
        pytest.param(of_another_step, marks=pytest.mark.fault("S15")),
        pytest.param(with_an_unknown_id, marks=pytest.mark.fault("S16")),
        pytest.param(with_no_finite_row, marks=pytest.mark.fault("S8")),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_wrong_result_changes_no_answer(tmp_path: Path, spoil: Spoil) -> None:
    asyncio.run(spoiled_answers(tmp_path, spoil))


@pytest.mark.fault("S8")
def test_control_without_the_look_at_all_rows_requests_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_group, "_has_lost_its_numbers", lambda _: False)
    with pytest.raises(grpc.aio.AioRpcError, match="internal error"):
        asyncio.run(spoiled_answers(tmp_path, with_no_finite_row))


@pytest.mark.fault("S7")
def test_a_row_that_is_not_finite_ends_its_own_request_only(tmp_path: Path) -> None:
    def first_row(result: Result) -> list[Result]:
        counts = list(struct.unpack(f"<{len(result.row_states)}I", result.row_token_counts))
        result.token_ids = result.token_ids[4 * counts[0] :]
        result.row_token_counts = struct.pack(f"<{len(counts)}I", 0, *counts[1:])
        states = bytes([shard_pb2.ROW_STATE_NON_FINITE]) + result.row_states[1:]
        result.row_states = states
        return [result]

    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(steps_per_lease=1)) as running:
            whole = await answers(running, 3)
            running.behaviour.spoil = spoil_at(12, first_row)
            asked = [running.complete(text=prompt(n), stopping=LONG) for n in range(3)]
            done = await asyncio.gather(*asked, return_exceptions=True)
            failed = [error for error in done if isinstance(error, grpc.aio.AioRpcError)]
            assert [reason_of(error) for error in failed] == ["NUMERIC_FAULT"]
            assert failed[0].code() is grpc.StatusCode.INTERNAL
            for answer, ids in zip(done, whole, strict=True):
                if isinstance(answer, pb.CompleteResponse):
                    assert list(answer.choices[0].token_ids) == ids
            value = running.router.metrics.registry.get_sample_value
            name = "santacoder_router_sequence_faults_total"
            assert value(name, {"kind": "non_finite"}) == 1
            assert running.group.epoch == 1

    asyncio.run(scenario())


@pytest.mark.fault("S18")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_request_that_kills_the_group_fails_alone(tmp_path: Path, count: int) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(slot_count=8)) as running:
            whole = await answers(running, count)
            running.behaviour.poison_id = 255
            supervisor = asyncio.create_task(replace_groups(running))
            poison = pb.TokenIds(ids=[1, 2, 3, 255])
            guilty = asyncio.create_task(failure_of(running.complete(token_ids=poison)))
            assert await answers(running, count) == whole
            error = await guilty
            supervisor.cancel()
            assert error.code() is grpc.StatusCode.INTERNAL
            assert reason_of(error) == "POISON_REQUEST"
            # A death to notice, one to suspect, and one for each halving of those that ran.
            deaths = running.group.epoch - 1
            assert deaths <= 2 + count.bit_length()
            # Whoever sends it again is told at once, and nobody else suffers for it.
            for _ in range(3):
                again = await failure_of(running.complete(token_ids=poison))
                assert reason_of(again) == "POISON_REQUEST"
            assert running.group.epoch - 1 == deaths

    asyncio.run(scenario())
