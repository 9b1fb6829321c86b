"""OpenTelemetry: a span for every RPC of the service; within it a request's queue, prefill, decode.

Off unless an endpoint is given; the library is the extra [otel] and is imported only then. Spans
are made when a request has ended, from the times that it keeps anyway.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from santacoder_router.request_trace import Timeline, current_trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

SERVICE_NAME = "santacoder-router"
TRACED = "/santacoder."
NANOSECONDS = 1_000_000_000

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Epoch = Callable[[], int]


class TracingAbsent(Exception):
    """The library is not installed; the message is one line."""


class Tracing:
    """The spans of one router; `interceptors` go first in its server's. `epoch` is the group's."""

    def __init__(self, endpoint: str | None, clock: Callable[[], float], epoch: Epoch) -> None:
        """Without an endpoint nothing is traced. Raises TracingAbsent."""
        self.interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
        self._provider: TracerProvider | None = None
        if endpoint is not None:
            self._provider = _make_provider(endpoint)
            tracer = self._provider.get_tracer(SERVICE_NAME)
            self.interceptors = (TracingInterceptor(tracer, clock, epoch),)

    def close(self) -> None:
        """Sends what has not been sent yet, for some seconds at most."""
        if self._provider is not None:
            self._provider.shutdown()


def _make_provider(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = make_exporter(endpoint)
    except ImportError:
        raise TracingAbsent(
            "--otlp-endpoint: needs OpenTelemetry (pip install 'santacoder-serving[otel]')"
        ) from None
    facts = {"service.name": SERVICE_NAME, "service.version": version("santacoder-serving")}
    provider = TracerProvider(resource=Resource.create(facts))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def make_exporter(endpoint: str) -> SpanExporter:
    """To a collector that speaks OTLP over gRPC at http://HOST:PORT or https://HOST:PORT."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the service's methods; health and reflection are nobody's request."""

    def __init__(self, tracer: Tracer, clock: Callable[[], float], epoch: Epoch) -> None:
        self._tracer = tracer
        self._clock = clock
        self._epoch = epoch

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, with a span around it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(TRACED):
            return handler
        headers = handler_call_details.invocation_metadata

        def around(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Any:
            async def traced(request: Any, context: Any) -> Any:
                with self._span(method, headers, context):
                    return await behaviour(request, context)

            return traced

        return _wrapped(handler, around)

    @contextmanager
    def _span(self, method: str, headers: Any, context: Any) -> Iterator[None]:
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        parent = propagate.extract({key: value for key, value in headers if isinstance(value, str)})
        service, _, name = method.removeprefix("/").rpartition("/")
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        span = self._tracer.start_span(
            method.removeprefix("/"), parent, SpanKind.SERVER, attributes=facts
        )
        token = current_trace.set(RpcTrace(self._tracer, span, self._clock, self._epoch))
        try:
            yield
        finally:
            current_trace.reset(token)
            _end(span, context.code() or 0)


class RpcTrace:
    """Puts the requests of one RPC under its span."""

    def __init__(
        self, tracer: Tracer, span: Span, clock: Callable[[], float], epoch: Epoch
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._epoch = epoch
        # Spans are in the time of day; the difference of the two clocks is taken at one moment.
        self._offset_seconds = time.time() - clock()

    def add(self, timeline: Timeline) -> None:
        """Three spans, as far as the request came, and what the shards did for it."""
        began, first = timeline.started_at, timeline.first_token_at
        ended = timeline.ended_at
        named = {"santacoder.request_id": timeline.request_id}
        self._add("queue", timeline.arrival, ended if began is None else began, named)
        if began is None:
            return
        # Tokens are steps: each token after the first is a step of the group's ranks.
        self._add(
            "prefill",
            began,
            ended if first is None else first,
            {
                **named,
                "santacoder.prompt_token_count": timeline.prompt_token_count,
                "santacoder.cached_token_count": timeline.cached_token_count,
                "santacoder.group_epoch": self._epoch(),
            },
        )
        if first is not None:
            self._add(
                "decode",
                first,
                ended,
                {
                    **named,
                    "santacoder.completion_token_count": timeline.completion_token_count,
                    "santacoder.group_epoch": self._epoch(),
                },
            )

    def _add(self, name: str, start: float, end: float, facts: dict[str, Any]) -> None:
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(
            name,
            set_span_in_context(self._span),
            start_time=self._nanoseconds(start),
            attributes=facts,
        )
        span.end(self._nanoseconds(end))

    def _nanoseconds(self, at: float) -> int:
        return round((at + self._offset_seconds) * NANOSECONDS)


def _wrapped(handler: Handler, around: Callable[[Any], Any]) -> Handler:
    """The same kind of handler around its behaviour."""
    codecs = (handler.request_deserializer, handler.response_serializer)
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(around(handler.stream_stream), *codecs)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(around(handler.unary_stream), *codecs)
    return grpc.unary_unary_rpc_method_handler(around(handler.unary_unary), *codecs)


def _end(span: Span, code: Any) -> None:
    from opentelemetry.trace import Status, StatusCode

    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code)
    span.set_attribute("rpc.grpc.status_code", number)
    if number:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
