"""All ranks of a simulated group, served from one process, life after life.

A life ends with the first stream that ends, and the next one begins at once under a greater epoch,
so that a router may come, go, and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Sequence

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.errors import LoadTestError
from santacoder_client.loadtest.mock_shard.description import PROTOCOL_VERSION, describe
from santacoder_client.loadtest.mock_shard.options import MockOptions
from santacoder_client.loadtest.mock_shard.rank import RankStream, StreamFault
from santacoder_client.loadtest.mock_shard.simulation import Outcome, Simulation
from santacoder_client.loadtest.mock_shard.slots import SlotTable
from santacoder_client.loadtest.mock_shard.tokenizer_file import TokenizerFile
from santacoder_client.loadtest.mock_shard.truth import TruthLog

SERVICE = "santacoder.shard.v1.ShardService"
MESSAGE_BYTES = 64 << 20
STOP_SECONDS = 0.5
FLUSH_SECONDS = 0.5
EXIT_DIED = 1
SERVER_OPTIONS = (
    # Without this a second process could listen on the same port and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # The router pings every few seconds; the default takes that for an attack.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
)
Context = grpc.aio.ServicerContext[bytes, bytes]


class Life:
    """What the ranks of one epoch share. A plan runs when every rank has it."""

    def __init__(self, epoch: int, options: MockOptions, table: SlotTable, simulation: Simulation):
        self.epoch = epoch
        self.table = table
        self.streams: dict[int, RankStream] = {}
        self.has_ended = False
        self._rank_count = options.rank_count
        self._simulation = simulation
        self._arrived: Counter[int] = Counter()
        self._running: asyncio.Task[None] | None = None

    def join(self, rank: int) -> RankStream:
        """A rank's stream has opened. Raises StreamFault if it had one before."""
        if rank in self.streams:
            raise StreamFault(grpc.StatusCode.FAILED_PRECONDITION, "Execute: taken")
        if self._running is None:
            self._running = asyncio.create_task(
                self._simulation.run(self._report, self._fail, self._fail_sequence)
            )
            self._running.add_done_callback(self._tell_fault)
        size = self._rank_count
        stream = RankStream(rank, size, self.epoch, self._simulation, self.table, self._take)
        self.streams[rank] = stream
        return stream

    def end(self) -> None:
        """Every stream of this life ends."""
        self.has_ended = True
        if self._running is not None:
            self._running.cancel()
        for stream in self.streams.values():
            stream.end()

    def _take(self, plan: shard_pb2.Plan) -> None:
        self._arrived[plan.number] += 1
        if self._arrived[plan.number] == self._rank_count:
            del self._arrived[plan.number]
            self._simulation.submit(plan)

    def _report(self, outcome: Outcome) -> None:
        for stream in self.streams.values():
            stream.report(outcome)

    def _tell_fault(self, running: asyncio.Task[None]) -> None:
        """A fault of our own must not pass for a group that hangs."""
        if not running.cancelled() and (fault := running.exception()) is not None:
            self._fail(0, f"{type(fault).__name__}: {fault}")

    def _fail(self, plan_number: int, message: str) -> None:
        for stream in self.streams.values():
            stream.fail(plan_number, message)

    def _fail_sequence(self, sequence: int) -> None:
        self.streams[0].fail(0, "given up, as --fail-share asks", sequence)


