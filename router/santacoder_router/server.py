"""The router's public gRPC server: its options, its services, its port. Knows no requests."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from santacoder_router import health, model_servicer, servicer, tokenizer_servicer
from santacoder_router.config import RouterConfig
from santacoder_router.handlers import Reception
from santacoder_router.health import Health, HealthServicer
from santacoder_router.intake import Intake
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.port_holder import holder_of

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
PUBLIC_SERVICES = (
    servicer.SERVICE_NAME,
    tokenizer_servicer.SERVICE_NAME,
    model_servicer.SERVICE_NAME,
)

# For files, the shards, metrics and what gRPC itself needs.
OWN_DESCRIPTORS = 64
SERVER_OPTIONS = (
    # Two routers must not share a port in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.server_handshake_timeout_ms", 5000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class PortTaken(Exception):
    """The address cannot be listened on."""


def make_server(
    config: RouterConfig,
    lifecycle: Lifecycle,
    intake: Intake,
    server_health: Health,
    reception: Reception,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """A server with every public service, health and both versions of reflection."""
    options = (*SERVER_OPTIONS, *connection_options(config))
    server = grpc.aio.server(interceptors=interceptors, options=options)
    server.add_generic_rpc_handlers(
        (
            servicer.completion_handler(intake, lifecycle, reception, config.session_idle_seconds),
            tokenizer_servicer.tokenizer_handler(lifecycle, reception),
            model_servicer.model_handler(lifecycle, reception),
            HealthServicer(server_health, PUBLIC_SERVICES).handler(),
            *_reflection_handlers(),
        )
    )
    return server


def connection_options(config: RouterConfig) -> list[tuple[str, int]]:
    """How many connections there may be, and for how long. Takes what descriptors there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(config.max_connection_count, max(1, hard - OWN_DESCRIPTORS))
    options = [("grpc.max_allowed_incoming_connections", count)]
    if config.max_connection_age_seconds is not None:
        age_ms = round(1000 * config.max_connection_age_seconds)
        grace_ms = round(1000 * config.drain_seconds)
        options.append(("grpc.max_connection_age_ms", age_ms))
        options.append(("grpc.max_connection_age_grace_ms", grace_ms))
    return options


def bind(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None
) -> str:
    """Takes the port and gives back HOST:PORT as it is; raises PortTaken.

    Without credentials it speaks in plaintext.
    """
    shown_host = f"[{host}]" if ":" in host else host
    address = f"{shown_host}:{port}"
    try:
        if credentials is None:
            bound_port = server.add_insecure_port(address)
        else:
            bound_port = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound_port = 0
    if not bound_port:
        raise PortTaken(f"--port: cannot listen on {address}{taken_by(port)}")
    return f"{shown_host}:{bound_port}"


def taken_by(port: int) -> str:
    """What to say of a port that cannot be had."""
    holder = holder_of(port)
    return "; is it taken?" if holder is None else f": taken by the process with id {holder}"


def _reflection_handlers() -> list[grpc.GenericRpcHandler]:
    # Version 1 has the wire of v1alpha under another name, and the library only has the latter.
    names = (*PUBLIC_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
    answer: Callable[..., object] = reflection.aio.ReflectionServicer(names).ServerReflectionInfo
    method = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        for name in (reflection.SERVICE_NAME, REFLECTION_V1)
    ]
