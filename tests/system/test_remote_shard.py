"""A rank at HOST:PORT, as for another machine: it answers the router's certificate and no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from certificates import ROUTER, Authority, Pair
from running_service import WAIT_SECONDS
from system.cases import prompt_ids

from santacoder.shard.v1 import shard_pb2
from santacoder_client import Client

SHARD = "shard-{}.santacoder.internal"
DESCRIBE = "/santacoder.shard.v1.ShardService/Describe"


@contextmanager
def started(*words: str) -> Iterator[dict[str, str]]:
    """A module's process, and the facts of its ready line."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), line
            yield dict(part.split("=", 1) for part in line.split()[1:])
        finally:
            process.kill()


@dataclass(frozen=True)
class RemoteShard:
    """Where a rank listens, and its CA."""

    address: str
    authority: Authority

    def describe(self, name: str, own: Pair | None, ca: Path | None = None) -> grpc.StatusCode:
        """How a call ends whose caller wants `name` and is `own`."""
        credentials = grpc.ssl_channel_credentials(
            (ca or self.authority.ca).read_bytes(),
            own.key.read_bytes() if own else None,
            own.certificate.read_bytes() if own else None,
        )
        options = (
            ("grpc.ssl_target_name_override", name),
            ("grpc.use_local_subchannel_pool", 1),
        )
        with grpc.secure_channel(self.address, credentials, options=options) as channel:
            return status_of(channel)


def status_of(channel: grpc.Channel) -> grpc.StatusCode:
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(DESCRIBE)
    try:
        shard_pb2.DescribeResponse.FromString(ask(b"", timeout=WAIT_SECONDS))
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def tls_flags(prefix: str, own: Pair, ca_flag: str, ca: Path) -> list[str]:
    return [f"{prefix}-cert={own.certificate}", f"{prefix}-key={own.key}", f"{ca_flag}={ca}"]


@pytest.fixture
def remote(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteShard]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    own = authority.issue(SHARD.format(0))
    words = ["santacoder_shard", "--rank=0", f"--model={model_folder}", "--listen=127.0.0.1:0"]
    flags = tls_flags("--tls", own, "--tls-client-ca", authority.ca)
    with started(*words, *flags, "--threads=1") as facts:
        yield RemoteShard(facts["listen"], authority)


@pytest.mark.fault("N13")
def test_only_the_router_is_answered_and_only_by_the_rank_it_means(
    remote: RemoteShard, tmp_path: Path
) -> None:
    authority = remote.authority
    router, client = authority.issue(ROUTER), authority.issue("client.test")
    other = Authority(tmp_path, "other")
    unreachable = grpc.StatusCode.UNAVAILABLE
    rank_0 = SHARD.format(0)
    assert remote.describe(rank_0, router) is grpc.StatusCode.OK
    assert remote.describe(rank_0, client) is grpc.StatusCode.PERMISSION_DENIED
    assert remote.describe(rank_0, None) is unreachable
    assert remote.describe(rank_0, other.issue(ROUTER), authority.ca) is unreachable
    assert remote.describe(SHARD.format(1), router) is unreachable
    assert remote.describe(rank_0, router, other.ca) is unreachable
    with grpc.insecure_channel(remote.address) as channel:
        assert status_of(channel) is unreachable


def test_a_router_serves_with_a_rank_over_tls(remote: RemoteShard) -> None:
    own = remote.authority.issue(ROUTER)
    flags = tls_flags("--shard-tls", own, "--shard-tls-ca", remote.authority.ca)
    with (
        started("santacoder_router", f"--shards={remote.address}", "--port=0", *flags) as facts,
        Client(facts["grpc"]) as client,
    ):
        done = client.complete(prompt_ids(72, 10), max_new_tokens=8, ignore_eos=True)
        assert len(done.token_ids) == 8


def test_the_load_tester_takes_the_router_s_place_with_its_certificate(remote: RemoteShard) -> None:
    own = remote.authority.issue(ROUTER)
    flags = tls_flags("--tls", own, "--tls-ca", remote.authority.ca)
    words = ["run", f"--target=shard:{remote.address}", "--tls", *flags, "--rate=20", "--quiet"]
    times = ["--duration=1s", "--warm-up=0s", "--cool-down=0s", "--new-tokens=4"]
    ended = subprocess.run(
        [sys.executable, "-m", "santacoder_client.loadtest", *words, *times],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
