"""A span for every call, for programs that use OpenTelemetry; for all others nothing.

Only a program that has imported OpenTelemetry itself is traced, so nothing is imported for it here,
and its provider decides what becomes of the spans. The server hears of the trace by W3C's headers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc

_TRACED = "/santacoder."
Metadata = tuple[tuple[str, str], ...]


class TracedChannel:
    """A channel whose calls of the service are spans; as much of one as stubs need."""

    def __init__(self, channel: Any, target: str) -> None:
        self._channel = channel
        self._target = target
        self.close = channel.close

    def unary_unary(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._traced(method, self._channel.unary_unary(method, *args, **keywords))

    def unary_stream(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._traced(method, self._channel.unary_stream(method, *args, **keywords))

    def stream_stream(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._traced(method, self._channel.stream_stream(method, *args, **keywords))

    def _traced(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        if not method.startswith(_TRACED):
            return call

        def traced(*request: Any, metadata: Metadata = (), **keywords: Any) -> Any:
            if "opentelemetry.trace" not in sys.modules:
                return call(*request, metadata=metadata or None, **keywords)
            span, headers = _begin(method, self._target)
            try:
                answer = call(*request, metadata=(*metadata, *headers), **keywords)
            except grpc.RpcError as error:
                _end(span, error.code())
                raise
            _end_with(span, answer)
            return answer

        return traced


def _begin(method: str, target: str) -> tuple[Any, Metadata]:
    """A span of this call, as a child of the program's own, and what tells the server of it."""
    from opentelemetry import propagate, trace

    service, _, name = method.removeprefix("/").rpartition("/")
    span = trace.get_tracer("santacoder_client").start_span(
        method.removeprefix("/"),
        kind=trace.SpanKind.CLIENT,
        attributes={
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": name,
            "server.address": target,
        },
    )
    headers: dict[str, str] = {}
    propagate.inject(headers, context=trace.set_span_in_context(span))
    return span, tuple(headers.items())


def _end_with(span: Any, answer: Any) -> None:
    """The span ends with the call; an answer that is no call has come already."""
    if isinstance(answer, grpc.aio.Call):
        answer.add_done_callback(lambda call: _end_soon(span, call))
    elif isinstance(answer, grpc.Call):
        call: Any = answer
        call.add_done_callback(lambda done: _end(span, done.code()))
    else:
        _end(span, grpc.StatusCode.OK)


def _end_soon(span: Any, call: Any) -> None:
    """The code of a call that is done is there, but has to be awaited all the same."""

    async def end() -> None:
        _end(span, await call.code())

    # Nobody need keep the task: it runs to its end at the loop's next turn.
    asyncio.get_running_loop().create_task(end())


def _end(span: Any, code: grpc.StatusCode) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()
