"""A router with certificates, met as outsiders meet it; files change while it serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Pair, lock
from router.running_router import (
    Running,
    config,
    make_log,
    request,
    running_router,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_router.caller_limits import KNOWN
from santacoder_router.certificates import CertificateFiles
from santacoder_router.reloading import UnusableFile
from santacoder_router.router import Router
from santacoder_router.security_options import SecurityConfig

EXPIRY = "santacoder_router_certificate_expiry_timestamp_seconds"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.issue("127.0.0.1", file_name="server")


def trusting(authority: Authority, own: Pair | None = None) -> grpc.ChannelCredentials:
    """A client that trusts a CA, perhaps with a certificate of its own."""
    return grpc.ssl_channel_credentials(
        authority.ca.read_bytes(),
        own.key.read_bytes() if own else None,
        own.certificate.read_bytes() if own else None,
    )


@contextlib.asynccontextmanager
async def connected(
    running: Running, credentials: grpc.ChannelCredentials | None
) -> AsyncIterator[Callable[..., Any]]:
    """A connection of its own; gives what completes over it."""
    address = running.router.address
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        # Without this a second channel would use the first one's connection.
        else grpc.aio.secure_channel(
            address, credentials, options=(("grpc.use_local_subchannel_pool", 1),)
        )
    )
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    async with channel:
        yield lambda **fields: stub.Complete(pb.CompleteRequest(completion=request(**fields)))


async def is_let_in(running: Running, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a new connection completes; if not, it never got to where a status is made."""
    async with connected(running, credentials) as complete:
        try:
            await complete()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert not error.trailing_metadata()
            return False
        return True


def test_with_a_certificate_the_port_speaks_tls_and_nothing_else(
    tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    files = CertificateFiles(server_pair.certificate, server_pair.key, None)

    async def scenario() -> None:
        async with running_router(tmp_path, security=SecurityConfig(tls=files)) as running:
            assert await is_let_in(running, trusting(authority))
            assert not await is_let_in(running, None)
            assert not await is_let_in(running, grpc.ssl_channel_credentials())

    asyncio.run(scenario())


def test_with_a_client_ca_only_its_certificates_are_let_in(
    tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    files = CertificateFiles(server_pair.certificate, server_pair.key, authority.ca)
    stranger = Authority(tmp_path, "other").issue("client.test")
    client = authority.issue("client.test")

    async def scenario() -> None:
        async with running_router(tmp_path, security=SecurityConfig(tls=files)) as running:
            assert await is_let_in(running, trusting(authority, client))
            assert not await is_let_in(running, trusting(authority))
            assert not await is_let_in(running, trusting(authority, stranger))

    asyncio.run(scenario())


def test_a_client_is_known_by_its_certificate_and_shares_no_prompt_with_another(
    tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    files = CertificateFiles(server_pair.certificate, server_pair.key, authority.ca)
    clients = [authority.issue(name) for name in ("editor.test", "builder.test")]

    async def scenario() -> None:
        async with running_router(tmp_path, security=SecurityConfig(tls=files)) as running:
            cached_counts = []
            for client in (*clients, clients[0]):
                async with connected(running, trusting(authority, client)) as complete:
                    answer = await complete(text="x" * 40)
                    cached_counts.append(answer.usage.cached_token_count)
            assert cached_counts == [0, 0, 32]
            known = running.router._reception.accounts._known
            assert list(known) == ["editor.test", "builder.test"]
            assert all(account.limits == KNOWN for account in known.values())

    asyncio.run(scenario())


@pytest.mark.fault("X10")
def test_certificates_are_replaced_while_it_serves(tmp_path: Path, authority: Authority) -> None:
    first = authority.issue("127.0.0.1", file_name="first")
    next_authority = Authority(tmp_path, "next")
    second = next_authority.issue("127.0.0.1", file_name="second")
    files = CertificateFiles(first.certificate, first.key, None)

    async def scenario() -> None:
        async with running_router(tmp_path, security=SecurityConfig(tls=files)) as running:
            async with connected(running, trusting(authority)) as complete:
                await complete()
                second.key.replace(first.key)
                # Half done: a key without its certificate changes nothing.
                assert await is_let_in(running, trusting(authority))
                expiry = second.expiry
                second.certificate.replace(first.certificate)
                assert await is_let_in(running, trusting(next_authority))
                assert not await is_let_in(running, trusting(authority))
                # Whoever was connected stays so.
                await complete()
            metrics = running.router.metrics
            assert metrics.registry.get_sample_value(EXPIRY) == expiry.timestamp()
            events = [line["event"] for line in running.log if "file" in line["event"]]
            assert events == ["changed files cannot be used; the old stay", "files reloaded"]

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", ["missing", "open", "another's", "no PEM", "encrypted"])
def test_certificates_that_cannot_be_used_are_one_line_before_it_listens(
    tmp_path: Path, authority: Authority, server_pair: Pair, broken: str
) -> None:
    key = tmp_path / "key"
    other = authority.issue("other.test")
    match broken:
        case "missing":
            pass
        case "another's":
            other.key.replace(key)
        case "encrypted":
            lock(server_pair.key, key)
        case _:
            key.write_text("PEM")
    if key.exists():
        key.chmod(0o644 if broken == "open" else 0o600)
    files = CertificateFiles(server_pair.certificate, key, None)
    settings = config(("unix:/nowhere",), security=SecurityConfig(tls=files))
    with pytest.raises(UnusableFile) as caught:
        Router(settings, lambda *_: None, make_log([]))
    assert "--tls-key: " in str(caught.value) and "\n" not in str(caught.value)
