"""Every line of the log about a request has its id, as its caller knows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from router.mock_shard import Behaviour
from router.running_router import Running, detail, failure_of, request, running_router

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.generation import Generation


def errors(running: Running) -> list[tuple[str, object]]:
    return [
        (line["event"], line.get("request_id")) for line in running.log if line["level"] == "error"
    ]


def test_a_sequence_that_the_shards_give_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(fails_sequence=1)) as running:
            error = await failure_of(running.complete(request_id="mine"))
            assert error.code() is grpc.StatusCode.INTERNAL
            on_shard, failed = errors(running)
            assert on_shard[0] == "sequence failed on the shard"
            assert failed == ("a sequence ended with FAILED", "mine")

    asyncio.run(scenario())


def test_an_exception_in_a_call_and_in_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            monkeypatch.setattr(Generation, "_put_accepted", broken)
            error = await failure_of(running.complete(request_id="mine"))
            assert detail(error, error_details_pb2.RequestInfo).request_id == "mine"
            opening = pb.CompletionSessionRequest(open=pb.SessionOpen())
            turn = pb.CompletionSessionRequest(turn=1, completion=request())
            calls = running.completion.CompletionSession(iter([opening, turn]))
            statuses = [answer.error async for answer in calls if answer.HasField("error")]
            named = error_details_pb2.RequestInfo()
            assert any(packed.Unpack(named) for packed in statuses[0].details)
            assert errors(running) == [
                ("Complete failed", "mine"),
                ("a session's turn failed", named.request_id),
            ]

    asyncio.run(scenario())
