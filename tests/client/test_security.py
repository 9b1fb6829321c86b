"""TLS and tokens of the SDK and the command: what cannot be used is refused before it is sent."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, lock

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc as services
from santacoder_client import TLS, AsyncClient, Client, Unavailable, _script
from santacoder_client._security import Security
from santacoder_client._security_arguments import (
    add_security_arguments,
    tls_of_arguments,
    token_of_arguments,
)
from santacoder_client.cli import main

TOKEN = "correct-horse-battery-staple"


class Model(services.ModelServiceServicer):
    """Notes who calls."""

    def __init__(self) -> None:
        self.callers: list[Any] = []

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        self.callers.append(dict(context.invocation_metadata()).get("authorization"))
        return _script.model()


class Server:
    """Speaks TLS at `target`, in plaintext at `plain_target`."""

    def __init__(self, authority: Authority, pool: futures.ThreadPoolExecutor) -> None:
        self.model = Model()
        own = authority.issue("127.0.0.1", file_name="server")
        pair = (own.key.read_bytes(), own.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials([pair])
        self.server = grpc.server(pool)
        services.add_ModelServiceServicer_to_server(self.model, self.server)
        self.target = f"127.0.0.1:{self.server.add_secure_port('127.0.0.1:0', credentials)}"
        self.plain_target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Server]:
    with futures.ThreadPoolExecutor(2) as pool:
        running = Server(authority, pool)
        yield running
        running.server.stop(None).wait()


def test_the_token_goes_with_every_call_over_either_kind_of_connection(
    server: Server, authority: Authority
) -> None:
    with Client(server.target, tls=TLS(ca=authority.ca), token=TOKEN) as client:
        client.model()
    with Client(server.plain_target, token=TOKEN) as client:
        client.model()
        assert TOKEN not in repr(vars(client))
    assert server.model.callers[-2:] == [f"Bearer {TOKEN}"] * 2


def test_why_there_is_no_connection_is_said_in_plain_words(
    server: Server, authority: Authority
) -> None:
    for target, tls, words in (
        (server.target, True, "the server's certificate is not of a CA that is trusted here"),
        (server.target, TLS(ca=authority.ca, server_name="x.test"), "has another name"),
        (server.target, False, "the server closed it; it may want TLS"),
        (server.plain_target, TLS(ca=authority.ca), "the server does not speak TLS"),
    ):
        with Client(target, tls=tls) as client, pytest.raises(Unavailable) as caught:
            client.model()
        assert words in caught.value.message and caught.value.reason is None


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_does_not_leave_the_machine_in_the_clear(kind: Callable[..., object]) -> None:
    for target in ("gpu-host:50051", "10.0.0.1:1", "[::]:1"):
        with pytest.raises(ValueError, match="token: would go unencrypted; got '"):
            kind(target, token=TOKEN)
        kind(target, token=TOKEN, tls=True)
        kind(target, token=TOKEN, allow_plain_token=True)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é", b"bytes", "tab\t"])
def test_what_is_no_token_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(ValueError, match="token: not a token") as caught:
        Client("127.0.0.1:1", token=token)
    assert not token or str(token) not in str(caught.value)
    assert TOKEN not in repr(Security("127.0.0.1:1", token=TOKEN))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_certificates_that_cannot_be_used_are_refused_at_once(
    kind: Callable[..., object], authority: Authority, tmp_path: Path
) -> None:
    own, other = authority.issue("a.test"), authority.issue("b.test")
    locked = tmp_path / "locked"
    lock(own.key, locked)
    for tls, words in (
        (TLS(ca=tmp_path / "none"), "tls.ca: No such file"),
        (TLS(ca=own.key), "tls.ca: no certificates"),
        (TLS(cert=own.certificate), "tls.cert: needs tls.key"),
        (TLS(cert=own.certificate, key=other.key), "tls.cert, tls.key: no certificate and the key"),
        (TLS(cert=own.certificate, key=locked), "the key without a password"),
    ):
        with pytest.raises(ValueError, match=words):
            kind("127.0.0.1:1", tls=tls)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_security_arguments(parser)
    return parser.parse_args(words)


def test_a_token_is_one_word_of_a_file_or_else_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(f"{TOKEN}\n".encode())
    assert token_of_arguments(parsed(f"--token-file={file}"), "other") == TOKEN
    assert token_of_arguments(parsed(), TOKEN) == TOKEN
    assert token_of_arguments(parsed(), None) is None
    for content in (b"", b"\n", b"two words", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="--token-file: not a token; got '"):
            token_of_arguments(parsed(f"--token-file={file}"), None)
    with pytest.raises(ValueError, match="--token-file: No such file"):
        token_of_arguments(parsed(f"--token-file={tmp_path}/none"), None)
    with pytest.raises(ValueError, match=r"\$SANTACODER_TOKEN: not a token") as caught:
        token_of_arguments(parsed(), "two words")
    assert "two words" not in str(caught.value)


def test_certificates_need_tls_and_each_other(authority: Authority) -> None:
    with pytest.raises(ValueError, match="--tls: missing"):
        tls_of_arguments(parsed(f"--tls-ca={authority.ca}"))
    with pytest.raises(ValueError, match="--tls-cert: needs --tls-key"):
        tls_of_arguments(parsed("--tls", f"--tls-cert={authority.ca}"))
    assert tls_of_arguments(parsed()) is None
    assert tls_of_arguments(parsed("--tls")) == TLS()


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--tls", "--tls-ca={ca}"], 0, ""),
        (["--tls-ca={ca}"], 2, "error: --tls: missing"),
        (["--tls", "--tls-ca=/nowhere"], 2, "error: --tls-ca: No such file"),
        (["--token-file=/nowhere"], 2, "error: --token-file: No such file"),
        (["--tls"], 5, "error: cannot reach the server at {target}: no connection: the server's"),
        ([], 5, "error: cannot reach the server at {target}: no connection: the server closed it"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    server: Server,
    authority: Authority,
    words: list[str],
    status: int,
    line: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    known = {"ca": authority.ca, "target": server.target}
    flags = [word.format(**known) for word in words]
    # Before the command or after it.
    for arguments in ([*flags, "info"], ["info", *flags]):
        assert main([*arguments, f"--target={server.target}"]) == status
        errors = capfd.readouterr().err.splitlines()
        assert [each for each in errors if not each.startswith("hint: ")] == errors[:1]
        assert errors == [] if not line else errors[0].startswith(line.format(**known))
