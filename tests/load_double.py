"""A public server for load tests: any number of streams at once, at scripted times.

Knows no model. Runs in its own process, so that it and a load tester have an interpreter each:
`python tests/load_double.py --first-token 0.01 --token 0.002 --tokens 16` prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc as services
from santacoder_client import _script


class Completion(services.CompletionServiceServicer):
    """Answers every request alike."""

    def __init__(self, times: argparse.Namespace) -> None:
        self._times = times

    async def Complete(self, request: pb.CompleteRequest, context: object) -> pb.CompleteResponse:
        return _script.whole([event async for event in self._events(request.completion)])

    async def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: object
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        async for event in self._events(request.completion):
            yield pb.StreamCompleteResponse(event=event)

    async def CompletionSession(
        self, request_iterator: AsyncIterator[pb.CompletionSessionRequest], context: object
    ) -> AsyncIterator[pb.CompletionSessionResponse]:
        """Runs every turn to its end."""
        async for message in request_iterator:
            if message.HasField("open"):
                yield pb.CompletionSessionResponse(opened=pb.SessionOpened())
            async for event in self._events(message.completion):
                yield pb.CompletionSessionResponse(turn=message.turn, event=event)

    async def _events(self, request: pb.CompletionRequest) -> AsyncIterator[pb.CompletionEvent]:
        answer = _script.Answer(("x" * self._times.per_message,) * self._times.messages)
        is_first = True
        for event in _script.events(request, answer):
            if event.HasField("delta"):
                wait = self._times.first_token if is_first else self._times.token
                is_first = False
                if wait:
                    await asyncio.sleep(wait)
            yield event


class Model(services.ModelServiceServicer):
    async def GetModel(self, request: pb.GetModelRequest, context: object) -> pb.GetModelResponse:
        return _script.model()


async def serve(times: argparse.Namespace) -> None:
    server = grpc.aio.server()
    services.add_CompletionServiceServicer_to_server(Completion(times), server)
    services.add_ModelServiceServicer_to_server(Model(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextmanager
def load_double(*flags: str) -> Iterator[str]:
    """The address of a double in a process of its own."""
    command = [sys.executable, str(Path(__file__)), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-token", type=float, default=0.0)
    parser.add_argument("--token", type=float, default=0.0)
    parser.add_argument("--messages", type=int, default=16)
    parser.add_argument("--per-message", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))
