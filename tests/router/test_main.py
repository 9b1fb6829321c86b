"""The process: one ready line, exit codes, and what signals do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from router.mock_shard import Behaviour, MockGroup
from router.running_router import failure_of, reason_of, request, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc

READY = re.compile(rb"ready grpc=(127\.0\.0\.1:\d+) metrics=(127\.0\.0\.1:\d+)\n")
Process = asyncio.subprocess.Process


async def start(*arguments: str) -> Process:
    """The router as a user starts it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "santacoder_router", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def started(
    folder: Path, behaviour: Behaviour
) -> AsyncIterator[tuple[Process, MockGroup, str]]:
    """A ready process, its shards and its address."""
    group = MockGroup(folder, behaviour)
    await group.start()
    process = await start("--shards", ",".join(group.addresses), "--port", "0")
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        match = READY.fullmatch(line)
        assert match is not None, line
        yield process, group, match[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await group.stop()


async def ended(process: Process) -> tuple[int, bytes, bytes]:
    """Exit code and output."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out, err


def complete(channel: grpc.aio.Channel, count: int) -> asyncio.Task[pb.CompleteResponse]:
    """A completion in progress."""
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    message = request(stopping=pb.Stopping(max_new_tokens=count, ignore_eos=True))

    async def answer() -> pb.CompleteResponse:
        return await stub.Complete(pb.CompleteRequest(completion=message))

    return asyncio.create_task(answer())


async def drains(channel: grpc.aio.Channel) -> None:
    """Waits until new requests are refused because the process is stopping."""
    while True:
        try:
            await complete(channel, 1)
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) == "DRAINING"
            return


@pytest.mark.fault("X1")
def test_sigterm_drains_and_exits_with_0_having_printed_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(tmp_path, Behaviour(step_seconds=0.02)) as (process, group, address):
            async with grpc.aio.insecure_channel(address) as channel:
                work = complete(channel, 30)
                await until(lambda: group.shards[0].step_count > 3)
                process.send_signal(signal.SIGTERM)
                assert len((await work).choices[0].token_ids) == 30
            code, out, err = await ended(process)
            assert (code, out) == (0, b"")
            assert b"Traceback" not in err
            assert group.shards[0].stream_ended_cleanly
            assert group.violations == []

    asyncio.run(scenario())


@pytest.mark.fault("X2")
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(tmp_path, Behaviour(step_seconds=0.05)) as (process, group, address):
            async with grpc.aio.insecure_channel(address) as channel:
                work = complete(channel, 200)
                await until(lambda: group.shards[0].step_count > 1)
                process.send_signal(signal.SIGTERM)
                # Two signals at once come in the order of their numbers.
                await drains(channel)
                process.send_signal(signal.SIGINT)
                code, _, _ = await ended(process)
                assert code == 130
                assert (await failure_of(work)).code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


@pytest.mark.fault("S17")
def test_sigusr1_answers_everyone_and_the_process_stays_to_say_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(tmp_path, Behaviour(step_seconds=0.05)) as (process, group, address):
            async with grpc.aio.insecure_channel(address) as channel:
                work = complete(channel, 200)
                await until(lambda: group.shards[0].step_count > 1)
                process.send_signal(signal.SIGUSR1)
                error = await asyncio.wait_for(failure_of(work), 60)
                assert reason_of(error) == "SHARD_LOST"
                assert reason_of(await failure_of(complete(channel, 1))) == "SHARD_LOST"
            process.send_signal(signal.SIGTERM)
            assert (await ended(process))[0] == 0

    asyncio.run(scenario())


@pytest.mark.fault("G7", "X8")
def test_a_port_that_is_taken_is_exit_code_4_and_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(tmp_path, Behaviour()) as (_, group, address):
            port = address.rsplit(":", 1)[1]
            second = await start("--shards", group.addresses[0], "--port", port)
            code, out, err = await ended(second)
            assert (code, out) == (4, b"")
            errors = [line for line in err.decode().splitlines() if line.startswith("error: ")]
            assert len(errors) == 1 and port in errors[0]
            assert b"Traceback" not in err

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--shards", "unix:/nowhere", "--start-seconds", "0.2"], 1), (["--shards", ""], 2)],
)
def test_a_start_that_fails_is_an_exit_code_and_one_line(arguments: list[str], code: int) -> None:
    async def scenario() -> None:
        process = await start(*arguments, "--port", "0")
        exit_code, out, err = await ended(process)
        assert (exit_code, out) == (code, b"")
        errors = [line for line in err.decode().splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "--shards" in errors[0]
        assert b"Traceback" not in err

    asyncio.run(scenario())
