"""The Execute stream over real gRPC on a Unix socket, with an engine whose ids are known."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import shard_frames as frames

from santacoder.shard.v1 import shard_pb2
from santacoder_shard.log import make_logger
from santacoder_shard.servicer import ShardServicer, StreamEnd
from santacoder_shard.step import Plan, RowOutcome, RowState, StepOutcome

Emit = Callable[[StepOutcome], None]
WAIT_SECONDS = 60.0
HEARTBEAT_SECONDS = 0.1
RUNNING = shard_pb2.PHASE_RUNNING


class HashEngine:
    """Samples a known id for each (plan, step, row); can wait for a release or fail at a plan."""

    def __init__(self, fail_at: int = 0, hold_at: int = 0) -> None:
        self.fail_at = fail_at
        self.hold_at = hold_at
        self.release = threading.Event()
        self.interrupted = False

    def drain(self, plan_waits: Callable[[], bool]) -> None: ...

    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        if plan.number == self.fail_at:
            raise ValueError("slot 3 is taken\nsecond line")
        for step in range(plan.num_steps):
            if plan.number == self.hold_at:
                while not self.release.wait(0.005):
                    if interrupted():
                        self.interrupted = True
                        break
            last = step == plan.num_steps - 1 or self.interrupted
            rows = tuple(
                RowOutcome(((plan.number * 100 + step * 10 + row.slot),), RowState.RUNNING)
                for row in plan.rows
            )
            emit(StepOutcome(plan.number, step, 1, last, rows, 0.001))
            if last:
                return


@dataclass
class Rank:
    """A served rank and its client's channel."""

    channel: grpc.aio.Channel
    ended: asyncio.Future[StreamEnd]

    def execute(self) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        return self.channel.stream_stream("/santacoder.shard.v1.ShardService/Execute")()

    async def describe(self, request: bytes) -> shard_pb2.DescribeResponse:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = self.channel.unary_unary("/santacoder.shard.v1.ShardService/Describe")
        return shard_pb2.DescribeResponse.FromString(await call(request))

    async def end(self) -> StreamEnd:
        return await asyncio.wait_for(asyncio.shield(self.ended), WAIT_SECONDS)


@asynccontextmanager
async def served(
    socket: Path, engine: HashEngine | None = None, rank: int = 0, size: int = 2
) -> AsyncIterator[Rank]:
    engine = engine or HashEngine()
    description = shard_pb2.DescribeResponse(
        protocol_version=1,
        epoch=3,
        rank=rank,
        tensor_parallel_size=size,
        plans_in_flight=2,
        tokenizer_json=b"{}",
    )
    ended: asyncio.Future[StreamEnd] = asyncio.get_running_loop().create_future()
    model_thread = ThreadPoolExecutor(1)
    servicer = ShardServicer(
        description, engine, model_thread, ended, make_logger("info"), HEARTBEAT_SECONDS
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((servicer.handler(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            yield Rank(channel, ended)
    finally:
        await server.stop(0)
        engine.release.set()
        model_thread.shutdown()


async def read(
    call: grpc.aio.StreamStreamCall[bytes, bytes], kind: str
) -> shard_pb2.ExecuteResponse:
    """The next frame of this kind; heartbeats are skipped unless wanted."""
    while True:
        data = await asyncio.wait_for(call.read(), WAIT_SECONDS)
        assert isinstance(data, bytes), f"the stream ended before a frame of kind {kind}"
        response = shard_pb2.ExecuteResponse.FromString(data)
        got = response.WhichOneof("frame")
        if got == kind:
            return response
        assert got == "heartbeat", f"{got} came before {kind}: {response}"


async def running_heartbeat(
    call: grpc.aio.StreamStreamCall[bytes, bytes],
) -> shard_pb2.Heartbeat:
    """The next heartbeat that says that a plan runs."""
    while (heartbeat := (await read(call, "heartbeat")).heartbeat).phase != RUNNING:
        pass
    return heartbeat


async def status(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> tuple[grpc.StatusCode, str]:
    code = await asyncio.wait_for(call.code(), WAIT_SECONDS)
    return code, await call.details() or ""


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "rank.sock"


@pytest.mark.fault("N13")
@pytest.mark.parametrize(
    ("first", "code", "text"),
    [
        (frames.hello(protocol_version=2), grpc.StatusCode.FAILED_PRECONDITION, "protocol_version"),
        (frames.hello(epoch=2), grpc.StatusCode.FAILED_PRECONDITION, "hello.epoch: "),
        (frames.hello(rank=1), grpc.StatusCode.FAILED_PRECONDITION, "hello.rank: "),
        (frames.plan(1), grpc.StatusCode.FAILED_PRECONDITION, "hello: missing"),
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "frame: not an ExecuteRequest"),
        (None, grpc.StatusCode.FAILED_PRECONDITION, "hello: missing"),
    ],
)
def test_a_wrong_opening_is_refused_in_one_line_and_the_rank_lives_on(
    socket: Path, first: bytes | None, code: grpc.StatusCode, text: str
) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            call = rank.execute()
            if first is not None:
                await call.write(first)
            await call.done_writing()
            got, details = await status(call)
            assert got == code
            assert text in details and "\n" not in details
            assert not rank.ended.done()
            second = rank.execute()
            await second.write(frames.hello())
            await read(second, "heartbeat")

    run(test)


def test_a_plan_is_accepted_before_it_runs_and_then_answered(socket: Path) -> None:
    async def test() -> None:
        engine = HashEngine(hold_at=1)
        async with served(socket, engine) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1, slots=(4, 2), num_steps=2))
            accepted = (await read(call, "accepted")).accepted
            assert accepted.plan_number == 1 and len(accepted.digest) == 16
            engine.release.set()
            first = (await read(call, "result")).result
            second = (await read(call, "result")).result
            assert frames.unpacked(first.token_ids) == (104, 102)
            assert frames.unpacked(second.token_ids) == (114, 112)
            assert frames.unpacked(second.row_token_counts) == (1, 1)
            assert (first.first_step, first.final) == (0, False)
            assert (second.first_step, second.final) == (1, True)

    run(test)


def test_a_rank_alone_in_its_group_sends_results_only(socket: Path) -> None:
    async def test() -> None:
        async with served(socket, size=1) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1, slots=(4,)))
            assert (await read(call, "result")).result.final

    run(test)


