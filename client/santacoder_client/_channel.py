"""The way to a server, or to the one of several that serves: keepalive, sizes, who may call.

Knows no verb and no completion. The order of the servers is the order of preference.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from santacoder.inference.v1.inference_pb2_grpc import (
    CompletionServiceStub,
    ModelServiceStub,
    TokenizerServiceStub,
)
from santacoder_client._codec import MAX_SENT_BYTES
from santacoder_client._security import Security
from santacoder_client._tls import credentials_of
from santacoder_client.errors import Unavailable

if TYPE_CHECKING:
    from santacoder.inference.v1.inference_pb2_grpc import (
        CompletionServiceAsyncStub,
        ModelServiceAsyncStub,
        TokenizerServiceAsyncStub,
    )

DEFAULT_TARGET = "127.0.0.1:50051"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING} on the wire: two bytes, so no package of stubs for it."""

_MAX_RECEIVED_BYTES = 64 * 1024 * 1024
"""Eight answers of 2,047 tokens with 20 log probabilities at each are about 10 MB."""


def channel_options() -> list[tuple[str, int | str]]:
    """gRPC's own settings for a channel to a server. What is tried again is `_retry.py`'s."""
    return [
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", MAX_SENT_BYTES),
        ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
        # A server that restarts is found again within two seconds, not two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A new client connects anew, and to the target itself.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Stubs:
    """The services of one server, called and waited for."""

    completion: CompletionServiceStub
    tokenizer: TokenizerServiceStub
    model: ModelServiceStub
    health: grpc.UnaryUnaryMultiCallable[bytes, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class AsyncStubs:
    """The services of one server, awaited."""

    completion: CompletionServiceAsyncStub
    tokenizer: TokenizerServiceAsyncStub
    model: ModelServiceAsyncStub
    health: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


READY_POLL_SECONDS = 0.1
HEALTH_SECONDS = 1.0
"""Longest question for health: a cancel is seen as late as that, while no server is there."""


def not_ready(timeout_seconds: float) -> Unavailable:
    """What `wait_ready` raises."""
    return Unavailable(
        f"the server was not ready after {timeout_seconds:g} s", code=grpc.StatusCode.UNAVAILABLE
    )


class Connection:
    """Channels for blocking callers; threads may share them, forked processes may not."""

    def __init__(self, servers: Sequence[Security]) -> None:
        self._channels = [server.open(channel_options()) for server in servers]
        self._stubs = [_stubs_of(channel) for channel in self._channels]
        self._place = 0
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._closed = False

    @property
    def has_others(self) -> bool:
        """Whether there is more than one server."""
        return len(self._channels) > 1

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be called any more."""
        return self._closed

    def stubs(self) -> Stubs:
        """The server in use. Raises RuntimeError after close, or in a forked process."""
        _check_open(self._closed)
        _check_process(self._process_id)
        return self._stubs[self._place]

    def leave(self, stubs: Stubs) -> Stubs:
        """The server in use once these are left: the next one, unless others have left before."""
        with self._lock:
            if self._stubs[self._place] is stubs:
                self._place = (self._place + 1) % len(self._stubs)
        return self.stubs()

    def close(self) -> None:
        """Cancels what is running. May be called again."""
        self._closed = True
        for channel in self._channels:
            channel.close()


class AsyncConnection:
    """Channels for one event loop: the loop of their first use."""

    def __init__(self, servers: Sequence[Security]) -> None:
        for server in servers:
            if server.tls is not None:
                credentials_of(server.tls)  # what is wrong is told here, not at the first call
        self._servers = servers
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: list[AsyncStubs] = []
        self._place = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process_id = os.getpid()
        self._closed = False

    @property
    def has_others(self) -> bool:
        """Whether there is more than one server."""
        return len(self._servers) > 1

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be called any more."""
        return self._closed

    def stubs(self) -> AsyncStubs:
        """The server in use.

        Raises RuntimeError after close, in a forked process, or in another event loop.
        """
        _check_open(self._closed)
        _check_process(self._process_id)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            # grpc.aio binds a channel to the running loop, so they are made here.
            self._loop = loop
            self._channels = [server.open_async(channel_options()) for server in self._servers]
            self._stubs = [_async_stubs_of(channel) for channel in self._channels]
        elif loop is not self._loop:
            raise RuntimeError("the client belongs to another event loop; make one for this loop")
        return self._stubs[self._place]

    def leave(self, stubs: AsyncStubs) -> AsyncStubs:
        """The server in use once these are left: the next one, unless others have left before."""
        if self._stubs[self._place] is stubs:
            self._place = (self._place + 1) % len(self._stubs)
        return self.stubs()

    async def close(self) -> None:
        """Cancels what is running. May be called again."""
        self._closed = True
        for channel in self._channels:
            await channel.close()


def _stubs_of(channel: grpc.Channel) -> Stubs:
    return Stubs(
        completion=CompletionServiceStub(channel),
        tokenizer=TokenizerServiceStub(channel),
        model=ModelServiceStub(channel),
        health=channel.unary_unary(HEALTH_CHECK),
    )


def _async_stubs_of(channel: grpc.aio.Channel) -> AsyncStubs:
    return AsyncStubs(
        completion=CompletionServiceStub(channel),
        tokenizer=TokenizerServiceStub(channel),
        model=ModelServiceStub(channel),
        health=channel.unary_unary(HEALTH_CHECK),
    )


def _check_open(closed: bool) -> None:
    if closed:
        raise RuntimeError("the client is closed; make a new one")


def _check_process(process_id: int) -> None:
    if os.getpid() != process_id:
        raise RuntimeError("the client belongs to the process that forked this one; make a new one")
