"""Sends requests straight to a shard group, in the router's place: what the model itself can do.

A group has one router, so it has one such sender, and one worker. Only prompts of token ids: text
ends at the router. A real group ends its life when this one leaves, and is started again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc
import grpc.aio

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.shard.v1 import shard_pb2
from santacoder_client.errors import SantaCoderError, Unavailable, error_from_rpc
from santacoder_client.loadtest import answer as notes
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord
from santacoder_client.loadtest.request import Encoder, Wishes
from santacoder_client.loadtest.sender import Clock
from santacoder_client.loadtest.shard_batch import Answer, Batch, Planned
from santacoder_client.loadtest.shard_group import (
    PROTOCOL_VERSION,
    SERVICE,
    describe,
    open_channels,
)
from santacoder_client.loadtest.shard_request import admit_of
from santacoder_client.loadtest.target import Security, Target

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(slots=True, eq=False)
class Flight:
    """One request, from its sending to its end."""

    record: RequestRecord
    clock: Clock
    over: asyncio.Event = field(default_factory=asyncio.Event)


class ShardTarget:
    """One shard group."""

    def __init__(self, target: Target, security: Security, wishes: Wishes) -> None:
        self._target = target
        self._security = security
        self._wishes = wishes
        self._encoder = Encoder(wishes)
        self._channels: list[grpc.aio.Channel] = []
        self._streams: list[Stream] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._flights: dict[Answer, Flight] = {}
        self._work = asyncio.Event()
        self._planned: Planned | None = None
        self._is_done = asyncio.Event()
        self._failure: SantaCoderError | None = None

    async def open(self) -> None:
        """Takes the router's place. Raises Unreachable."""
        self._channels = open_channels(self._target, self._security)
        self._group = await describe(self._channels, self._target)
        self._batch = Batch(self._group)
        for rank, channel in enumerate(self._channels):
            start: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            start = channel.stream_stream(f"{SERVICE}/Execute")
            stream = start()
            self._streams.append(stream)
            hello = shard_pb2.Hello(
                protocol_version=PROTOCOL_VERSION, epoch=self._group.epoch, rank=rank
            )
            await stream.write(shard_pb2.ExecuteRequest(hello=hello).SerializeToString())
            self._tasks.append(asyncio.create_task(self._read(rank, stream)))
        self._tasks.append(asyncio.create_task(self._plan()))

    async def close(self) -> None:
        """Leaves the group. May be called again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for channel in self._channels:
            await channel.close()

    async def send(self, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        """Has one prompt answered."""
        request = self._encoder.completion(prompt, record.index)
        record.request_id = request.request_id
        record.dispatched_at = clock()
        try:
            answer = Answer(self._admit_of(request, record))
        except SantaCoderError as error:
            record.finished_at = clock()
            notes.note_error(record, error)
            return
        flight = self._flights[answer] = Flight(record, clock)
        self._batch.add(answer)
        self._work.set()
        timer = self._plan_cancel(answer, flight)
        try:
            await flight.over.wait()
        except asyncio.CancelledError:
            self._cut(answer, flight)
            flight.over.set()
            notes.note_cancelled(record, notes.END_OF_RUN)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _admit_of(self, request: pb.CompletionRequest, record: RequestRecord) -> shard_pb2.Admit:
        if self._failure is not None:
            raise self._failure
        admit = admit_of(request, self._group)
        record.prompt_token_count = admit.prompt_length
        return admit

    def _plan_cancel(self, answer: Answer, flight: Flight) -> asyncio.TimerHandle | None:
        after = self._wishes.cancel_after(flight.record.index)
        if after is None:
            return None
        return asyncio.get_running_loop().call_later(after, self._cut, answer, flight)

    def _cut(self, answer: Answer, flight: Flight) -> None:
        """The next plan lacks it; when that has arrived, its slot is free."""
        if not flight.over.is_set():
            flight.record.cancelled_at = flight.clock()
            if self._batch.cancel(answer):
                self._note_retired(answer)
            self._work.set()

    async def _plan(self) -> None:
        """Sends one plan after the other, in a task of its own."""
        while self._failure is None:
            self._planned = self._batch.plan()
            if self._planned is None:
                self._work.clear()
                await self._work.wait()
                continue
            self._is_done.clear()
            frame = shard_pb2.ExecuteRequest(plan=self._planned.message).SerializeToString()
            try:
                for stream in self._streams:
                    await stream.write(frame)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # the reader tells why
            await self._is_done.wait()

    async def _read(self, rank: int, stream: Stream) -> None:
        """Takes what a rank says, in a task of its own; its end is the group's."""
        ended = "the shard's stream ended"
        failure: SantaCoderError = Unavailable(ended, code=grpc.StatusCode.UNAVAILABLE)
        try:
            while isinstance(raw := await stream.read(), bytes):
                frame = shard_pb2.ExecuteResponse.FromString(raw)
                if frame.HasField("error") and not frame.error.sequence:
                    failure = _failed(frame.error)
                    break
                if rank == 0:
                    self._take(frame)
        except grpc.RpcError as error:
            message = error_from_rpc(error).message
            failure = Unavailable(message, code=grpc.StatusCode.UNAVAILABLE)
        except asyncio.CancelledError:
            if notes.being_cancelled():
                raise
        self._fail(failure)

    def _take(self, frame: shard_pb2.ExecuteResponse) -> None:
        planned = self._planned
        if frame.HasField("error"):
            self._fail_one(frame.error)
        if planned is None:
            return
        number = planned.message.number
        if frame.HasField("accepted") and frame.accepted.plan_number == number:
            self._note_arrival(planned)
        elif frame.HasField("result") and frame.result.plan_number == number:
            self._note_arrival(planned)  # a rank may leave the answer to its result
            for answer, count in self._batch.apply(planned, frame.result):
                self._note_tokens(answer, count)
            if frame.result.final:
                self._is_done.set()

    def _note_arrival(self, planned: Planned) -> None:
        for answer in planned.admitted:
            self._note_accepted(answer)
        for answer in planned.retired:
            self._note_retired(answer)

    def _note_accepted(self, answer: Answer) -> None:
        flight = self._flights.get(answer)
        if flight is not None and flight.record.accepted_at is None:
            flight.record.accepted_at = flight.clock()

    def _note_tokens(self, answer: Answer, count: int) -> None:
        flight = self._flights.get(answer)
        if flight is None or flight.over.is_set() or answer.is_cancelled:
            return
        record, now = flight.record, flight.clock()
        if count:
            record.chunks.append(Chunk(now, count))
            record.completion_token_count += count
        if answer.is_over:
            record.finished_at = now
            record.outcome, record.status = Outcome.OK, "OK"
            flight.over.set()
            del self._flights[answer]

    def _note_retired(self, answer: Answer) -> None:
        flight = self._flights.pop(answer, None)
        if flight is not None and not flight.over.is_set():
            flight.record.finished_at = flight.clock()
            notes.note_cancelled(flight.record)
            flight.over.set()

    def _fail_one(self, error: shard_pb2.ShardError) -> None:
        for answer, flight in list(self._flights.items()):
            if answer.admit.sequence == error.sequence:
                answer.state = shard_pb2.ROW_STATE_NON_FINITE
                del self._flights[answer]
                _end(flight, _failed(error))

    def _fail(self, failure: SantaCoderError) -> None:
        if self._failure is None:
            self._failure = failure
        for flight in self._flights.values():
            _end(flight, self._failure)
        self._flights.clear()
        self._is_done.set()
        self._work.set()


def _failed(error: shard_pb2.ShardError) -> SantaCoderError:
    return SantaCoderError(error.message, code=grpc.StatusCode.INTERNAL, reason="SHARD_ERROR")


def _end(flight: Flight, failure: SantaCoderError) -> None:
    if not flight.over.is_set():
        flight.record.finished_at = flight.clock()
        notes.note_error(flight.record, failure)
        flight.over.set()
