"""One trace from the caller's own span to the shards' work, where it is asked for; else nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from router.mock_shard import Behaviour, MockGroup
from router.running_router import Running, running_router, until
from router.test_main import ended, start

from santacoder_client import AsyncClient, InvalidRequest
from santacoder_router import tracing
from santacoder_router.config import parse_arguments

SERVICE = "santacoder.inference.v1.CompletionService"
PARTS = ["decode", "prefill", "queue"]


class Spans:
    """Those of the program and its SDK, and those of the router."""

    def __init__(self) -> None:
        self.callers = InMemorySpanExporter()
        self.routers = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.callers))

    def of_router(self) -> list[ReadableSpan]:
        return sorted(self.routers.get_finished_spans(), key=lambda span: span.name)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    made = Spans()
    monkeypatch.setattr(tracing, "make_exporter", lambda _endpoint: made.routers)
    monkeypatch.setattr(trace, "get_tracer", made.provider.get_tracer)
    return made


@contextlib.asynccontextmanager
async def traced(folder: Path) -> AsyncIterator[tuple[Running, AsyncClient]]:
    """A router that traces, and the SDK at it; spans are all there when it is left."""
    async with (
        running_router(folder, otlp_endpoint="http://127.0.0.1:1") as running,
        AsyncClient(running.router.address) as client,
    ):
        yield running, client


def id_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_one_trace_goes_from_the_programs_span_to_the_groups_epoch(
    tmp_path: Path, spans: Spans
) -> None:
    async def scenario() -> None:
        async with traced(tmp_path) as (_, client):
            with spans.provider.get_tracer("program").start_as_current_span("mine"):
                done = await client.complete("def f(x):", max_new_tokens=5, request_id="r-1")
                assert len(done.token_ids) == 5

    asyncio.run(scenario())
    call, mine = sorted(spans.callers.get_finished_spans(), key=lambda span: span.name != "mine")[
        ::-1
    ]
    decode, prefill, queue, server = spans.of_router()
    assert mine.name == "mine" and parent_of(call) == id_of(mine)
    assert call.name == server.name == f"{SERVICE}/Complete"
    assert (call.kind, server.kind) == (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    assert parent_of(server) == id_of(call)
    assert [span.name for span in (decode, prefill, queue)] == PARTS
    for span in (decode, prefill, queue):
        assert parent_of(span) == id_of(server)
        assert facts(span)["santacoder.request_id"] == "r-1"
    assert queue.end_time == prefill.start_time and prefill.end_time == decode.start_time
    assert facts(prefill)["santacoder.prompt_token_count"] == 9
    assert facts(decode)["santacoder.completion_token_count"] == 5
    assert facts(decode)["santacoder.group_epoch"] == 1
    assert facts(call)["rpc.grpc.status_code"] == facts(server)["rpc.grpc.status_code"] == 0


def test_streams_and_turns_of_a_session_are_traced(tmp_path: Path, spans: Spans) -> None:
    async def scenario() -> None:
        async with traced(tmp_path) as (_, client):
            async for _ in client.stream("x", max_new_tokens=2):
                pass
            async with client.session() as session:
                for _ in range(2):
                    await session.complete("y", max_new_tokens=2)

    asyncio.run(scenario())
    by_rpc: dict[str, list[str]] = {}
    servers = {
        id_of(span): span.name for span in spans.of_router() if span.name.startswith(SERVICE)
    }
    for span in spans.of_router():
        if span.name in PARTS:
            by_rpc.setdefault(servers[parent_of(span)], []).append(span.name)
    assert by_rpc == {
        f"{SERVICE}/StreamComplete": PARTS,
        f"{SERVICE}/CompletionSession": sorted(PARTS * 2),
    }
    calls = {id_of(span) for span in spans.callers.get_finished_spans()}
    assert {parent_of(span) for span in spans.of_router() if id_of(span) in servers} == calls


def test_a_refusal_is_a_span_with_its_status_and_no_parts(tmp_path: Path, spans: Spans) -> None:
    async def scenario() -> None:
        async with traced(tmp_path) as (_, client):
            with pytest.raises(InvalidRequest):
                await client.complete([400])

    asyncio.run(scenario())
    [server] = spans.of_router()
    [call] = spans.callers.get_finished_spans()
    assert facts(server)["rpc.grpc.status_code"] == facts(call)["rpc.grpc.status_code"] == 3
    assert not server.status.is_ok and not call.status.is_ok


def test_a_cancelled_request_is_traced_as_far_as_it_came(tmp_path: Path, spans: Spans) -> None:
    async def scenario() -> None:
        async with traced(tmp_path) as (running, client):
            running.behaviour.step_seconds = 0.02
            async for _ in client.stream("x", max_new_tokens=200, ignore_eos=True):
                break
            await until(lambda: not running.router._intake.running_count)

    asyncio.run(scenario())
    *parts, _server = spans.of_router()
    assert [span.name for span in parts] == PARTS


def test_without_an_endpoint_nothing_is_traced_and_nothing_is_imported(tmp_path: Path) -> None:
    code = """
import sys
import santacoder_client
import santacoder_router.__main__
from santacoder_router.tracing import Tracing
assert Tracing(None, lambda: 0.0, lambda: 0).interceptors == ()
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.TracingAbsent, match=r"^--otlp-endpoint: needs OpenTelemetry"):
        tracing.Tracing("http://127.0.0.1:1", lambda: 0.0, lambda: 0)


@pytest.mark.parametrize(
    "endpoint", ["x", "http://", "http://127.0.0.1", "http://192.0.2.1:1", "ftp://a:1", ""]
)
def test_an_endpoint_is_a_url_and_on_another_machine_encrypted(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--shards=unix:/a", f"--otlp-endpoint={endpoint}"])
    assert capsys.readouterr().err.startswith("error: --otlp-endpoint: not an endpoint; got ")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[otlp.ExportTraceServiceRequest]]]:
    """Takes what a router sends to it, over the wire."""
    received: list[otlp.ExportTraceServiceRequest] = []

    def export(data: bytes, _context: object) -> bytes:
        received.append(otlp.ExportTraceServiceRequest.FromString(data))
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", received
    server.stop(None)


def test_a_router_process_sends_its_spans_to_a_collector(
    tmp_path: Path, collector: tuple[str, list[otlp.ExportTraceServiceRequest]]
) -> None:
    endpoint, received = collector
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def scenario() -> None:
        group = MockGroup(tmp_path, Behaviour())
        await group.start()
        words = ("--shards", ",".join(group.addresses), "--port", "0")
        process = await start(*words, "--otlp-endpoint", endpoint)
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        address = line.split()[1].removeprefix("grpc=")
        async with grpc.aio.insecure_channel(address) as channel:
            ask: Callable[..., Any] = channel.unary_unary(f"/{SERVICE}/Complete")
            # CompleteRequest{completion{text: "x"}}
            await ask(b"\x0a\x03\x12\x01x", metadata=(("traceparent", parent),))
        os.kill(process.pid, signal.SIGTERM)
        assert (await ended(process))[0] == 0
        await group.stop()

    asyncio.run(scenario())
    sent = [
        span
        for request in received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in sent) == [*PARTS, f"{SERVICE}/Complete"]
    assert {span.trace_id.hex() for span in sent} == {parent.split("-")[1]}
