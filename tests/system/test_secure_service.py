"""A whole service with certificates and tokens, from every way in; and what never shows."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority
from running_service import WAIT_SECONDS, Service, serving
from system.cases import prompt_ids

from santacoder_client import (
    TLS,
    AsyncClient,
    Client,
    PermissionDenied,
    SantaCoderError,
    Unauthenticated,
)

SECRET = "canary-secret-0123456789-0123456789"
OTHER = "canary-other-0123456789-0123456789"


@dataclass(frozen=True)
class Secured:
    """A service, and what a caller needs."""

    service: Service
    ca: Path
    token_file: Path

    def client(self, token: str | None) -> Client:
        return Client(self.service.target, tls=TLS(ca=self.ca), token=token)

    def run(self, module: str, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """A command, with the token where a command may get it from."""
        flags = ("--target", self.service.target, "--tls", "--tls-ca", str(self.ca))
        environment = {name: value for name, value in os.environ.items() if name[:4] != "GRPC"}
        return subprocess.run(
            [sys.executable, "-m", module, *words, *flags],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            env={**environment, "SANTACODER_TOKEN": token},
        )


@pytest.fixture(scope="module")
def secured(
    model_folder: Path, run_folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority(folder)
    own = authority.issue("127.0.0.1", file_name="server")
    tokens = folder / "tokens"
    digests = (hashlib.sha256(secret.encode()).hexdigest() for secret in (SECRET, OTHER))
    tokens.write_text("alice {} complete,tokenize,info\nbob {} tokenize\n".format(*digests))
    tokens.chmod(0o600)
    token_file = folder / "token"
    token_file.write_text(SECRET + "\n")
    flags = (f"--tls-cert={own.certificate}", f"--tls-key={own.key}", f"--token-file={tokens}")
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GRPC"}
    with serving(
        model_folder, run_folders, *flags, "--log-level=debug", environment=environment
    ) as service:
        yield Secured(service, authority.ca, token_file)


def test_the_sdk_completes_with_a_token_and_hears_why_not_without(secured: Secured) -> None:
    prompt = prompt_ids(71, 10)
    with secured.client(SECRET) as client:
        done = client.complete(prompt, max_new_tokens=8, ignore_eos=True)
        pieces = client.stream(prompt, max_new_tokens=8, ignore_eos=True)
        assert [i for piece in pieces for i in piece.token_ids] == done.token_ids
        with client.session() as session:
            assert session.complete(prompt, max_new_tokens=8, ignore_eos=True).text == done.text
        assert client.model().name

    async def ask() -> str:
        tls = TLS(ca=secured.ca)
        async with AsyncClient(secured.service.target, tls=tls, token=SECRET) as asynchronous:
            async with asynchronous.session() as session:
                turn = await session.complete(prompt, max_new_tokens=8, ignore_eos=True)
            whole = await asynchronous.complete(prompt, max_new_tokens=8, ignore_eos=True)
            assert turn.text == whole.text
            return whole.text

    assert asyncio.run(ask()) == done.text
    for token, kind, reason in (
        (None, Unauthenticated, "TOKEN_MISSING"),
        (SECRET[:-1] + "x", Unauthenticated, "TOKEN_INVALID"),
        (OTHER, PermissionDenied, "METHOD_NOT_ALLOWED"),
    ):
        with secured.client(token) as client, pytest.raises(kind) as caught:
            client.complete(prompt)
        with secured.client(token) as client, client.session() as session, pytest.raises(kind):
            session.complete(prompt)
        error: SantaCoderError = caught.value
        assert error.reason == reason and error.request_id
        with secured.client(token) as client:
            client.wait_ready(WAIT_SECONDS)


def test_the_commands_call_with_a_token_of_a_file_or_the_environment(secured: Secured) -> None:
    words = ("complete", "x = ", "--max-new-tokens=8", "--ignore-eos")
    by_file = secured.run("santacoder_client.cli", *words, "--token-file", str(secured.token_file))
    by_environment = secured.run("santacoder_client.cli", *words, token=SECRET)
    assert (by_file.returncode, by_file.stderr) == (0, "")
    assert by_file.stdout == by_environment.stdout != ""
    for token, line in (("", "error: token: missing"), (OTHER, "error: token: no right to this")):
        refused = secured.run("santacoder_client.cli", *words, token=token)
        assert (refused.returncode, refused.stdout) == (1, "")
        first, hint = refused.stderr.splitlines()
        assert first.startswith(line) and hint.startswith("hint: ")


def test_the_load_tester_loads_an_encrypted_service_with_a_token(secured: Secured) -> None:
    words = ("run", "--rate=20", "--duration=1s", "--warm-up=0s", "--cool-down=0s", "--quiet")
    loaded = secured.run("santacoder_client.loadtest", *words, "--new-tokens=4", token=SECRET)
    assert loaded.returncode == 0, loaded.stderr
    refused = secured.run("santacoder_client.loadtest", *words)
    assert refused.returncode == 5
    assert "token: missing" in refused.stderr and "Traceback" not in refused.stderr


def test_strangers_at_the_door_leave_no_line_and_are_gone(secured: Secured) -> None:
    host, port = secured.service.target.split(":")
    for noise in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + b"x" * 600,
        b"PRI",
    ):
        with socket.create_connection((host, int(port)), WAIT_SECONDS) as stranger:
            stranger.sendall(noise)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    with secured.client(SECRET) as client:
        assert client.model().name


# The last: what has been called before has been logged by now.
def test_a_token_shows_nowhere_and_its_callers_name_in_the_log(secured: Secured) -> None:
    service = secured.service
    processes = (service.process.pid, *service.children().values())
    for process in processes:
        assert "canary" not in Path(f"/proc/{process}/cmdline").read_text()
        limits = Path(f"/proc/{process}/limits").read_text().splitlines()
        [core] = [line.split() for line in limits if line.startswith("Max core file size")]
        assert process == service.process.pid or core[4:6] == ["0", "0"]
    assert "canary" not in service.metrics_page()
    said = service.stop()
    assert "canary" not in said and "Traceback" not in said
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert digest not in said and "PRIVATE KEY" not in said
    assert "caller=alice" in said
    # gRPC's own lines name its C++ files.
    assert ".cc:" not in said
    assert "reason=TOKEN_MISSING" in said
