"""Sends requests to a router, streamed or unary: raw bytes in and out of gRPC, and times.

As little as possible happens while an answer comes: a message and its time go into a list.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.loadtest import answer
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.request import Encoder, Wishes
from santacoder_client.loadtest.sender import Clock
from santacoder_client.loadtest.target import Security, Target, open_channel

SERVICE = "/santacoder.inference.v1.CompletionService"
CONNECT_SECONDS = 10.0

Call = grpc.aio.UnaryStreamCall[bytes, bytes] | grpc.aio.UnaryUnaryCall[bytes, bytes]


async def open_channels(target: Target, security: Security, count: int) -> list[grpc.aio.Channel]:
    """Connections to a target, all of them up. Raises Unreachable."""
    # One HTTP/2 connection is one socket, one flow-control window, and so many streams.
    channels = [open_channel(target.addresses[0], security) for _ in range(count)]
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
    except TimeoutError:
        for channel in channels:
            await channel.close()
        raise Unreachable(
            f"cannot reach the server at {target.address}: no connection in {CONNECT_SECONDS:g} s"
        ) from None
    return channels


class RouterSender:
    """One router, by `StreamComplete` or `Complete`."""

    def __init__(
        self, target: Target, security: Security, wishes: Wishes, channel_count: int
    ) -> None:
        self._target = target
        self._security = security
        self._wishes = wishes
        self._channel_count = channel_count
        self._encoder = Encoder(wishes)
        self._channels: Sequence[grpc.aio.Channel] = ()
        self._turn = itertools.count()
        self._streams: list[grpc.aio.UnaryStreamMultiCallable[bytes, bytes]] = []
        self._unaries: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = []

    async def open(self) -> None:
        """Connects. Raises Unreachable."""
        self._channels = await open_channels(self._target, self._security, self._channel_count)
        self._streams = [each.unary_stream(f"{SERVICE}/StreamComplete") for each in self._channels]
        self._unaries = [each.unary_unary(f"{SERVICE}/Complete") for each in self._channels]

    async def close(self) -> None:
        """Drops what is running."""
        for channel in self._channels:
            await channel.close()

    async def send(self, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        """Sends one request and waits for its end."""
        completion = self._encoder.completion(prompt, record.index)
        record.request_id = completion.request_id
        timeout = self._wishes.timeout(prompt)
        if self._wishes.api == "unary":
            payload = pb.CompleteRequest(completion=completion).SerializeToString()
            await self._unary(payload, timeout, record, clock)
        else:
            payload = pb.StreamCompleteRequest(completion=completion).SerializeToString()
            await self._stream(payload, timeout, record, clock)

    async def _stream(
        self, payload: bytes, timeout: float | None, record: RequestRecord, clock: Clock
    ) -> None:
        start = self._streams[next(self._turn) % len(self._streams)]
        arrivals: answer.Arrivals = []
        record.dispatched_at = clock()
        call = start(payload, timeout=timeout, metadata=self._security.metadata)
        timer = self._plan_cancel(call, record, clock)
        try:
            while isinstance(raw := await call.read(), bytes):
                arrivals.append((clock(), raw))
            _note_ok(record, clock)
        except (grpc.RpcError, asyncio.CancelledError) as error:
            _note_end(record, error, clock)
        finally:
            _stop(timer)
            _read(record, lambda: answer.read_stream(record, arrivals))

    async def _unary(
        self, payload: bytes, timeout: float | None, record: RequestRecord, clock: Clock
    ) -> None:
        start = self._unaries[next(self._turn) % len(self._unaries)]
        record.dispatched_at = clock()
        call = start(payload, timeout=timeout, metadata=self._security.metadata)
        timer = self._plan_cancel(call, record, clock)
        try:
            raw = await call
            _note_ok(record, clock)
            _read(record, lambda: answer.read_unary(record, raw))
        except (grpc.RpcError, asyncio.CancelledError) as error:
            _note_end(record, error, clock)
        finally:
            _stop(timer)

    def _plan_cancel(
        self, call: Call, record: RequestRecord, clock: Clock
    ) -> asyncio.TimerHandle | None:
        after = self._wishes.cancel_after(record.index)
        if after is None:
            return None

        def cancel() -> None:
            if call.cancel():
                record.cancelled_at = clock()

        return asyncio.get_running_loop().call_later(after, cancel)


def _note_ok(record: RequestRecord, clock: Clock) -> None:
    record.finished_at = clock()
    record.cancelled_at = None  # its end was faster than the wish for it
    record.outcome = Outcome.OK
    record.status = "OK"


def _note_end(record: RequestRecord, error: BaseException, clock: Clock) -> None:
    """How a call that did not end well ended; a task that is to end goes on ending."""
    if isinstance(error, grpc.RpcError):
        record.finished_at = clock()
        answer.note_rpc_error(record, error)
        return
    if answer.being_cancelled():
        record.cancelled_at = clock()
        answer.note_cancelled(record, answer.END_OF_RUN)
        raise error
    # A cancelled call ends here and now, whatever the server does: nothing confirms its end, and
    # `finished_at` stays empty. A session's turns are confirmed.
    answer.note_cancelled(record)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _read(record: RequestRecord, read: answer.Reading) -> None:
    try:
        read()
    except DecodeError as error:
        answer.note_unreadable(record, error)