async def transcript(socket: Path, rank_number: int) -> list[tuple[int, bytes]]:
    async with served(socket, rank=rank_number) as rank:
        call = rank.execute()
        await call.write(frames.hello(rank=rank_number))
        points = []
        for number in (1, 2, 3):
            await call.write(frames.plan(number, slots=(number, 7)))
            accepted = (await read(call, "accepted")).accepted
            result = (await read(call, "result")).result
            assert bool(result.token_ids) == (rank_number == 0)
            points += [(number, accepted.digest), (number, result.digest)]
        return points


def test_digests_are_equal_on_every_rank_and_only_rank_0_sends_ids(tmp_path: Path) -> None:
    async def test() -> None:
        first = await transcript(tmp_path / "0.sock", 0)
        second = await transcript(tmp_path / "1.sock", 1)
        assert first == second
        assert len({digest for _, digest in first}) == 6

    run(test)


@pytest.mark.fault("N8")
@pytest.mark.parametrize(
    ("bad", "code", "text"),
    [
        (frames.plan(3), grpc.StatusCode.FAILED_PRECONDITION, "plan.number: out of order"),
        (frames.plan(1), grpc.StatusCode.FAILED_PRECONDITION, "plan.number: out of order"),
        (frames.plan(2, epoch=2), grpc.StatusCode.FAILED_PRECONDITION, "plan.epoch: "),
        (frames.hello(), grpc.StatusCode.FAILED_PRECONDITION, "hello: "),
        (frames.plan(2, slots=(5, 5)), grpc.StatusCode.INVALID_ARGUMENT, "plan.rows.slots: "),
    ],
)
def test_a_frame_out_of_order_or_malformed_ends_the_stream_with_its_reason(
    socket: Path, bad: bytes, code: grpc.StatusCode, text: str
) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1))
            await read(call, "accepted")
            await read(call, "result")
            await call.write(bad)
            error = (await read(call, "error")).error
            assert text in error.message and error.rank == 0
            assert await status(call) == (code, error.message)
            assert await rank.end() == StreamEnd(False, error.message)

    run(test)


def test_more_plans_in_flight_than_described_end_the_stream(socket: Path) -> None:
    async def test() -> None:
        async with served(socket, HashEngine(hold_at=1)) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            for number in (1, 2, 3):
                await call.write(frames.plan(number))
            for _ in range(3):
                await read(call, "accepted")
            assert "too many in flight; got 3; allowed 2" in (
                (await read(call, "error")).error.message
            )

    run(test)


