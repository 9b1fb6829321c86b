"""Clients that misbehave: they lose what is theirs, and nobody else loses anything."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from faults.calm import AT_ONCE, PROBE, ask, expect_calm
from router.fault_proxy import fault_proxy
from router.mock_shard import Behaviour
from router.running_router import (
    Running,
    failure_of,
    reason_of,
    request,
    running_router,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import AsyncClient, DeadlineExceeded
from santacoder_router import server

Figure = Callable[[str, object], None]
REQUESTS = "santacoder_router_requests_total"


def request_count(running: Running, method: str) -> int:
    """RPCs of a method that have ended."""
    samples = next(f for f in running.router.metrics.registry.collect() if f.name == REQUESTS[:-6])
    named = [s for s in samples.samples if s.name == REQUESTS and s.labels["method"] == method]
    return int(sum(sample.value for sample in named))


@pytest.mark.fault("C1")
def test_a_killed_client_s_request_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05, steps_per_lease=1)
        async with running_router(tmp_path, behaviour) as running:
            words = ["-m", "santacoder_client.cli", "complete", "x", "--max-new-tokens=200"]
            target = f"--target={running.router.address}"
            command = [*words, "--ignore-eos", target]
            client = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
            assert client.stdout is not None
            await client.stdout.read(1)
            assert running.is_sequence_on_shard
            client.kill()
            await client.communicate()
            await until(lambda: not running.is_sequence_on_shard)
            behaviour.step_seconds = 0.0
            await expect_calm(running, await ask(running.router.address))

    asyncio.run(scenario())


async def cancel_rapidly(folder: Path, count: int) -> int:
    """By how many KiB the process has grown in the second half."""
    behaviour = Behaviour(step_seconds=0.002, slot_count=8)
    async with running_router(folder, behaviour) as running:
        golden = await ask(running.router.address)
        victims = [asyncio.create_task(ask(running.router.address)) for _ in range(3)]
        memory_kib = 0
        for number in range(count):
            message = pb.StreamCompleteRequest(completion=request(text=f"p{number}"))
            call = running.completion.StreamComplete(message)
            if number % 3:
                await asyncio.sleep(0)
            if number % 7 == 0:
                with suppress(grpc.aio.AioRpcError):
                    await call.read()
            call.cancel()
            if number == count // 2:
                memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for victim in victims:
            assert (await victim).choices == golden.choices
        await expect_calm(running, golden)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib


@pytest.mark.fault("C3")
def test_rapid_cancels_leave_nothing_and_hurt_nobody(tmp_path: Path) -> None:
    asyncio.run(cancel_rapidly(tmp_path, 200))


@pytest.mark.long
@pytest.mark.fault("C3")
def test_ten_thousand_rapid_cancels_leave_nothing_and_hurt_nobody(
    tmp_path: Path, record_property: Figure
) -> None:
    grown_kib = asyncio.run(cancel_rapidly(tmp_path, 10_000))
    record_property("figure", f"C3, 10,000 cancels: {grown_kib} KiB more after the first half")
    assert grown_kib < 32 * 1024


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


@pytest.mark.fault("C8")
@pytest.mark.parametrize("timeout", [0.001, 0.05])
def test_a_deadline_shorter_than_the_wait_costs_no_step(tmp_path: Path, timeout: float) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(slot_count=1)) as running:
            golden = await ask(running.router.address)
            running.behaviour.hangs = True
            holder = asyncio.create_task(ask(running.router.address))
            await until(lambda: running.is_sequence_on_shard)
            async with AsyncClient(running.router.address) as client:
                for _ in range(5):
                    with pytest.raises(DeadlineExceeded):
                        await client.complete("late", timeout=timeout)
            running.behaviour.hangs = False
            assert (await holder).choices == golden.choices
            await expect_calm(running, golden)
            admits = [a for plan in running.group.shards[0].plans for a in plan.admits]
            assert not any(admit.prompt_length == len("late") for admit in admits)

    asyncio.run(scenario())


async def storm(folder: Path, count: int) -> int:
    """Everybody loses the server at once, and comes back; how many requests they sent."""
    behaviour = Behaviour(step_seconds=0.002, slot_count=32, block_count=512)
    async with (
        running_router(folder, behaviour) as running,
        fault_proxy(running.router.address) as proxy,
    ):
        golden = await ask(running.router.address)
        answers = [asyncio.create_task(ask(proxy.target)) for _ in range(count)]
        await until(lambda: running.router._intake.running_count == count)
        proxy.refuses = True
        proxy.cut()
        await asyncio.sleep(1.0)
        assert running.step_loop.scheduler.queued_request_count <= count
        proxy.refuses = False
        for answer in answers:
            assert (await answer).choices == golden.choices
        # The first probe, each request, and each one's rest.
        sent = request_count(running, "StreamComplete")
        assert sent <= 1 + 2 * count + count // 10
        await expect_calm(running, golden)
        return sent - 1


@pytest.mark.long
@pytest.mark.fault("C9")
def test_after_an_outage_two_hundred_clients_ask_once(
    tmp_path: Path, record_property: Figure
) -> None:
    sent = asyncio.run(storm(tmp_path, 200))
    record_property("figure", f"C9, 200 clients over an outage of 1 s: {sent} requests sent")


CRASHING = """
import sys, time
from pathlib import Path
from santacoder_client import Client
target, folder = sys.argv[1], Path(sys.argv[2])
with Client(target) as client:
    stream = client.stream("def f(x):", max_new_tokens=40, temperature=0.5, seed=2, ignore_eos=True)
    text = ""
    for piece in stream:
        text += piece.text
        (folder / "new").write_bytes(len(text.encode()).to_bytes(4) + text.encode()
                                     + stream.bookmark())
        (folder / "new").rename(folder / "state")
        print(flush=True)
"""


@pytest.mark.fault("C13")
def test_a_killed_client_s_answer_goes_on_in_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.03, steps_per_lease=1)
        async with running_router(tmp_path, behaviour) as running:
            target = running.router.address
            words = ["-c", CRASHING, target, str(tmp_path)]
            client = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=PIPE)
            assert client.stdout is not None
            for _ in range(5):
                await client.stdout.readline()
            client.send_signal(signal.SIGKILL)
            await client.communicate()
            behaviour.step_seconds = 0.0
            state = (tmp_path / "state").read_bytes()
            length = int.from_bytes(state[:4])
            begun, bookmark = state[4 : 4 + length].decode(), state[4 + length :]
            golden = await ask(target)
            assert begun and begun != golden.text
            async with AsyncClient(target, retry=AT_ONCE) as other:
                rest = await other.resume(bookmark).result()
            assert begun + rest.text == golden.text
            assert rest.usage == golden.usage
            await expect_calm(running, golden)

    asyncio.run(scenario())
