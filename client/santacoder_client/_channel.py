"""The way to one server: keepalive, message sizes, retries, and who may still use it.

Knows no verb and no completion.
"""

from __future__ import annotations

import asyncio
import json
import os
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
    """gRPC's own settings for a channel to a server."""
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
        ("grpc.service_config", json.dumps(service_config())),
    ]


def service_config() -> dict[str, object]:
    """Retries of UNAVAILABLE alone, where `_retry.py` has no say: it knows what has come already.

    gRPC itself retries nothing once an answer has begun.
    """
    return {
        "methodConfig": [
            {
                "name": [
                    {"service": "santacoder.inference.v1.TokenizerService"},
                    {"service": "santacoder.inference.v1.ModelService"},
                    {
                        "service": "santacoder.inference.v1.CompletionService",
                        "method": "CompletionSession",
                    },
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # After an outage retries stay below a tenth of the traffic.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of one server, called and waited for."""

    completion: CompletionServiceStub
    tokenizer: TokenizerServiceStub
    model: ModelServiceStub
    health: grpc.UnaryUnaryMultiCallable[bytes, bytes]


@dataclass(frozen=True, slots=True)
class AsyncStubs:
    """The services of one server, awaited."""

    completion: CompletionServiceAsyncStub
    tokenizer: TokenizerServiceAsyncStub
    model: ModelServiceAsyncStub
    health: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


READY_POLL_SECONDS = 0.1


def not_ready(timeout_seconds: float) -> Unavailable:
    """What `wait_ready` raises."""
    return Unavailable(
        f"the server was not ready after {timeout_seconds:g} s", code=grpc.StatusCode.UNAVAILABLE
    )


class Connection:
    """A channel for blocking callers; threads may share it, forked processes may not."""

    def __init__(self, security: Security) -> None:
        _check_target(security.target)
        self._channel = security.open(channel_options())
        self._stubs = Stubs(
            completion=CompletionServiceStub(self._channel),
            tokenizer=TokenizerServiceStub(self._channel),
            model=ModelServiceStub(self._channel),
            health=self._channel.unary_unary(HEALTH_CHECK),
        )
        self._process_id = os.getpid()
        self._closed = False

    def stubs(self) -> Stubs:
        """Raises RuntimeError after close, or in a forked process."""
        _check_open(self._closed)
        _check_process(self._process_id)
        return self._stubs

    def close(self) -> None:
        """Cancels what is running. May be called again."""
        self._closed = True
        self._channel.close()


class AsyncConnection:
    """A channel for one event loop: the loop of its first use."""

    def __init__(self, security: Security) -> None:
        _check_target(security.target)
        if security.tls is not None:
            credentials_of(security.tls)  # what is wrong is told here, not at the first call
        self._security = security
        self._channel: grpc.aio.Channel | None = None
        self._stubs: AsyncStubs | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process_id = os.getpid()
        self._closed = False

    def stubs(self) -> AsyncStubs:
        """Raises RuntimeError after close, in a forked process, or in another event loop."""
        _check_open(self._closed)
        _check_process(self._process_id)
        loop = asyncio.get_running_loop()
        if self._stubs is None:
            self._loop = loop
            self._stubs = self._open()
        elif loop is not self._loop:
            raise RuntimeError("the client belongs to another event loop; make one for this loop")
        return self._stubs

    async def close(self) -> None:
        """Cancels what is running. May be called again."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> AsyncStubs:
        # grpc.aio binds a channel to the running loop, so it is made here and not in __init__.
        self._channel = self._security.open_async(channel_options())
        return AsyncStubs(
            completion=CompletionServiceStub(self._channel),
            tokenizer=TokenizerServiceStub(self._channel),
            model=ModelServiceStub(self._channel),
            health=self._channel.unary_unary(HEALTH_CHECK),
        )


def _check_target(target: str) -> None:
    if not isinstance(target, str) or not target:
        raise ValueError(f"target: not an address; got {target!r}; allowed HOST:PORT")


def _check_open(closed: bool) -> None:
    if closed:
        raise RuntimeError("the client is closed; make a new one")


def _check_process(process_id: int) -> None:
    if os.getpid() != process_id:
        raise RuntimeError("the client belongs to the process that forked this one; make a new one")
