"""Files change while a router serves, and are wrong: the old ones stay, and it is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from certificates import Authority
from router.running_router import make_log, running_router
from router.test_guarded_router import line, write_tokens

from santacoder_client import AsyncClient
from santacoder_router.certificates import CertificateFiles, shard_credentials
from santacoder_router.metrics import Metrics
from santacoder_router.security_options import SecurityConfig

SECRET = "correct-horse-battery-staple-0123456789"
FAILURES = "santacoder_router_reload_failures_total"


@pytest.mark.fault("X9")
@pytest.mark.parametrize("content", ["", "no tokens", "alice 12 complete", "\x00\xff"])
def test_a_token_file_that_became_wrong_changes_nothing_and_is_counted(
    tmp_path: Path, content: str
) -> None:
    async def scenario() -> None:
        path = tmp_path / "tokens"
        write_tokens(path, line("alice", "complete,tokenize,info"))
        security = SecurityConfig(token_file=path)
        async with running_router(tmp_path, security=security) as running:
            address = running.router.address
            async with AsyncClient(address, token=SECRET) as client:
                before = await client.complete("x", max_new_tokens=4)
                write_tokens(path, content)
                for _ in range(3):
                    assert (await client.complete("x", max_new_tokens=4)).choices == before.choices
                metrics = running.router.metrics.registry
                assert metrics.get_sample_value(FAILURES) == 1
                assert any("cannot be used" in entry["event"] for entry in running.log)
                write_tokens(path, line("alice", "tokenize"))
                assert await client.tokenize("x")
                assert metrics.get_sample_value(FAILURES) == 1

    asyncio.run(scenario())


@pytest.mark.fault("X10")
@pytest.mark.parametrize("harm", ["gone", "open to all", "another's"])
def test_a_key_that_became_unusable_changes_nothing_and_is_counted(
    tmp_path: Path, harm: str
) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("router.santacoder.internal")
    files = CertificateFiles(own.certificate, own.key, authority.ca)
    metrics = Metrics()
    credentials = shard_credentials(files, make_log([]), metrics.reload_failures.inc)
    before = credentials()
    match harm:
        case "gone":
            own.key.unlink()
        case "open to all":
            own.key.write_bytes(own.key.read_bytes() + b"\n")
            own.key.chmod(0o644)
        case _:
            own.key.write_bytes(authority.issue("other.test").key.read_bytes())
    assert credentials() is before and credentials() is before
    assert metrics.registry.get_sample_value(FAILURES) == 1