class MockGroup:
    """A group; `addresses` are what a router is given, in order of rank."""

    def __init__(
        self, options: MockOptions, tokenizer: TokenizerFile, truth: TruthLog | None = None
    ) -> None:
        self.addresses: tuple[str, ...] = ()
        self._options = options
        self._tokenizer = tokenizer
        self._truth = truth
        self._draw = random.Random(options.seed)
        self._servers: list[grpc.aio.Server] = []
        self._flushing: asyncio.Task[None] | None = None
        self._began_at: float | None = None
        # Greater than that of any life before, of this process or another.
        self._life = self._new_life(time.time_ns() // 1_000_000)

    async def start(self, listen: Sequence[str]) -> None:
        """Serves from here on, a rank an address. Raises LoadTestError if one is taken."""
        addresses = []
        for rank, address in enumerate(listen):
            server = grpc.aio.server(options=SERVER_OPTIONS)
            server.add_generic_rpc_handlers((self._handler(rank),))
            addresses.append(_bind(server, address))
            await server.start()
            self._servers.append(server)
        self.addresses = tuple(addresses)
        if self._truth is not None:
            self._flushing = asyncio.create_task(self._flush(self._truth))

    async def stop(self) -> None:
        """Ends the streams and writes what is left of the truth."""
        self._life.end()
        await asyncio.gather(*(server.stop(STOP_SECONDS) for server in self._servers))
        if self._flushing is not None:
            self._flushing.cancel()
        if self._truth is not None:
            self._truth.flush()

    def _new_life(self, epoch: int) -> Life:
        table = SlotTable(self._options, self._tokenizer)
        simulation = Simulation(self._options, table, self._truth, self._hangs, self._draw)
        return Life(epoch, self._options, table, simulation)

    def _hangs(self) -> bool:
        """Asked before steps, so that the first question is when work began."""
        failures, now = self._options.failures, time.monotonic()
        if self._began_at is None:
            self._began_at = now
            if failures.die_after < float("inf"):
                asyncio.get_running_loop().call_later(failures.die_after, self._die)
        age_seconds = now - self._began_at
        return 0 <= age_seconds - failures.hang_after < failures.hang_seconds

    def _die(self) -> None:
        if self._truth is not None:
            self._truth.flush()
        os._exit(EXIT_DIED)

    async def _flush(self, truth: TruthLog) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            truth.flush()

    def _handler(self, rank: int) -> grpc.GenericRpcHandler:
        async def tell(request: bytes, context: Context) -> bytes:
            return await self._describe(rank, request, context)

        async def execute(_frames: object, context: Context) -> None:
            await self._execute(rank, context)

        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Describe": grpc.unary_unary_rpc_method_handler(tell),
            "Execute": grpc.stream_stream_rpc_method_handler(execute),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _describe(self, rank: int, request: bytes, context: Context) -> bytes:
        try:
            asked = shard_pb2.DescribeRequest.FromString(request)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a DescribeRequest")
        answer = describe(self._options, self._tokenizer, rank, self._life.epoch)
        if not asked.include_tokenizer:
            answer.ClearField("tokenizer_json")
        return answer.SerializeToString()

    async def _execute(self, rank: int, context: Context) -> None:
        life = self._life
        try:
            stream = self._welcome(rank, await context.read())
        except StreamFault as fault:
            await context.abort(fault.code, str(fault))
        try:
            await stream.serve(context)
        except StreamFault as fault:
            with contextlib.suppress(asyncio.CancelledError):
                await context.abort(fault.code, str(fault))
        finally:
            if not life.has_ended:
                life.end()
                self._life = self._new_life(life.epoch + 1)

    def _welcome(self, rank: int, frame: object) -> RankStream:
        try:
            request = shard_pb2.ExecuteRequest.FromString(
                frame if isinstance(frame, bytes) else b""
            )
        except DecodeError:
            raise StreamFault(grpc.StatusCode.INVALID_ARGUMENT, "not an ExecuteRequest") from None
        hello = request.hello
        got = (hello.protocol_version, hello.epoch, hello.rank)
        allowed = (PROTOCOL_VERSION, self._life.epoch, rank)
        if got != allowed:
            message = f"hello: version, epoch and rank; got {got}; allowed {allowed}"
            raise StreamFault(grpc.StatusCode.FAILED_PRECONDITION, message)
        return self._life.join(rank)


def _bind(server: grpc.aio.Server, listen: str) -> str:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        raise LoadTestError(f"--listen: cannot be bound, it may be taken; got {listen!r}") from None
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
