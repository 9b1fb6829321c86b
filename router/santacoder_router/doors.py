"""What stands between a router and others, made from its options: TLS both ways, and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc

from santacoder_router.access import Access
from santacoder_router.authentication import Authentication
from santacoder_router.certificates import server_credentials, shard_credentials
from santacoder_router.faults import Log
from santacoder_router.group_lives import Credentials
from santacoder_router.metrics import Metrics
from santacoder_router.reloading import Reloaded
from santacoder_router.security_options import SecurityConfig
from santacoder_router.tokens import read_tokens

REMINDER_SECONDS = 3600.0
EXPIRY_NOTICE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Doors:
    """What the servers and channels of one router are made with."""

    server: grpc.ServerCredentials | None
    interceptors: tuple[grpc.aio.ServerInterceptor, ...]
    shards: Credentials


def make_doors(
    config: SecurityConfig, metrics: Metrics, clock: Callable[[], float], log: Log
) -> Doors:
    """Reads every file that is named; raises UnusableFile."""
    failed = metrics.reload_failures.inc
    return Doors(
        server=(
            server_credentials(config.tls, metrics.note_expiry, log, failed) if config.tls else None
        ),
        interceptors=_interceptors(config, metrics, clock, log),
        shards=(
            shard_credentials(config.shard_tls, log, failed) if config.shard_tls else lambda: None
        ),
    )


def _interceptors(
    config: SecurityConfig, metrics: Metrics, clock: Callable[[], float], log: Log
) -> tuple[grpc.aio.ServerInterceptor, ...]:
    path = config.token_file
    if path is None:
        return ()
    tokens = Reloaded([path], lambda: read_tokens(path), log, metrics.reload_failures.inc)
    return (Authentication(Access(tokens.get), metrics, clock, log),)


async def remind(config: SecurityConfig, metrics: Metrics, log: Log) -> None:
    """Says at the start and every hour that the door is open, or soon will be shut."""
    while True:
        if config.is_open:
            log.warning("other machines may come in without TLS, or without saying who they are")
        expiry = metrics.certificate_expiry
        if expiry is not None and expiry - datetime.now(UTC) < EXPIRY_NOTICE:
            log.warning("the certificate ends soon, or has ended", expires=expiry.isoformat())
        await asyncio.sleep(REMINDER_SECONDS)
