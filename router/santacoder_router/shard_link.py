"""One rank's channel and Execute stream: frames out in order, frames in by callback.

Knows neither plans nor other ranks, and does not decide what an ended stream means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from santacoder.shard.v1 import shard_pb2, shard_pb2_grpc
from santacoder_router import codec
from santacoder_router.handshake import Description

MESSAGE_BYTES = 16 * 1024 * 1024
SHARD_NAME = "shard-{rank}.santacoder.internal"
EXECUTE = "/santacoder.shard.v1.ShardService/Execute"

# A stopped peer shows only by unanswered pings, and those only under http2.ping_timeout_ms.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Measures bandwidth by further pings, which a busy rank may take for abuse.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # A new life of a group must not inherit the connection back-off of the old one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)

OnFrame = Callable[[int, shard_pb2.ExecuteResponse], None]
OnEnd = Callable[[int, str], None]


class ShardLink:
    """A connection to one rank. `address` is what gRPC calls a target: HOST:PORT or unix:PATH.

    With credentials it is encrypted, and whoever answers must have the certificate of this rank.
    """

    def __init__(
        self, rank: int, address: str, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.rank = rank
        self.address = address
        self._channel = _open(rank, address, credentials)
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def describe(self, timeout_seconds: float) -> Description:
        """Asks the rank what it is, rank 0 with its tokenizer; raises grpc.aio.AioRpcError."""
        stub = shard_pb2_grpc.ShardServiceStub(self._channel)
        request = shard_pb2.DescribeRequest(include_tokenizer=self.rank == 0)
        return codec.decode_description(await stub.Describe(request, timeout=timeout_seconds))

    def open(self, hello: bytes, on_frame: OnFrame, on_end: OnEnd) -> None:
        """Opens the Execute stream; `on_end` is called once when it ends, unless closed here."""
        self.send(hello)
        self._reader = asyncio.create_task(self._read(on_frame, on_end))

    def send(self, frame: bytes) -> None:
        """Queues a frame; frames arrive in the order of the calls."""
        self._outgoing.put_nowait(frame)

    async def close(self, half_close_seconds: float = 0.0) -> None:
        """Closes; with a grace the rank first gets that long to end the half-closed stream."""
        if self._reader is not None:
            self._outgoing.put_nowait(None)
            if half_close_seconds:
                await asyncio.wait({self._reader}, timeout=half_close_seconds)
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._channel.close()

    async def _frames(self) -> AsyncIterator[bytes]:
        while (frame := await self._outgoing.get()) is not None:
            yield frame

    async def _read(self, on_frame: OnFrame, on_end: OnEnd) -> None:
        # Frames go out as the bytes they are: one serialisation serves every rank.
        execute: grpc.aio.StreamStreamMultiCallable[bytes, shard_pb2.ExecuteResponse]
        execute = self._channel.stream_stream(
            EXECUTE,
            request_serializer=None,
            response_deserializer=shard_pb2.ExecuteResponse.FromString,
        )
        call = execute(self._frames())
        try:
            async for response in call:
                on_frame(self.rank, response)
        except grpc.aio.AioRpcError as error:
            on_end(self.rank, f"stream ended: {error.code().name} {error.details()}")
        else:
            on_end(self.rank, "stream ended")
        finally:
            call.cancel()


def _open(rank: int, address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    # Certificates name a rank and not a machine, which may change.
    name = ("grpc.ssl_target_name_override", SHARD_NAME.format(rank=rank))
    return grpc.aio.secure_channel(address, credentials, options=(*CHANNEL_OPTIONS, name))
