"""What a router stands on gives way: descriptors, log, metrics, the clock. It serves on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from faults.calm import ask
from faults.router_command import RouterCommand, router_command
from faults.wall_clock import WallClock
from router.mock_shard import Behaviour
from router.running_router import running_router, until

from santacoder_router import metrics_server
from santacoder_router.log_sink import LogSink

DROPPED = "santacoder_router_log_dropped_lines_total"
HOUR_SECONDS = 3600


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))


@pytest.mark.long
@pytest.mark.fault("R8")
def test_a_router_whose_descriptors_are_used_up_serves_those_it_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.005)
        options: dict[str, Any] = {"preexec_fn": few_descriptors}
        async with router_command(tmp_path / "r", behaviour, **options) as router:
            golden = await ask(router.target)
            running = asyncio.create_task(ask(router.target, max_new_tokens=200))
            await until(lambda: router.group.shards[0].step_count > 50)
            host, _, port = router.target.rpartition(":")
            writers = []
            for _ in range(200):
                _, writer = await asyncio.open_connection(host, int(port))
                writers.append(writer)
            assert len((await running).token_ids) == 200
            assert await router.metric("santacoder_router_process_open_fds") < 120
            assert await router.metric("santacoder_router_process_max_fds") == 120
            for writer in writers:
                writer.transport.abort()
            assert (await ask(router.target)).choices == golden.choices
            assert await router.stop() == 0

    asyncio.run(scenario())


@pytest.mark.fault("R11")
def test_readers_of_metrics_that_hang_or_hurry_cost_nobody_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.3)

    async def read(address: str, said: bytes) -> bytes:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            golden = await ask(running.router.address)
            address = running.router.metrics_address
            hanging = [asyncio.create_task(read(address, b"GET /met")) for _ in range(40)]
            assert (await ask(running.router.address)).choices == golden.choices
            # Hung up on, all of them: most at once, the others when their time is up.
            assert set(await asyncio.gather(*hanging)) <= {b""}
            for _ in range(20):
                page = await read(address, b"GET /metrics HTTP/1.0\r\n\r\n")
                assert b"santacoder_router_plans_total" in page

    asyncio.run(scenario())


def full_pipe() -> tuple[int, int]:
    """Both ends; a write waits for ever."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETFL, os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    fcntl.fcntl(write_end, fcntl.F_SETFL, 0)
    return read_end, write_end


@pytest.mark.fault("R12")
def test_a_log_that_nobody_takes_is_dropped_and_counted() -> None:
    read_end, write_end = full_pipe()
    told: list[float] = []
    sink = LogSink(write_end, most_lines=4)
    sink.info("one")
    sink.tell_drops(told.append)
    for number in range(20):
        sink.info(f"line {number}")
    # One is being written, four wait.
    assert 15 <= sum(told) == sink.dropped_count <= 17
    while b"line" not in os.read(read_end, 65_536):
        pass
    sink.close()
    os.close(read_end)
    os.close(write_end)


@pytest.mark.fault("R12")
def test_a_log_that_is_written_at_once_waits_for_its_reader() -> None:
    """The control: what the router had before."""
    read_end, write_end = full_pipe()
    with os.fdopen(write_end, "w") as file:
        log = structlog.PrintLogger(file)
        writer = threading.Thread(target=log.info, args=("line",), daemon=True)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        while writer.is_alive():
            os.read(read_end, 65_536)
    os.close(read_end)


@pytest.mark.fault("R12", "D12")
@pytest.mark.parametrize("kind", ["a full pipe", "a full disk"])
def test_a_router_whose_log_is_blocked_serves_and_ends(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        ends = full_pipe() if kind == "a full pipe" else (os.open("/dev/full", os.O_WRONLY),)
        options: dict[str, Any] = {"stderr": ends[-1]}
        async with router_command(tmp_path / "r", Behaviour(), **options) as router:
            golden = await ask(router.target)
            assert (await ask(router.target)).choices == golden.choices
            if kind == "a full disk":
                assert await router.metric(DROPPED) > 0
            assert await router.stop() == 0
        for end in ends:
            os.close(end)

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.fault("R13", "C12")
def test_nothing_depends_on_the_time_of_day(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)

    async def time_told() -> float:
        words = ["-c", "import time; print(time.time())"]
        how: dict[str, Any] = {"stdout": PIPE, "env": clock.environment}
        process = await asyncio.create_subprocess_exec(sys.executable, *words, **how)
        out, _ = await process.communicate()
        return float(out)

    async def command(target: str) -> bytes:
        words = ["-m", "santacoder_client.cli", "complete", "def f(x):", f"--target={target}"]
        options = ["--max-new-tokens=100", "--ignore-eos", "--timeout=120"]
        how: dict[str, Any] = {"stdout": PIPE, "stderr": DEVNULL, "env": clock.environment}
        process = await asyncio.create_subprocess_exec(sys.executable, *words, *options, **how)
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out

    async def steps(router: RouterCommand, count: int) -> None:
        wanted = router.group.shards[0].step_count + count
        await until(lambda: router.group.shards[0].step_count > wanted)

    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.01)
        options: dict[str, Any] = {"env": clock.environment}
        async with router_command(tmp_path / "r", behaviour, **options) as router:
            undisturbed = await command(router.target)
            for seconds in (HOUR_SECONDS, -HOUR_SECONDS):
                answer = asyncio.create_task(command(router.target))
                await steps(router, 10)
                clock.jump(seconds)
                assert not answer.done()
                assert await answer == undisturbed
                assert abs(await time_told() - time.time() - seconds) < 600
            assert await router.stop() == 0

    asyncio.run(scenario())
