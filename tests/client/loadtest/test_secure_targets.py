"""Encrypted targets, certificates of both ends, and a token: against a real server with TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import grpc
import pytest
from certificates import Authority

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc as services
from santacoder_client import _script
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.model_check import ask_models
from santacoder_client.loadtest.target import Security, Target


class Model(services.ModelServiceServicer):
    """Says what it serves to whoever brings the token."""

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        if ("authorization", "Bearer s3cret") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return _script.model()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def known(authority: Authority) -> Security:
    """Trusts the server, and is known to it."""
    own = authority.issue("client.test")
    return Security(
        tls=True,
        ca_file=str(authority.ca),
        certificate_file=str(own.certificate),
        key_file=str(own.key),
        server_name="server.test",
        token="s3cret",
    )


@pytest.fixture(scope="module")
def target(authority: Authority) -> Iterator[Target]:
    """A server that wants the client's certificate, too."""
    own = authority.issue("server.test")
    pair = (own.key.read_bytes(), own.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=authority.ca.read_bytes(), require_client_auth=True
    )
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        services.add_ModelServiceServicer_to_server(Model(), server)
        address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        server.start()
        yield Target(address, "router", (address,))
        server.stop(None).wait()


def test_certificates_of_both_ends_and_a_token_open_the_door(
    target: Target, known: Security
) -> None:
    (served,) = asyncio.run(ask_models([target], known))
    assert served.info.tls and served.info.model is not None
    assert served.info.model["name"] == "fake"


@pytest.mark.parametrize(
    "lacking",
    [
        pytest.param({"token": None}, id="no token"),
        pytest.param({"certificate_file": None, "key_file": None}, id="no certificate"),
        pytest.param({"server_name": "other.test"}, id="another server"),
        pytest.param({"ca_file": None}, id="a CA that is not trusted"),
        pytest.param({"tls": False}, id="not encrypted"),
    ],
)
def test_who_lacks_any_of_them_is_refused(
    target: Target, known: Security, lacking: dict[str, Any]
) -> None:
    with pytest.raises(Unreachable, match=f"cannot reach the server at {target.address}"):
        asyncio.run(ask_models([target], replace(known, **lacking)))
