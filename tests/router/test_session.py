"""An editor's session: the newest turn runs, and what it replaces ends at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from router.mock_shard import Behaviour
from router.running_router import (
    Running,
    failure_of,
    ids_in,
    reason_of,
    request,
    running_router,
    text_of,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb

LONG = pb.Stopping(max_new_tokens=200, ignore_eos=True)
# Ten seconds for a LONG answer: whatever is done in the middle of one has all that time.
SLOW_SECONDS = 0.05
OPEN = pb.CompletionSessionRequest(open=pb.SessionOpen())


def turn(number: int, **fields: Any) -> pb.CompletionSessionRequest:
    return pb.CompletionSessionRequest(turn=number, completion=request(**fields))


async def opened(running: Running, **fields: Any) -> Any:
    """A session that is open."""
    call: Any = running.completion.CompletionSession()
    await call.write(pb.CompletionSessionRequest(open=pb.SessionOpen(**fields)))
    response = await call.read()
    assert response.HasField("opened") and response.turn == 0
    return call


async def events_of(call: Any, number: int) -> list[pb.CompletionEvent]:
    """Events of a turn up to its last; other turns' messages are passed over."""
    events: list[pb.CompletionEvent] = []
    while not events or not events[-1].HasField("finished"):
        response = await asyncio.wait_for(call.read(), 60)
        if response.turn == number:
            events.append(response.event)
    return events


def test_a_turn_says_what_a_completion_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            answer = await running.complete(text="a")
            call = await opened(running)
            await call.write(turn(1, text="a"))
            events = await events_of(call, 1)
            assert events[0].HasField("accepted")
            assert text_of(events) == answer.choices[0].text
            await call.write(turn(7, text="b"))
            assert ids_in(await events_of(call, 7))
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(scenario())


@pytest.mark.fault("C2")
@pytest.mark.parametrize("replaces", [True, False])
def test_a_turn_that_is_replaced_or_cancelled_ends_at_once(tmp_path: Path, replaces: bool) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            call = await opened(running)
            await call.write(turn(1, stopping=LONG))
            while not (await call.read()).event.HasField("delta"):
                pass
            if replaces:
                await call.write(turn(2, text="next", stopping=pb.Stopping(max_new_tokens=3)))
            else:
                await call.write(pb.CompletionSessionRequest(turn=2, cancel=pb.TurnCancel()))
            events = await events_of(call, 1)
            [end] = [e.choice_finished for e in events if e.HasField("choice_finished")]
            assert end.reason == pb.FINISH_REASON_CANCELLED
            if replaces:
                assert len(ids_in(await events_of(call, 2))) == 3
            await until(lambda: not running.is_sequence_on_shard)
            assert running.group.shards[0].step_count < 190
            assert running.step_loop.scheduler.stats.held_block_count == 0
            await call.done_writing()

    asyncio.run(scenario())


def test_a_turn_replaced_in_the_queue_never_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        async with running_router(tmp_path, behaviour) as running:
            other = asyncio.create_task(running.complete(stopping=LONG))
            await until(lambda: running.group.shards[0].step_count > 1)
            call = await opened(running)
            await call.write(turn(1, text="first"))
            await until(lambda: running.step_loop.scheduler.queued_request_count == 1)
            await call.write(turn(2, text="second", stopping=pb.Stopping(max_new_tokens=3)))
            events = await events_of(call, 1)
            assert events[-2].choice_finished.reason == pb.FINISH_REASON_CANCELLED
            assert not ids_in(events)
            behaviour.step_seconds = 0.0
            assert len(ids_in(await events_of(call, 2))) == 3
            await call.done_writing()
            await other
            admitted = [a for plan in running.group.shards[0].plans for a in plan.admits]
            assert len(admitted) == 2

    asyncio.run(scenario())


def test_a_turn_that_is_wrong_is_told_so_and_the_session_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            call = await opened(running)
            await call.write(turn(1, sampling=pb.Sampling(top_k=-1)))
            response = await call.read()
            assert response.turn == 1
            assert response.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            info = error_details_pb2.ErrorInfo()
            assert response.error.details[0].Unpack(info)
            assert (info.reason, info.domain) == ("TOP_K_RANGE", "santacoder")
            await call.write(turn(2))
            assert ids_in(await events_of(call, 2))
            await call.done_writing()

    asyncio.run(scenario())


def test_turns_have_the_sessions_priority_and_salt_unless_they_say_otherwise(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            call = await opened(running, priority=pb.PRIORITY_HIGH, cache_salt=b"mine")
            await call.write(turn(1, text="z" * 40))
            first = await events_of(call, 1)
            assert first[0].accepted.priority == pb.PRIORITY_HIGH
            await call.write(turn(2, text="z" * 40, priority=pb.PRIORITY_LOW))
            second = await events_of(call, 2)
            assert second[0].accepted.priority == pb.PRIORITY_LOW
            assert second[0].accepted.cached_token_count == 32
            elsewhere = await running.complete(text="z" * 40)
            assert elsewhere.usage.cached_token_count == 0
            await call.done_writing()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "messages",
    [
        [turn(1)],
        [pb.CompletionSessionRequest()],
        [OPEN, OPEN],
        [OPEN, turn(0)],
        [OPEN, turn(3), turn(3)],
        [OPEN, turn(3), turn(2)],
        [OPEN, pb.CompletionSessionRequest(turn=1)],
    ],
)
def test_messages_out_of_order_end_the_session(
    tmp_path: Path, messages: list[pb.CompletionSessionRequest]
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            call = running.completion.CompletionSession(iter(messages))

            async def read_all() -> None:
                async for _ in call:
                    pass

            error = await failure_of(read_all())
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason_of(error) == "PROTOCOL_ORDER"
            await until(lambda: running.router._intake.running_count == 0)

    asyncio.run(scenario())


def test_a_session_without_a_message_ends_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            call = running.completion.CompletionSession(iter(()))
            assert [response async for response in call] == []
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(scenario())


def test_malformed_bytes_end_the_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            method = "/santacoder.inference.v1.CompletionService/CompletionSession"
            raw: Any = running.channel.stream_stream(method)
            call = raw(iter([OPEN.SerializeToString(), b"\xff\xff"]))

            async def read_all() -> None:
                async for _ in call:
                    pass

            assert reason_of(await failure_of(read_all())) == "MALFORMED_REQUEST"

    asyncio.run(scenario())


@pytest.mark.fault("C1")
def test_an_editor_that_disappears_ends_its_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            call = await opened(running)
            await call.write(turn(1, stopping=LONG))
            await until(lambda: running.group.shards[0].step_count > 2)
            call.cancel()
            await until(lambda: running.router._intake.running_count == 0)
            assert running.step_loop.scheduler.stats.held_block_count == 0
            assert running.group.shards[0].step_count < 190

    asyncio.run(scenario())


def test_a_connection_has_so_many_sessions_and_gets_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            calls = [await opened(running) for _ in range(64)]
            error = await failure_of(opened(running))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(error) == "SESSION_LIMIT"
            await calls[0].done_writing()
            assert await calls[0].read() is grpc.aio.EOF
            calls[0] = await opened(running)
            for call in calls:
                await call.done_writing()

    asyncio.run(scenario())
