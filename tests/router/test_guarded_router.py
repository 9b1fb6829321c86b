"""A router that asks who calls, met as outsiders meet it; tokens come and go while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import raw_http2
from google.rpc import error_details_pb2
from router.running_router import Running, detail, failure_of, reason_of, request, running_router

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.access import RIGHTS
from santacoder_router.security_options import SecurityConfig

SECRET = "correct-horse-battery-staple-0123456789"
DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
HEALTH = "/grpc.health.v1.Health/Check"


def write_tokens(path: Path, *lines: str) -> None:
    """A token file, in one step, as it should be."""
    new = path.with_name("new")
    new.write_text("\n".join(lines))
    new.chmod(0o600)
    new.replace(path)


def line(name: str, rights: str, secret: str = SECRET) -> str:
    return f"{name} {hashlib.sha256(secret.encode()).hexdigest()} {rights}"


@contextlib.asynccontextmanager
async def guarded(folder: Path, *lines: str) -> AsyncIterator[Running]:
    """A router with these tokens."""
    write_tokens(folder / "tokens", *lines)
    security = SecurityConfig(token_file=folder / "tokens")
    async with running_router(folder, security=security) as running:
        yield running


async def call(running: Running, method: str, token: str | None, data: bytes = b"") -> bytes:
    """Any method, as bytes; all begin to answer after one message."""
    start: Any = running.channel.stream_stream(method)
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    answers = start(iter([data]), metadata=metadata)
    answer: bytes = await answers.read()
    # Not OK, and not the end either: a session stays open.
    if not isinstance(answer, bytes):
        raise AssertionError(await answers.code())
    answers.cancel()
    return answer


@pytest.mark.parametrize("method", RIGHTS)
def test_no_method_answers_without_a_token_or_without_its_right(
    tmp_path: Path, method: str
) -> None:
    others = ",".join({*RIGHTS.values()} - {RIGHTS[method]})

    async def scenario() -> None:
        lines = (line("alice", RIGHTS[method]), line("bob", others, "other"))
        async with guarded(tmp_path, *lines) as running:
            for token, reason, code in (
                (None, "TOKEN_MISSING", grpc.StatusCode.UNAUTHENTICATED),
                (SECRET[1:], "TOKEN_INVALID", grpc.StatusCode.UNAUTHENTICATED),
                ("other", "METHOD_NOT_ALLOWED", grpc.StatusCode.PERMISSION_DENIED),
            ):
                error = await failure_of(call(running, method, token))
                assert (error.code(), reason_of(error)) == (code, reason)
                assert detail(error, error_details_pb2.RequestInfo).request_id.startswith("srv-")
            counted = running.router.metrics.registry.get_sample_value(
                "santacoder_router_requests_total",
                {"method": method.rpartition("/")[2], "code": "UNAUTHENTICATED"},
            )
            assert counted == 2
            # Whoever may is heard: what is wrong now is the message.
            error = await failure_of(call(running, method, SECRET, b"\xff"))
            assert error.code() not in DENIED

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "values",
    [
        (b"Bearer \xff\xfe",),
        (b"Bearer",),
        (b"Bearer ",),
        (b"Basic x",),
        (b"\0",),
        (b"Bearer x",) * 2,
    ],
)
def test_a_token_that_no_library_would_send_is_refused_as_any_other(
    tmp_path: Path, values: tuple[bytes, ...]
) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, line("alice", "complete")) as running:
            path = "/santacoder.inference.v1.CompletionService/Complete"
            headers = raw_http2.grpc_headers(path, *((b"authorization", value) for value in values))
            body = raw_http2.message(b"")
            address = running.router.address
            said = await asyncio.to_thread(raw_http2.call, address, headers, body, 60)
            assert said == f"grpc {grpc.StatusCode.UNAUTHENTICATED.value[0]}"

    asyncio.run(scenario())


def test_health_needs_no_token_and_what_is_not_there_is_unimplemented(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, line("alice", "complete")) as running:
            check: Any = running.channel.unary_unary(HEALTH)
            assert await check(b"") == b"\x08\x01"
            error = await failure_of(call(running, "/no.Service/Method", None))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())


def test_tokens_are_given_and_taken_while_it_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, line("alice", "complete")) as running:

            async def complete(token: str) -> pb.CompleteResponse:
                metadata = (("authorization", f"Bearer {token}"),)
                message = pb.CompleteRequest(completion=request())
                return await running.completion.Complete(message, metadata=metadata)

            assert (await complete(SECRET)).choices
            write_tokens(tmp_path / "tokens", "what is this")
            assert (await complete(SECRET)).choices
            write_tokens(tmp_path / "tokens", line("bob", "complete", "other"))
            assert (await complete("other")).choices
            assert reason_of(await failure_of(complete(SECRET))) == "TOKEN_INVALID"

    asyncio.run(scenario())


def test_callers_share_no_cached_prompt_and_a_session_is_its_callers(tmp_path: Path) -> None:
    async def cached_counts(running: Running, token: str) -> list[int]:
        metadata = (("authorization", f"Bearer {token}"),)
        completion = request(text="x" * 40, stopping=pb.Stopping(max_new_tokens=1))
        message = pb.CompleteRequest(completion=completion)
        unary = await running.completion.Complete(message, metadata=metadata)
        opening = pb.CompletionSessionRequest(open=pb.SessionOpen())
        turn = pb.CompletionSessionRequest(turn=1, completion=completion)
        counts = [unary.usage.cached_token_count]
        call = running.completion.CompletionSession(iter([opening, turn]), metadata=metadata)
        async for response in call:
            if response.event.HasField("finished"):
                counts.append(response.event.finished.usage.cached_token_count)
        return counts

    async def scenario() -> None:
        lines = (line("alice", "complete"), line("bob", "complete", "other"))
        async with guarded(tmp_path, *lines) as running:
            # 32 of 40 tokens fill blocks: the second time alice asks they are there.
            assert await cached_counts(running, SECRET) == [0, 32]
            assert await cached_counts(running, "other") == [0, 32]
            assert await cached_counts(running, SECRET) == [32, 32]

    asyncio.run(scenario())


def test_too_many_bad_calls_are_told_to_wait_and_logged_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, line("alice", "complete")) as running:
            method = "/santacoder.inference.v1.CompletionService/Complete"
            asked = [failure_of(call(running, method, "guess")) for _ in range(101)]
            errors = await asyncio.gather(*asked)
            limited = [error for error in errors if reason_of(error) == "AUTH_RATE"]
            assert [error.code() for error in limited] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
            assert detail(limited[0], error_details_pb2.RetryInfo).retry_delay.seconds == 10
            refused = [entry for entry in running.log if entry["event"] == "call refused"]
            assert [entry["reason"] for entry in refused] == ["TOKEN_INVALID"]
            metadata = (("authorization", f"Bearer {SECRET}"),)
            message = pb.CompleteRequest(completion=request())
            assert (await running.completion.Complete(message, metadata=metadata)).choices

    asyncio.run(scenario())
