"""grpc.health.v1: SERVING means that steps finish, not that a process exists.

The status is worked out when it is asked for. The library's own servicer keeps it instead, and
forgets a watcher when another one of the same service leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from santacoder_router.handlers import Context
from santacoder_router.lifecycle import Lifecycle, Phase

SERVICE_NAME = "grpc.health.v1.Health"
WATCH_SECONDS = 0.2
# An event loop that wakes so late cannot serve anybody well.
MOST_LAG_SECONDS = 1.0


class Health:
    """Whether the router serves. `stall_seconds` without a finished step is a stall."""

    def __init__(self, lifecycle: Lifecycle, stall_seconds: float) -> None:
        self._lifecycle = lifecycle
        self._stall_seconds = stall_seconds
        # How late the event loop woke at the last look.
        self.lag_seconds = 0.0

    def is_serving(self) -> bool:
        """A group is there, where plans are in flight, steps finish, and the loop is in time."""
        serving = self._lifecycle.serving
        if serving is None or self._lifecycle.phase is not Phase.SERVING:
            return False
        if self.lag_seconds > MOST_LAG_SECONDS:
            return False
        return serving.step_loop.stalled_seconds <= self._stall_seconds


class HealthServicer:
    """Check and Watch for "" and each public service; all of them have the same status."""

    def __init__(self, health: Health, services: Sequence[str]) -> None:
        self._health = health
        self._services = frozenset(("", *services))

    async def check(self, data: bytes, context: Context) -> bytes:
        """The status now; NOT_FOUND for a service that is not here."""
        service = await _service(data, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service: not served here")
        status: bytes = self._status(service).SerializeToString()
        return status

    async def watch(self, data: bytes, context: Context) -> None:
        """The status now and at every change."""
        service = await _service(data, context)
        last: health_pb2.HealthCheckResponse | None = None
        while True:
            status = self._status(service)
            if status != last:
                last = status
                await context.write(status.SerializeToString())
            await asyncio.sleep(WATCH_SECONDS)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is to be given."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        elif self._health.is_serving():
            status = health_pb2.HealthCheckResponse.SERVING
        else:
            status = health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status)


async def _service(data: bytes, context: Context) -> str:
    try:
        request = health_pb2.HealthCheckRequest.FromString(data)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request: cannot be parsed")
    service: str = request.service
    return service
