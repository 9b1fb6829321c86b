"""The link between SDK and router misbehaves: answers go on, and nobody else notices."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.calm import AT_ONCE, PROBE, ask, ask_many, expect_calm, said
from router.fault_proxy import fault_proxy
from router.mock_shard import Behaviour
from router.running_router import Running, running_router, until

from santacoder_client import (
    AsyncClient,
    Completion,
    CompletionOptions,
    Unavailable,
    _channel,
)

RESUMED = "santacoder_router_resumed_requests_total"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ENHANCE_YOUR_CALM = 11


def resumed_count(running: Running) -> int:
    return int(running.router.metrics.registry.get_sample_value(RESUMED) or 0)


async def ask_in_session(target: str) -> Completion:
    async with AsyncClient(target, retry=AT_ONCE) as client, client.session() as session:
        # The server may not have seen yet that the attempt before has lost its caller.
        named = PROBE | CompletionOptions(request_id="mine")
        return await session.complete("def f(x):", **named)


@pytest.mark.fault("N1")
def test_a_session_s_turn_is_whole_wherever_its_link_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(steps_per_lease=1)
        async with (
            running_router(tmp_path, behaviour) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            golden = await ask(running.router.address)
            assert (await ask_in_session(proxy.target)).choices == golden.choices
            byte_count = proxy.answered_byte_count
            for place in range(60, byte_count, 89):
                proxy.cut_after = place
                assert (await ask_in_session(proxy.target)).choices == golden.choices
            assert proxy.cut_count > byte_count // 89 // 2
            assert resumed_count(running) > byte_count // 89 // 3
            await expect_calm(running, golden)

    asyncio.run(scenario())


@pytest.mark.fault("N6", "N7")
def test_a_slow_or_crumbling_link_of_one_client_delays_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running_router(tmp_path, Behaviour(steps_per_lease=1)) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            golden = await ask(running.router.address)
            undisturbed = said(await ask_many(running.router.address, 3))
            proxy.bytes_per_second, proxy.segment_bytes = 1024.0, 64
            slow = asyncio.create_task(ask(proxy.target))
            await until(lambda: proxy.answered_byte_count > 0)
            # Its connection alone takes longer than all of these.
            assert said(await ask_many(running.router.address, 3)) == undisturbed
            assert not slow.done()
            proxy.bytes_per_second, proxy.segment_bytes = None, 1
            assert (await slow).choices == golden.choices
            assert said(await ask_many(proxy.target, 3)) == undisturbed
            assert resumed_count(running) == 0
            await expect_calm(running, golden)

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.fault("N10")
def test_a_connection_that_gets_too_old_is_left_and_the_stream_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.02, steps_per_lease=1)
        ages: dict[str, Any] = {"max_connection_age_seconds": 1.0, "drain_seconds": 0.3}
        async with running_router(tmp_path, behaviour, **ages) as running:
            long = await ask(running.router.address, max_new_tokens=120)
            assert len(long.token_ids) == 120
            assert resumed_count(running) > 0
            behaviour.step_seconds = 0.0
            before = resumed_count(running)
            undisturbed = await ask(running.router.address, max_new_tokens=120)
            assert (long.choices, resumed_count(running)) == (undisturbed.choices, before)
            await expect_calm(running, await ask(running.router.address))

    asyncio.run(scenario())


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """An HTTP/2 frame of the whole connection."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + bytes(4) + payload


async def error_after_pings(target: str, count: int) -> int:
    """The code with which a connection is ended that does nothing but ping; 0 if it is not."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=1))
    try:
        for number in range(count):
            writer.write(frame(PING, struct.pack(">Q", number)))
            kind = 0
            while kind != PING:
                head = await reader.readexactly(9)
                payload, kind = await reader.readexactly(int.from_bytes(head[:3])), head[3]
                if kind == GOAWAY:
                    code: int = struct.unpack(">I", payload[4:8])[0]
                    return code
    finally:
        writer.transport.abort()
    return 0


@pytest.mark.fault("N11")
def test_whoever_pings_too_often_is_sent_away_and_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=0.005)) as running:
            target = running.router.address
            golden = await ask(target)
            victim = asyncio.create_task(ask(target))
            assert await error_after_pings(target, 1) == 0
            assert await error_after_pings(target, 50) == ENHANCE_YOUR_CALM
            assert (await victim).choices == golden.choices
            assert resumed_count(running) == 0
            await expect_calm(running, golden)

    asyncio.run(scenario())


def test_the_sdk_s_own_pings_are_not_too_many() -> None:
    options = dict(_channel.channel_options())
    assert int(options["grpc.keepalive_time_ms"]) >= 10_000


def ping_soon(options: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    soon = {"grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"}
    return [(name, 300 if name in soon else value) for name, value in options]


@pytest.mark.fault("N12")
def test_a_link_lost_while_idle_is_found_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ping_soon(_channel.channel_options())
    monkeypatch.setattr(_channel, "channel_options", lambda: options)

    async def scenario() -> None:
        async with (
            running_router(tmp_path) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            golden = await ask(running.router.address)
            target = f"{proxy.target},{running.router.address}"
            async with AsyncClient(target, retry=AT_ONCE) as client, client.session() as session:
                assert (await session.complete("def f(x):", **PROBE)).choices == golden.choices
                proxy.silence()
                assert (await client.complete("def f(x):", **PROBE)).choices == golden.choices
                assert (await session.complete("def f(x):", **PROBE)).choices == golden.choices
            await expect_calm(running, golden)

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.fault("N12")
def test_a_link_lost_while_idle_is_found_within_a_minute_as_it_is_set(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async def scenario() -> None:
        async with (
            running_router(tmp_path) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            golden = await ask(running.router.address)
            target = f"{proxy.target},{running.router.address}"
            async with AsyncClient(target) as client:
                await client.complete("def f(x):", **PROBE)
                proxy.silence()
                began = asyncio.get_running_loop().time()
                assert (await client.complete("def f(x):", **PROBE)).choices == golden.choices
                seconds = asyncio.get_running_loop().time() - began
                record_property(
                    "figure", f"N12, link of a client silent: left after {seconds:.1f} s"
                )

    asyncio.run(scenario())


@pytest.mark.fault("N1")
def test_without_going_on_a_cut_link_costs_the_request(tmp_path: Path) -> None:
    """The control: with the defence off, the cut shows."""

    async def scenario() -> None:
        async with (
            running_router(tmp_path, Behaviour(steps_per_lease=1)) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            proxy.cut_after = 1000
            async with AsyncClient(proxy.target, retry=None) as client:
                with pytest.raises(Unavailable):
                    await client.stream("def f(x):", **PROBE).result()

    asyncio.run(scenario())
