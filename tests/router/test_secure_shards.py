"""The way to a rank on another machine: it must be that rank, and it is shown who calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from certificates import ROUTER, Authority, Pair
from router.running_router import failure_of, make_log

from santacoder.shard.v1 import shard_pb2
from santacoder_router.certificates import CertificateFiles, shard_credentials
from santacoder_router.shard_link import ShardLink

SERVICE = "santacoder.shard.v1.ShardService"


@contextlib.asynccontextmanager
async def rank(own: Pair, ca: Path) -> AsyncIterator[str]:
    """A rank that describes itself, no more; its address."""

    async def describe(_request: bytes, _context: object) -> bytes:
        return shard_pb2.DescribeResponse(rank=0).SerializeToString()

    pair = (own.key.read_bytes(), own.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], ca.read_bytes(), require_client_auth=True)
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(describe)
    methods = {"Describe": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    await server.start()
    yield address
    await server.stop(None)


@pytest.mark.fault("N13")
def test_a_rank_is_who_its_certificate_says_and_another_is_not_spoken_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(ROUTER)
    files = CertificateFiles(own.certificate, own.key, authority.ca)
    credentials = shard_credentials(files, make_log([]))

    async def scenario() -> None:
        zero = authority.issue("shard-0.santacoder.internal")
        async with rank(zero, authority.ca) as address:
            link = ShardLink(0, address, credentials())
            assert (await link.describe(60.0)).rank == 0
            for other in (ShardLink(1, address, credentials()), ShardLink(0, address)):
                error = await failure_of(other.describe(60.0))
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await other.close()
            await link.close()

    asyncio.run(scenario())


@pytest.mark.fault("X10")
def test_the_router_s_certificate_may_be_replaced_between_two_groups(tmp_path: Path) -> None:
    authority, following = Authority(tmp_path), Authority(tmp_path, "next")
    own, new = authority.issue(ROUTER), following.issue(ROUTER, file_name="new")
    files = CertificateFiles(own.certificate, own.key, tmp_path / "trusted")
    (tmp_path / "trusted").write_bytes(authority.ca.read_bytes())
    credentials = shard_credentials(files, make_log([]))

    async def scenario() -> None:
        renewed = following.issue("shard-0.santacoder.internal")
        async with rank(renewed, following.ca) as address:
            before = ShardLink(0, address, credentials())
            error = await failure_of(before.describe(60.0))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await before.close()
            new.key.replace(own.key)
            new.certificate.replace(own.certificate)
            (tmp_path / "trusted").write_bytes(following.ca.read_bytes())
            after = ShardLink(0, address, credentials())
            assert (await after.describe(60.0)).rank == 0
            await after.close()

    asyncio.run(scenario())
