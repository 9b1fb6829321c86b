"""A router for tests: a real gRPC server in this process that gives scripted answers.

Knows no model: a character is a token, and its code point is its id.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from concurrent import futures
from typing import NoReturn, Self

import grpc
from grpc_status import rpc_status

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc as services
from santacoder_client import _script
from santacoder_client._channel import HEALTH_CHECK, SERVING
from santacoder_client._script import Answer, Failure

__all__ = ["Answer", "Failure", "FakeRouter"]


class FakeRouter:
    """Serves scripted answers on a free loopback port: one a request, the last one for ever.

    Example:
        >>> answer = Answer(("return ", "a + b"))
        >>> with FakeRouter(answer) as router, Client(router.target) as client:
        ...     assert client.complete("def add(a, b): ").text == "return a + b"
        ...     assert router.requests[0].text == "def add(a, b): "
    """

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[pb.CompletionRequest] = []
        """What arrived, in order."""
        self.openings: list[pb.SessionOpen] = []
        """Sessions opened, in order."""
        self._answers = answers or (Answer(),)
        self._cancelled_count = 0
        self._changed = threading.Condition()
        self._pool = futures.ThreadPoolExecutor(max_workers=16)
        self._server = grpc.server(self._pool)
        services.add_CompletionServiceServicer_to_server(_Completion(self), self._server)
        services.add_TokenizerServiceServicer_to_server(_Tokenizer(), self._server)
        services.add_ModelServiceServicer_to_server(_Model(), self._server)
        self._server.add_generic_rpc_handlers((_health_handler(),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        """Where it listens, HOST:PORT."""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops all calls and frees the port."""
        self._server.stop(grace=None).wait()
        self._pool.shutdown()

    def wait_for_cancel(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Whether `count` requests were cancelled or superseded within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._cancelled_count >= count, timeout)

    def take_answer(self, request: pb.CompletionRequest) -> Answer:
        """Notes a request and gives the answer to it."""
        with self._changed:
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(request)
        return answer

    def note_cancel(self) -> None:
        """Notes that a request was cancelled or superseded."""
        with self._changed:
            self._cancelled_count += 1
            self._changed.notify_all()


class _Presence:
    """Whether the client of one call is still there."""

    def __init__(self, router: FakeRouter, context: grpc.ServicerContext) -> None:
        self.answered = False
        self._router = router
        self._gone = threading.Event()
        if not context.add_callback(self._leave):
            self._leave()

    def gone_within(self, seconds: float) -> bool:
        """Waits; True as soon as the client is gone."""
        return self._gone.wait(seconds)

    def _leave(self) -> None:
        if not self.answered:
            self._router.note_cancel()
        self._gone.set()


class _Completion(services.CompletionServiceServicer):
    def __init__(self, router: FakeRouter) -> None:
        self._router = router

    def Complete(
        self, request: pb.CompleteRequest, context: grpc.ServicerContext
    ) -> pb.CompleteResponse:
        return _script.whole(list(self._events(request.completion, context)))

    def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.StreamCompleteResponse]:
        for event in self._events(request.completion, context):
            yield pb.StreamCompleteResponse(event=event)

    def CompletionSession(
        self, request_iterator: Iterator[pb.CompletionSessionRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.CompletionSessionResponse]:
        self._router.openings.append(next(request_iterator).open)
        yield pb.CompletionSessionResponse(opened=pb.SessionOpened())
        inbox: _Inbox = queue.SimpleQueue()
        threading.Thread(target=_feed, args=(request_iterator, inbox), daemon=True).start()
        message = inbox.get()
        while message is not None:
            running = message.HasField("completion")
            message = (yield from self._turn(message, inbox)) if running else inbox.get()

    def _events(
        self, request: pb.CompletionRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompletionEvent]:
        answer = self._router.take_answer(request)
        presence = _Presence(self._router, context)
        for event in _script.events(request, answer):
            if event.HasField("delta") and presence.gone_within(answer.seconds_per_piece):
                return
            presence.answered = event.HasField("finished")
            yield event
        if answer.failure is not None:
            presence.answered = True
            _abort(context, answer.failure)

    def _turn(
        self, message: pb.CompletionSessionRequest, inbox: _Inbox
    ) -> Generator[pb.CompletionSessionResponse, None, pb.CompletionSessionRequest | None]:
        """Plays one turn; returns the message that came after it, or in the middle of it."""
        answer = self._router.take_answer(message.completion)
        answered = False
        try:
            for event in _script.events(message.completion, answer):
                if event.HasField("delta"):
                    with contextlib.suppress(queue.Empty):
                        newer = inbox.get(timeout=answer.seconds_per_piece)
                        yield pb.CompletionSessionResponse(
                            turn=message.turn, event=_script.CANCELLED
                        )
                        return newer
                answered = event.HasField("finished")
                yield pb.CompletionSessionResponse(turn=message.turn, event=event)
            if answer.failure is not None:
                answered = True
                error = _script.status(answer.failure)
                yield pb.CompletionSessionResponse(turn=message.turn, error=error)
        finally:  # also when the client is gone and gRPC drops this generator
            if not answered:
                self._router.note_cancel()
        return inbox.get()


class _Tokenizer(services.TokenizerServiceServicer):
    def Tokenize(
        self, request: pb.TokenizeRequest, context: grpc.ServicerContext
    ) -> pb.TokenizeResponse:
        return pb.TokenizeResponse(token_ids=_script.token_ids(request.text))

    def Detokenize(
        self, request: pb.DetokenizeRequest, context: grpc.ServicerContext
    ) -> pb.DetokenizeResponse:
        return pb.DetokenizeResponse(text="".join(map(chr, request.token_ids)))


class _Model(services.ModelServiceServicer):
    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        return _script.model()


_Inbox = queue.SimpleQueue[pb.CompletionSessionRequest | None]


def _feed(messages: Iterator[pb.CompletionSessionRequest], inbox: _Inbox) -> None:
    """Moves a session's messages into a queue, so that a turn can be played meanwhile."""
    with contextlib.suppress(grpc.RpcError):
        for message in messages:
            inbox.put(message)
    inbox.put(None)


def _health_handler() -> grpc.GenericRpcHandler:
    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        return SERVING

    service, method = HEALTH_CHECK.strip("/").split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _abort(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(_script.status(failure)))
