"""A rank without a model, on the real wire: shard.v1 over a Unix socket, inside the test's process.

Every rank of a group samples the same ids from the same oracle. It can be slowed, hung, silenced
and killed; `violations` lists the rules that plans have broken.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from router.mock_engine import MockEngine, Oracle, RowStep, Violation, unpack
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from santacoder.shard.v1 import shard_pb2, shard_pb2_grpc

SPECIALS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
END_OF_TEXT_ID = 256
Stream = grpc.aio.ServicerContext[shard_pb2.ExecuteRequest, shard_pb2.ExecuteResponse]
Outbox = asyncio.Queue[shard_pb2.ExecuteResponse]
Tamper = Callable[[shard_pb2.ExecuteResponse], list[shard_pb2.ExecuteResponse]]
"""What becomes of a frame on its way to the router."""


def byte_tokenizer(specials: tuple[str, ...] = SPECIALS) -> Tokenizer:
    """One id a byte, 0 to 255 in the order of the byte-level alphabet, and the specials after."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def ids_of(text: str) -> tuple[int, ...]:
    """The ids of a text, special tokens being text."""
    return tuple(byte_tokenizer(()).encode(text).ids)


@dataclass
class Behaviour:
    """What a mock group is like; shared by its ranks and changed while it runs."""

    oracle: Oracle = field(
        default_factory=lambda: Oracle(ids_of("abcdefgh\n "), end_id=END_OF_TEXT_ID)
    )
    step_seconds: float = 0.0
    reported_step_seconds: float | None = None
    heartbeat_seconds: float = 1.0
    slot_count: int = 8
    block_count: int = 64
    context_token_count: int = 256
    steps_per_lease: int = 4
    tokens_per_step: int = 64
    hangs: bool = False
    is_silent: bool = False
    lies_about_digest_rank: int | None = None
    fails_sequence: int | None = None
    dies_at_step: int | None = None
    # Makes of rank 0's next result what is sent in its place.
    spoil: Callable[[shard_pb2.StepResult], list[shard_pb2.StepResult]] | None = None
    # The group fails whenever it runs a sequence that holds this id.
    poison_id: int | None = None
    fingerprint: str = "fingerprint"
    protocol_version: int = 1
    tamper: Tamper = field(default=lambda frame: [frame])
    interrupted_plan_numbers: list[int] = field(default_factory=list)
    lease_steps: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def seconds_to_report(self) -> float:
        """What a step is said to have taken."""
        reported = self.reported_step_seconds
        return self.step_seconds if reported is None else reported


