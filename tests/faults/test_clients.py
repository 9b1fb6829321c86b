"""Clients that misbehave: they lose what is theirs, and nobody else loses anything."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from faults.calm import AT_ONCE, ask, expect_calm
from faults.clients import request_count
from router.fault_proxy import fault_proxy
from router.mock_shard import Behaviour
from router.running_router import (
    request,
    running_router,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import AsyncClient, DeadlineExceeded
from santacoder_router.memory import resident_bytes

Figure = Callable[[str, object], None]


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
        half_bytes = 0
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
                half_bytes = resident_bytes()
        for victim in victims:
            assert (await victim).choices == golden.choices
        await expect_calm(running, golden)
        return (resident_bytes() - half_bytes) // 1024


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
        behaviour.step_seconds = 0.5
        answers = [asyncio.create_task(ask(proxy.target)) for _ in range(count)]
        await until(lambda: running.router._intake.running_count == count)
        proxy.refuses = True
        proxy.cut()
        behaviour.step_seconds = 0.002
        await asyncio.sleep(1.0)
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
