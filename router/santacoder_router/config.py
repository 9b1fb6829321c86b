"""The router's settings: read once from the command line, checked, frozen.

The environment sets nothing; what looks as if it should is told.

What belongs to the model or the shards is not here: they describe themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn

from santacoder_router.environment import strange_variables
from santacoder_router.overload_options import (
    OverloadConfig,
    add_overload_arguments,
    overload_of,
    seconds_between,
)
from santacoder_router.security_options import (
    SecurityConfig,
    UnsafeOptions,
    add_security_arguments,
    is_loopback,
    security_of,
)

LOG_LEVELS = ("debug", "info", "warning", "error")
MOST_SECONDS = 86_400.0
MOST_CONNECTIONS = 65_536


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Settings of one router process."""

    shard_addresses: tuple[str, ...]
    """gRPC targets of all ranks, in order of rank."""
    host: str
    """Address to listen on."""
    port: int
    """Port to listen on; 0 takes a free one."""
    metrics_port: int
    """Port of the metrics on 127.0.0.1; 0 takes a free one."""
    drain_seconds: float
    """How long running requests may go on after SIGTERM."""
    start_seconds: float
    """How long the first shard group may take to come up."""
    recovery_seconds: float
    """How long requests wait for the next shard group."""
    stall_seconds: float
    """Plans in flight for so long without a finished step make the health NOT_SERVING."""
    log_level: str
    """Least level that is logged."""
    has_notes: bool = False
    """Whether standard output tells the starter of deaths of the group."""
    overload: OverloadConfig = field(default_factory=OverloadConfig)
    """How much it takes on."""
    security: SecurityConfig = field(default_factory=SecurityConfig)
    """Who may listen in, and who may call."""
    otlp_endpoint: str | None = None
    """Where traces go; None makes none."""
    withdraw_seconds: float = 0.0
    """How long health says NOT_SERVING before new requests are refused, after SIGTERM."""
    session_idle_seconds: float = 60.0
    """A session in which nothing runs and nothing is asked for so long is closed."""
    max_connection_count: int = 1024
    """Most connections at once, fewer where the process may not have as many descriptors."""
    max_connection_age_seconds: float | None = None
    """Callers are asked to connect anew after so long; None never asks."""


def parse_arguments(
    arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
) -> RouterConfig:
    """Settings from arguments; on a wrong one prints a line and exits with 2, as argparse does."""
    parser = _parser()
    values = parser.parse_args(arguments)
    if values.strict_env and (strange := strange_variables(environment)):
        parser.error(strange[0])
    try:
        security = security_of(values)
    except UnsafeOptions as error:
        parser.error(str(error))
    return RouterConfig(
        shard_addresses=values.shards,
        host=values.host,
        port=values.port,
        metrics_port=values.metrics_port,
        drain_seconds=values.drain_seconds,
        start_seconds=values.start_seconds,
        recovery_seconds=values.recovery_seconds,
        stall_seconds=values.stall_seconds,
        log_level=values.log_level,
        has_notes=values.notes,
        overload=overload_of(values),
        security=security,
        otlp_endpoint=values.otlp_endpoint,
        withdraw_seconds=values.withdraw_seconds,
        session_idle_seconds=values.session_idle_seconds,
        max_connection_count=values.max_connections,
        max_connection_age_seconds=values.max_connection_age_seconds,
    )


class _Parser(argparse.ArgumentParser):
    """Errors are one line in the project's form."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        text = message.removeprefix("argument ")
        self.exit(2, f"error: {text}\nhint: {self.prog} --help\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="santacoder-router",
        description="Batches requests and drives a group of shards.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--shards",
        type=_addresses,
        required=True,
        metavar="ADDR,ADDR",
        help="HOST:PORT or unix:PATH of every rank, in order",
    )
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=50051, help="port; 0 takes a free one (%(default)s)")
    add("--metrics-port", type=_port, default=0, help="port on 127.0.0.1 (%(default)s: a free one)")
    for name, default, meaning in (
        ("--withdraw-seconds", 0.0, "time in which health alone says that it will stop"),
        ("--drain-seconds", 30.0, "time that running requests get after SIGTERM"),
        ("--start-seconds", 600.0, "time that the shards get to come up"),
        ("--recovery-seconds", 60.0, "time that dead shards get to come back"),
        ("--stall-seconds", 20.0, "time without a finished step that counts as not serving"),
    ):
        add(
            name,
            type=seconds_between(0.0, MOST_SECONDS),
            default=default,
            help=f"{meaning} (%(default)s)",
        )
    _add_connection_arguments(parser)
    add("--log-level", choices=LOG_LEVELS, default="info", help="least level logged (%(default)s)")
    add("--notes", action="store_true", help="tell deaths of the group on standard output")
    add("--otlp-endpoint", type=_endpoint, metavar="URL", help="collector of traces, OTLP (none)")
    add("--strict-env", action="store_true", help="refuse unknown SANTACODER_ variables (warn)")
    add_overload_arguments(parser)
    add_security_arguments(parser)
    return parser


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--max-connections",
        type=_count,
        default=1024,
        metavar="N",
        help="most connections at once; fewer where there are not descriptors enough (%(default)s)",
    )
    add(
        "--max-connection-age-seconds",
        type=seconds_between(1.0, MOST_SECONDS),
        metavar="SECONDS",
        help="callers are asked to connect anew after that, and have --drain-seconds for what"
        " runs (never); for balancers that know connections only",
    )
    add(
        "--session-idle-seconds",
        type=seconds_between(0.1, MOST_SECONDS),
        default=60.0,
        metavar="SECONDS",
        help="a session in which nothing is asked for so long is closed (%(default)s)",
    )


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(text.split(","))
    if not all(addresses):
        raise argparse.ArgumentTypeError(f"an address is empty; got {text!r}")
    if len(set(addresses)) != len(addresses):
        raise argparse.ArgumentTypeError(f"an address is there twice; got {text!r}")
    return addresses


def _endpoint(text: str) -> str:
    """Traces name requests and callers, so they leave the machine encrypted only."""
    scheme, _, address = text.partition("://")
    host, _, port = address.rpartition(":")
    is_address = scheme in ("http", "https") and host and port.isdigit()
    if not is_address or (scheme == "http" and not is_loopback(host.strip("[]"))):
        raise argparse.ArgumentTypeError(
            f"not an endpoint; got {text!r}; allowed http://HOST:PORT on this machine,"
            " https://HOST:PORT"
        )
    return text


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"out of range; got {text!r}; allowed 0..65535")
    return port


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CONNECTIONS:
        allowed = f"1..{MOST_CONNECTIONS}"
        raise argparse.ArgumentTypeError(f"out of range; got {text!r}; allowed {allowed}")
    return int(text)