class MockShard(shard_pb2_grpc.ShardServiceServicer):
    """One rank at `unix:PATH`."""

    def __init__(self, path: Path, rank: int, size: int, epoch: int, behaviour: Behaviour) -> None:
        self.address = f"unix:{path}"
        self.engine = MockEngine(
            behaviour.oracle, behaviour.slot_count, behaviour.block_count, block_size=16
        )
        self.plans: list[shard_pb2.Plan] = []
        self.violations: list[str] = []
        self.step_count = 0
        self.stream_ended_cleanly = False
        self.died = asyncio.Event()
        self.ended = asyncio.Event()
        self._pending_count = 0
        self._rank = rank
        self._size = size
        self._epoch = epoch
        self._behaviour = behaviour
        self._digest = hashlib.sha256()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serves from here on."""
        # Routers ping every few seconds; by default a server takes that for abuse.
        ping_interval = ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000)
        self._server = grpc.aio.server(options=(ping_interval,))
        shard_pb2_grpc.add_ShardServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Is gone at once, as if killed."""
        if self._server is not None:
            await self._server.stop(None)

    async def Describe(
        self, request: shard_pb2.DescribeRequest, _context: object
    ) -> shard_pb2.DescribeResponse:
        behaviour = self._behaviour
        tokenizer_json = byte_tokenizer().to_str().encode()
        return shard_pb2.DescribeResponse(
            protocol_version=behaviour.protocol_version,
            epoch=self._epoch,
            rank=self._rank,
            tensor_parallel_size=self._size,
            model_name="mock",
            checkpoint_fingerprint=behaviour.fingerprint,
            numerics_id="mock",
            dtype="float32",
            layer_count=2,
            head_count=4,
            kv_head_count=1,
            embedding_size=64,
            context_token_count=behaviour.context_token_count,
            vocabulary_size=272,
            token_count=256 + len(SPECIALS),
            end_of_text_id=END_OF_TEXT_ID,
            sentinel_ids=struct.pack("<4I", 257, 258, 259, 260),
            block_size=16,
            block_count=behaviour.block_count,
            slot_count=behaviour.slot_count,
            blocks_per_sequence=behaviour.context_token_count // 16,
            tokens_per_step=behaviour.tokens_per_step,
            steps_per_lease=behaviour.steps_per_lease,
            plans_in_flight=2,
            max_logprobs=20,
            max_stop_ids=64,
            max_logit_biases=256,
            tokenizer_hash=hashlib.sha256(tokenizer_json).hexdigest(),
            tokenizer_json=tokenizer_json if request.include_tokenizer else b"",
            fim_enabled=True,
            version="0",
        )

    async def Execute(  # type: ignore[override]  # reads and writes by its context
        self, _requests: AsyncIterator[shard_pb2.ExecuteRequest], stream: Stream
    ) -> None:
        hello = await stream.read()
        if not isinstance(hello, shard_pb2.ExecuteRequest) or hello.hello.epoch != self._epoch:
            await stream.abort(grpc.StatusCode.FAILED_PRECONDITION, "another epoch")
        queue: asyncio.Queue[shard_pb2.Plan] = asyncio.Queue()
        # One writer: gRPC has no room for a second write beside the first.
        outbox: Outbox = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._heartbeats(outbox)),
            asyncio.create_task(self._work(queue, outbox)),
            asyncio.create_task(self._send(outbox, stream)),
        ]
        try:
            await self._receive(queue, outbox, stream)
            self.stream_ended_cleanly = True
        finally:
            self.ended.set()
            for task in tasks:
                task.cancel()

    async def _send(self, outbox: Outbox, stream: Stream) -> None:
        while True:
            for frame in self._behaviour.tamper(await outbox.get()):
                await stream.write(frame)

    async def _receive(
        self, queue: asyncio.Queue[shard_pb2.Plan], outbox: Outbox, stream: Stream
    ) -> None:
        while isinstance(request := await stream.read(), shard_pb2.ExecuteRequest):
            if request.HasField("interrupt"):
                self._behaviour.interrupted_plan_numbers.append(request.interrupt.plan_number)
                continue
            plan = request.plan
            self._digest.update(request.SerializeToString(deterministic=True))
            digest = self._digest.digest()
            if self._behaviour.lies_about_digest_rank == self._rank:
                digest = b"lie"
            accepted = shard_pb2.PlanAccepted(plan_number=plan.number, digest=digest)
            outbox.put_nowait(shard_pb2.ExecuteResponse(accepted=accepted))
            if plan.number != len(self.plans) + 1 or plan.epoch != self._epoch:
                self.violations.append(f"plan {plan.number} of epoch {plan.epoch} out of order")
            self.plans.append(plan)
            self._pending_count += 1
            queue.put_nowait(plan)

    async def _work(self, queue: asyncio.Queue[shard_pb2.Plan], outbox: Outbox) -> None:
        while True:
            plan = await queue.get()
            try:
                await self._run(plan, outbox)
            except Violation as violation:
                self.violations.append(f"plan {plan.number}: {violation}")
                outbox.put_nowait(self._error(str(violation), plan_number=plan.number))
            self._pending_count -= 1

    def _error(
        self, message: str, plan_number: int = 0, sequence: int = 0
    ) -> shard_pb2.ExecuteResponse:
        error = shard_pb2.ShardError(
            rank=self._rank, plan_number=plan_number, sequence=sequence, message=message
        )
        return shard_pb2.ExecuteResponse(error=error)

    async def _run(self, plan: shard_pb2.Plan, outbox: Outbox) -> None:
        self.engine.arrange(plan)
        running = [self.engine.slots[number] for number in unpack(plan.rows.slots)]
        if any(self._behaviour.poison_id in slot.ids for slot in running):
            outbox.put_nowait(self._error("poisoned", plan_number=plan.number))
            return
        num_steps = await self._steps_to_run(plan)
        if not num_steps:
            self._report(plan, 0, [], True, outbox)
        for step in range(num_steps):
            await self._pass_time(outbox)
            row_steps = self.engine.step(plan.rows, step == 0)
            self.step_count += 1
            is_last = step == num_steps - 1 or self._is_cut(plan)
            self._report(plan, step, row_steps, is_last, outbox)
            if is_last:
                if self._rank == 0:
                    self._behaviour.lease_steps[self._epoch, plan.number] = step + 1
                break

    async def _steps_to_run(self, plan: shard_pb2.Plan) -> int:
        """All steps on rank 0; on the others as many of a lease as rank 0 has run."""
        lease_steps = self._behaviour.lease_steps
        if not plan.rows.slots or plan.num_steps == 1 or self._rank == 0:
            return plan.num_steps if plan.rows.slots else 0
        while (self._epoch, plan.number) not in lease_steps:
            await asyncio.sleep(0)
        return lease_steps[self._epoch, plan.number]

    def _is_cut(self, plan: shard_pb2.Plan) -> bool:
        is_interrupted = plan.number in self._behaviour.interrupted_plan_numbers
        return self._rank == 0 and is_interrupted

    async def _pass_time(self, outbox: Outbox) -> None:
        behaviour = self._behaviour
        await asyncio.sleep(behaviour.step_seconds)
        if behaviour.dies_at_step is not None and self.step_count >= behaviour.dies_at_step:
            self.died.set()
            await asyncio.Event().wait()
        while behaviour.hangs:
            await asyncio.sleep(0.01)
        if behaviour.fails_sequence is not None:
            sequence, behaviour.fails_sequence = behaviour.fails_sequence, None
            outbox.put_nowait(self._error("it alone", sequence=sequence))

    def _report(
        self,
        plan: shard_pb2.Plan,
        step: int,
        row_steps: list[RowStep],
        final: bool,
        outbox: Outbox,
    ) -> None:
        ids = [row.token_id for row in row_steps if row.token_id is not None]
        result = shard_pb2.StepResult(
            plan_number=plan.number,
            first_step=step,
            steps_run=1 if row_steps else 0,
            final=final,
            device_time_us=round(self._behaviour.seconds_to_report * 1e6) or 1,
            digest=hashlib.sha256(repr((plan.number, step, ids)).encode()).digest(),
        )
        if self._rank == 0:
            counts = [int(row.token_id is not None) for row in row_steps]
            result.row_token_counts = struct.pack(f"<{len(counts)}I", *counts)
            result.token_ids = struct.pack(f"<{len(ids)}I", *ids)
            result.row_states = bytes(row.state for row in row_steps)
            result.logprobs.extend(self._logprobs(plan, row_steps))
        spoil = self._behaviour.spoil if self._rank == 0 else None
        for each in spoil(result) if spoil else [result]:
            outbox.put_nowait(shard_pb2.ExecuteResponse(result=each))

    def _logprobs(
        self, plan: shard_pb2.Plan, row_steps: list[RowStep]
    ) -> list[shard_pb2.TokenLogprobs]:
        """Chosen: minus its id over 256. Likeliest: ids 0, 1, ... at minus one each."""
        logprobs = []
        place = 0
        for number, row in zip(unpack(plan.rows.slots), row_steps, strict=True):
            if row.token_id is None:
                continue
            slot = self.engine.slots[number]
            if slot.wants_logprobs:
                count = slot.logprob_count
                logprobs.append(
                    shard_pb2.TokenLogprobs(
                        token_index=place,
                        chosen=-row.token_id / 256,
                        top_ids=struct.pack(f"<{count}I", *range(count)),
                        top_logprobs=struct.pack(f"<{count}f", *[-1.0] * count),
                    )
                )
            place += 1
        return logprobs

    async def _heartbeats(self, outbox: Outbox) -> None:
        while True:
            if not self._behaviour.is_silent:
                phase = shard_pb2.PHASE_RUNNING if self._pending_count else shard_pb2.PHASE_IDLE
                heartbeat = shard_pb2.Heartbeat(step_count=self.step_count, phase=phase)
                outbox.put_nowait(shard_pb2.ExecuteResponse(heartbeat=heartbeat))
            await asyncio.sleep(self._behaviour.heartbeat_seconds)


class MockGroup:
    """All ranks of one life; `next_life` takes over the same addresses under a greater epoch."""

    def __init__(self, folder: Path, behaviour: Behaviour, size: int = 1, epoch: int = 1) -> None:
        self.folder = folder
        self.behaviour = behaviour
        self.epoch = epoch
        self.shards = [
            MockShard(folder / f"{rank}.sock", rank, size, epoch, behaviour) for rank in range(size)
        ]

    @property
    def addresses(self) -> tuple[str, ...]:
        """In order of rank."""
        return tuple(shard.address for shard in self.shards)

    @property
    def violations(self) -> list[str]:
        """Of all ranks."""
        return [violation for shard in self.shards for violation in shard.violations]

    async def start(self) -> None:
        """All ranks serve."""
        for shard in self.shards:
            await shard.start()

    async def stop(self) -> None:
        """All ranks are gone at once."""
        await asyncio.gather(*(shard.stop() for shard in self.shards))

    def next_life(self) -> MockGroup:
        """A new group, not yet started, on the same addresses."""
        return MockGroup(self.folder, self.behaviour, len(self.shards), self.epoch + 1)
