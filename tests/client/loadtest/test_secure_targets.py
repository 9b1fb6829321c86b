"""Encrypted targets, certificates of both ends, and a token: against a real server with TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc as services
from santacoder_client import _script
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.model_check import ask_models
from santacoder_client.loadtest.target import Security, Target

FILES = Path(__file__).parent / "certificates"
TRUSTED = Security(tls=True, ca_file=str(FILES / "ca.pem"), server_name="server.test")
KNOWN = replace(
    TRUSTED, certificate_file=str(FILES / "client.pem"), key_file=str(FILES / "client.key")
)


class Model(services.ModelServiceServicer):
    """Says what it serves to whoever brings the token."""

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        if ("authorization", "Bearer s3cret") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return _script.model()


@pytest.fixture
def target() -> Iterator[Target]:
    """A server that wants the client's certificate, too."""
    pair = ((FILES / "server.key").read_bytes(), (FILES / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=(FILES / "ca.pem").read_bytes(), require_client_auth=True
    )
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        services.add_ModelServiceServicer_to_server(Model(), server)
        address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        server.start()
        yield Target(address, "router", (address,))
        server.stop(None).wait()


def test_certificates_of_both_ends_and_a_token_open_the_door(target: Target) -> None:
    (served,) = asyncio.run(ask_models([target], replace(KNOWN, token="s3cret")))
    assert served.info.tls and served.info.model is not None
    assert served.info.model["name"] == "fake"


@pytest.mark.parametrize(
    "security",
    [
        pytest.param(KNOWN, id="no token"),
        pytest.param(replace(TRUSTED, token="s3cret"), id="no certificate"),
        pytest.param(replace(KNOWN, server_name="other.test", token="s3cret"), id="another server"),
        pytest.param(replace(KNOWN, ca_file=None, token="s3cret"), id="a CA that is not trusted"),
        pytest.param(Security(token="s3cret"), id="not encrypted"),
    ],
)
def test_who_lacks_any_of_them_is_refused(target: Target, security: Security) -> None:
    with pytest.raises(Unreachable, match=f"cannot reach the server at {target.address}"):
        asyncio.run(ask_models([target], security))