def test_ranks_above_0_may_trail_behind_the_plans_that_rank_0_has_answered(socket: Path) -> None:
    async def test() -> None:
        engine = HashEngine(hold_at=1)
        async with served(socket, engine, rank=1) as rank:
            call = rank.execute()
            await call.write(frames.hello(rank=1))
            for number in range(1, 6):
                await call.write(frames.plan(number))
            for _ in range(5):
                await read(call, "accepted")
            engine.release.set()
            for number in range(1, 6):
                assert (await read(call, "result")).result.plan_number == number

    run(test)


def test_a_second_stream_is_refused_while_the_first_runs_and_after_it(socket: Path) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            first = rank.execute()
            await first.write(frames.hello())
            await read(first, "heartbeat")
            for _ in range(2):
                second = rank.execute()
                await second.write(frames.hello())
                code, details = await status(second)
                assert code == grpc.StatusCode.FAILED_PRECONDITION
                assert "one stream" in details
                if not rank.ended.done():
                    await first.write(frames.plan(1))
                    await read(first, "accepted")
                    await first.done_writing()
                    await rank.end()

    run(test)


def test_heartbeats_come_while_a_plan_runs_and_say_how_far_it_is(socket: Path) -> None:
    async def test() -> None:
        engine = HashEngine(hold_at=2)
        async with served(socket, engine) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            idle = (await read(call, "heartbeat")).heartbeat
            assert (idle.phase, idle.step_count) == (shard_pb2.PHASE_IDLE, 0)
            await call.write(frames.plan(1))
            await read(call, "accepted")
            await read(call, "result")
            await call.write(frames.plan(2))
            await read(call, "accepted")
            first = await running_heartbeat(call)
            second = await running_heartbeat(call)
            assert (first.last_plan_number, first.step_count) == (1, 1)
            grown_us = second.progress_age_us - first.progress_age_us
            assert grown_us >= HEARTBEAT_SECONDS * 1e6 * 0.5

    run(test)


def test_an_engine_failure_is_one_line_and_ends_the_rank(socket: Path) -> None:
    async def test() -> None:
        async with served(socket, HashEngine(fail_at=2)) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1))
            await read(call, "accepted")
            await read(call, "result")
            await call.write(frames.plan(2))
            await read(call, "accepted")
            error = (await read(call, "error")).error
            assert error.plan_number == 2
            assert error.message == "plan 2 failed: ValueError: slot 3 is taken"
            assert (await status(call))[0] == grpc.StatusCode.INTERNAL
            assert not (await rank.end()).clean

    run(test)


@pytest.mark.fault("S10")
def test_a_step_past_its_deadline_is_reported_as_a_hang(socket: Path) -> None:
    async def test() -> None:
        async with served(socket, HashEngine(hold_at=1)) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1, step_deadline_us=50_000))
            await read(call, "accepted")
            error = (await read(call, "error")).error
            assert error.plan_number == 1
            assert "plan 1 hangs" in error.message
            assert not (await rank.end()).clean

    run(test)


def test_an_interrupt_reaches_the_running_lease(socket: Path) -> None:
    async def test() -> None:
        engine = HashEngine(hold_at=1)
        async with served(socket, engine) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1, num_steps=50, interruptible=True))
            await read(call, "accepted")
            await running_heartbeat(call)
            await call.write(frames.interrupt(1))
            result = (await read(call, "result")).result
            assert result.final and result.first_step == 0

    run(test)


def test_a_half_close_ends_cleanly_after_every_plan_has_been_answered(socket: Path) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await call.write(frames.plan(1))
            await call.write(frames.plan(2))
            await call.done_writing()
            received = [shard_pb2.ExecuteResponse.FromString(data) async for data in call]
            results = [item for item in received if item.WhichOneof("frame") == "result"]
            assert [item.result.plan_number for item in results] == [1, 2]
            assert (await status(call))[0] == grpc.StatusCode.OK
            assert (await rank.end()).clean

    run(test)


@pytest.mark.fault("S19")
def test_a_broken_stream_is_not_a_clean_end(socket: Path) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            call = rank.execute()
            await call.write(frames.hello())
            await read(call, "heartbeat")
            call.cancel()
            assert await rank.end() == StreamEnd(False, "the router's stream broke")

    run(test)


def test_describe_sends_the_tokenizer_only_when_asked_and_refuses_malformed_bytes(
    socket: Path,
) -> None:
    async def test() -> None:
        async with served(socket) as rank:
            asked = shard_pb2.DescribeRequest(include_tokenizer=True).SerializeToString()
            assert (await rank.describe(asked)).tokenizer_json == b"{}"
            plain = await rank.describe(b"")
            assert (plain.tokenizer_json, plain.epoch) == (b"", 3)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rank.describe(b"\xff\xff")
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    run(test)
