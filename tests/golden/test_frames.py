"""Another version on the other side: old frames say what they said, new fields are passed over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from golden.record_frames import in_words
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from router.mock_shard import Behaviour
from router.running_router import request, running_router

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.shard.v1 import shard_pb2
from santacoder_client import Client, _script
from santacoder_client.testing import Answer

RELEASES = sorted(Path(__file__).parent.glob("frames-*.json"))
FRAMES = [frame for path in RELEASES for frame in json.loads(path.read_text())]
# Field 4,000 with a string, as a later version may send one.
UNKNOWN = b"\x82\xfa\x01\x05later"


def kind_of(name: str) -> type[Message]:
    found = descriptor_pool.Default().FindMessageTypeByName(name)
    kind: type[Message] = GetMessageClass(found)
    return kind


@pytest.mark.fault("X6", "X7")
def test_frames_of_every_release_say_what_they_said() -> None:
    assert len(FRAMES) > 50
    for frame in FRAMES:
        kind, data = kind_of(frame["message"]), bytes.fromhex(frame["hex"])
        assert in_words(kind.FromString(data)) == frame["says"], frame["message"]
        # A field of a later version neither disturbs the others nor is lost on the way.
        later = kind.FromString(data + UNKNOWN)
        assert in_words(later) == frame["says"], frame["message"]


def with_unknown_fields(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


@pytest.mark.fault("X6")
def test_a_shard_of_a_later_minor_version_is_served_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(tamper=lambda frame: [with_unknown_fields(frame)])
        async with running_router(tmp_path) as running:
            golden = await running.complete()
        (tmp_path / "later").mkdir()
        async with running_router(tmp_path / "later", behaviour) as running:
            assert (await running.complete()).choices == golden.choices

    asyncio.run(scenario())


@pytest.mark.fault("X7")
def test_a_caller_of_a_later_version_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            golden = await running.complete()
            call: Any = running.channel.unary_unary(
                "/santacoder.inference.v1.CompletionService/Complete"
            )
            completion = request().SerializeToString() + UNKNOWN
            asked = pb.CompleteRequest(completion=pb.CompletionRequest.FromString(completion))
            answer = pb.CompleteResponse.FromString(await call(asked.SerializeToString() + UNKNOWN))
            assert answer.choices == golden.choices

    asyncio.run(scenario())


def stream_of_a_later_version(data: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    """The answer "ab", with fields and an event that this version does not know."""
    asked = pb.StreamCompleteRequest.FromString(data).completion
    yield pb.StreamCompleteResponse(
        event=pb.CompletionEvent.FromString(UNKNOWN)
    ).SerializeToString()
    for event in _script.events(asked, Answer(("a", "b"))):
        later = pb.CompletionEvent.FromString(event.SerializeToString() + UNKNOWN)
        yield pb.StreamCompleteResponse(event=later).SerializeToString() + UNKNOWN


@pytest.mark.fault("X7")
def test_the_sdk_takes_the_answers_of_a_later_version() -> None:
    method: Any = grpc.unary_stream_rpc_method_handler(stream_of_a_later_version)
    service = "santacoder.inference.v1.CompletionService"
    handler = grpc.method_handlers_generic_handler(service, {"StreamComplete": method})
    with futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handler])
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        with Client(target) as client:
            assert client.stream("x").result().text == "ab"
        server.stop(None).wait()


def test_every_message_there_is_has_been_recorded_or_is_newer() -> None:
    recorded = {frame["message"] for frame in FRAMES}
    for contract in (pb.DESCRIPTOR, shard_pb2.DESCRIPTOR):
        assert {kind.full_name for kind in contract.message_types_by_name.values()} & recorded
