"""One rank's Execute stream in one life: frames in, frames out, a heartbeat every second.

Raw bytes in and out of gRPC. What is run and when is the simulation's, which all ranks share.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections.abc import Callable
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.logprobs import logprobs_of
from santacoder_client.loadtest.mock_shard.simulation import Outcome, Simulation
from santacoder_client.loadtest.mock_shard.slots import SlotTable

DIGEST_BYTES = 16
HEARTBEAT_SECONDS = 1.0

TakePlan = Callable[[shard_pb2.Plan], None]


class FrameStream(Protocol):
    """What is used of grpc.aio.ServicerContext."""

    async def read(self) -> object:
        """The next frame as bytes; anything else at the end."""

    async def write(self, message: bytes) -> None:
        """Sends one frame."""


class StreamFault(Exception):
    """The stream cannot go on; the status, and one line."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class RankStream:
    """A rank's side of a stream that has said hello."""

    def __init__(
        self,
        rank: int,
        size: int,
        epoch: int,
        simulation: Simulation,
        table: SlotTable,
        take: TakePlan,
    ) -> None:
        self._rank = rank
        self._size = size
        self._epoch = epoch
        self._simulation = simulation
        self._table = table
        self._take = take
        self._last_number = 0
        self._accepted: dict[int, bytes] = {}
        self._frames = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._outcomes = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._outbox: asyncio.Queue[bytes | StreamFault | None] = asyncio.Queue()

    async def serve(self, stream: FrameStream) -> None:
        """Until the router half-closes or the life ends. Raises StreamFault."""
        tasks = [asyncio.create_task(self._read(stream)), asyncio.create_task(self._pulse())]
        try:
            while (item := await self._outbox.get()) is not None:
                if isinstance(item, StreamFault):
                    raise item
                await stream.write(item)
        finally:
            for task in tasks:
                task.cancel()

    def report(self, outcome: Outcome) -> None:
        """Steps have run; rank 0 says what came."""
        sampled = outcome.sampled
        counts, ids = _packed(sampled.counts), _packed(sampled.ids)
        states = bytes(sampled.states)
        response = shard_pb2.ExecuteResponse()
        result = response.result
        result.plan_number = outcome.plan_number
        result.first_step = outcome.first_step
        result.steps_run = outcome.steps_run
        result.final = outcome.final
        # A step that is said to take no time at all is none to a router.
        result.device_time_us = max(1, round(outcome.seconds * 1e6))
        result.digest = self._digest(outcome, states + counts + ids)
        if self._rank == 0:
            result.row_token_counts, result.token_ids, result.row_states = counts, ids, states
            result.logprobs.extend(logprobs_of(self._table, outcome.rows, sampled))
        self._post(response)

    def fail(self, plan_number: int, message: str, sequence: int = 0) -> None:
        """Something failed: one sequence, or the whole rank."""
        error = shard_pb2.ShardError(
            rank=self._rank, plan_number=plan_number, sequence=sequence, message=message
        )
        self._post(shard_pb2.ExecuteResponse(error=error))
        if not sequence:
            self._outbox.put_nowait(StreamFault(grpc.StatusCode.INTERNAL, message))

    def end(self) -> None:
        """Another rank's stream has ended, and a group ends as one."""
        fault = StreamFault(grpc.StatusCode.UNAVAILABLE, "another rank's stream has ended")
        self._outbox.put_nowait(fault)

    async def _read(self, stream: FrameStream) -> None:
        try:
            while isinstance(frame := await stream.read(), bytes):
                self._take_frame(frame)
        except DecodeError:
            fault = StreamFault(grpc.StatusCode.INVALID_ARGUMENT, "frame: not an ExecuteRequest")
            self._outbox.put_nowait(fault)
        except StreamFault as fault:
            self._outbox.put_nowait(fault)
        else:
            self._outbox.put_nowait(None)

    def _take_frame(self, frame: bytes) -> None:
        request = shard_pb2.ExecuteRequest.FromString(frame)
        kind = request.WhichOneof("frame")
        if kind == "interrupt":
            self._simulation.interrupt(request.interrupt.plan_number)
        elif kind == "plan":
            self._take_plan(request.plan, frame)
        else:
            message = f"frame: got {kind}; allowed plan, interrupt"
            raise StreamFault(grpc.StatusCode.FAILED_PRECONDITION, message)

    def _take_plan(self, plan: shard_pb2.Plan, frame: bytes) -> None:
        self._last_number += 1
        if (plan.number, plan.epoch) != (self._last_number, self._epoch):
            message = (
                f"plan: got number {plan.number} of epoch {plan.epoch};"
                f" allowed {self._last_number} of {self._epoch}"
            )
            raise StreamFault(grpc.StatusCode.FAILED_PRECONDITION, message)
        self._frames.update(frame)
        digest = self._frames.digest()
        self._accepted[plan.number] = digest
        if self._size > 1:
            accepted = shard_pb2.PlanAccepted(plan_number=plan.number, digest=digest)
            self._post(shard_pb2.ExecuteResponse(accepted=accepted))
        self._take(plan)

    def _digest(self, outcome: Outcome, sampled: bytes) -> bytes:
        accepted = self._accepted
        frames = accepted.pop if outcome.final else accepted.__getitem__
        self._outcomes.update(frames(outcome.plan_number))
        self._outcomes.update(b"%d %d" % (outcome.first_step, outcome.steps_run))
        self._outcomes.update(sampled)
        return self._outcomes.digest()

    async def _pulse(self) -> None:
        simulation = self._simulation
        while True:
            age_seconds = time.monotonic() - simulation.progress_at
            heartbeat = shard_pb2.Heartbeat(
                last_plan_number=simulation.last_plan_number,
                step_count=simulation.step_count,
                progress_age_us=round(age_seconds * 1e6),
                phase=(shard_pb2.PHASE_RUNNING if simulation.is_running else shard_pb2.PHASE_IDLE),
            )
            self._post(shard_pb2.ExecuteResponse(heartbeat=heartbeat))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _post(self, response: shard_pb2.ExecuteResponse) -> None:
        self._outbox.put_nowait(response.SerializeToString())


def _packed(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)
