"""Connections and sessions in which nothing is said, or of which there are too many."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from faults.calm import PROBE, ask, expect_calm
from faults.clients import request_count
from router.mock_shard import Behaviour
from router.running_router import failure_of, reason_of, running_router, until

from santacoder_client import AsyncClient
from santacoder_router import server

Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def silent_connection(target: str, said: bytes = b"") -> Connected:
    """It says that much and no more."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    return reader, writer


async def wait_closed(connection: Connected) -> None:
    reader, writer = connection
    with suppress(ConnectionError):
        while await reader.read(1024):
            pass
    writer.transport.abort()


def with_handshake_ms(milliseconds: int) -> tuple[tuple[str, int], ...]:
    """The server's options with another time to say hello."""
    name = "grpc.server_handshake_timeout_ms"
    return (
        *((key, value) for key, value in server.SERVER_OPTIONS if key != name),
        (name, milliseconds),
    )


@pytest.mark.fault("C6")
@pytest.mark.parametrize("said", [b"", b"PRI * HTT", b"\x16\x03\x01\x02"])
def test_connections_that_say_nothing_are_closed_and_delay_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server, "SERVER_OPTIONS", with_handshake_ms(300))

    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            golden = await ask(running.router.address)
            silent = [await silent_connection(running.router.address, said) for _ in range(100)]
            assert (await ask(running.router.address)).choices == golden.choices
            async with asyncio.timeout(60):
                await asyncio.gather(*(wait_closed(connection) for connection in silent))
            await expect_calm(running, golden)

    asyncio.run(scenario())


@pytest.mark.fault("C6")
def test_without_a_time_to_say_hello_silent_connections_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the one above."""
    monkeypatch.setattr(server, "SERVER_OPTIONS", with_handshake_ms(600_000))

    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            silent = [await silent_connection(running.router.address) for _ in range(10)]
            await asyncio.sleep(0.6)
            assert not any(reader.at_eof() for reader, _ in silent)
            for _, writer in silent:
                writer.transport.abort()

    asyncio.run(scenario())


def test_a_silent_connection_has_five_seconds() -> None:
    assert ("grpc.server_handshake_timeout_ms", 5000) in server.SERVER_OPTIONS


@pytest.mark.long
@pytest.mark.fault("C6", "R8")
def test_more_connections_than_may_be_are_refused_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SERVER_OPTIONS", with_handshake_ms(600_000))

    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.005)
        async with running_router(tmp_path, behaviour, max_connection_count=8) as running:
            golden = await ask(running.router.address)
            await running.complete()  # has one of the eight
            silent = [await silent_connection(running.router.address) for _ in range(30)]
            await until(lambda: sum(reader.at_eof() for reader, _ in silent) >= 22)
            assert (await running.complete()).choices
            for _, writer in silent:
                writer.transport.abort()
            await expect_calm(running, golden)

    asyncio.run(scenario())


@pytest.mark.fault("C7")
def test_a_session_in_which_nothing_is_asked_is_closed_and_the_sdk_opens_another(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.005, steps_per_lease=1)
        async with running_router(tmp_path, behaviour, session_idle_seconds=0.1) as running:
            golden = await ask(running.router.address)
            silent = running.completion.CompletionSession()
            assert reason_of(await failure_of(silent.read())) == "SESSION_IDLE"
            async with AsyncClient(running.router.address) as client, client.session() as session:
                # A turn may take as long as it likes.
                assert (await session.complete("def f(x):", **PROBE)).choices == golden.choices
                before = request_count(running, "CompletionSession")
                await until(lambda: request_count(running, "CompletionSession") > before)
                assert (await session.complete("def f(x):", **PROBE)).choices == golden.choices
            name = "santacoder_router_idle_sessions_total"
            assert (running.router.metrics.registry.get_sample_value(name) or 0) >= 2
            behaviour.step_seconds = 0.0
            await expect_calm(running, golden)

    asyncio.run(scenario())
