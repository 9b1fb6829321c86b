"""Options that would open a door are refused before anything listens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from router.running_router import make_log, until

from santacoder_router import doors
from santacoder_router.certificates import CertificateFiles
from santacoder_router.config import parse_arguments
from santacoder_router.metrics import Metrics
from santacoder_router.security_options import SecurityConfig

LOCAL = ["--shards", "unix:/a"]
TLS = ["--tls-cert=c", "--tls-key=k"]
SHARD_TLS = ["--shard-tls-cert=c", "--shard-tls-key=k", "--shard-tls-ca=a"]


@pytest.mark.parametrize(
    "arguments",
    [
        LOCAL,
        [*LOCAL, "--host=::1", "--token-file=t"],
        [*LOCAL, "--host=0.0.0.0", *TLS, "--token-file=t"],
        [*LOCAL, "--host=gpu-host", *TLS, "--tls-client-ca=a"],
        ["--shards", "gpu-host:1", *SHARD_TLS],
        ["--shards", "127.0.0.1:1,[::1]:2"],
    ],
)
def test_what_is_safe_is_allowed(arguments: list[str]) -> None:
    assert not parse_arguments(arguments).security.is_open


@pytest.mark.fault("G3")
def test_an_open_door_must_be_asked_for_and_is_known_to_be_open() -> None:
    config = parse_arguments([*LOCAL, "--host=0.0.0.0", "--insecure-allow-remote"])
    assert config.security.is_open
    closed = parse_arguments([*LOCAL, "--insecure-allow-remote"])
    assert not closed.security.is_open


def test_certificates_are_paths() -> None:
    security = parse_arguments([*LOCAL, *TLS, "--tls-client-ca=a"]).security
    assert security.tls == CertificateFiles(Path("c"), Path("k"), Path("a"))


Lines = list[dict[str, Any]]


async def reminded(config: SecurityConfig, metrics: Metrics) -> Lines:
    """What is said, again and again, until there are a few lines of it."""
    lines: Lines = []
    reminder = asyncio.create_task(doors.remind(config, metrics, make_log(lines)))
    await until(lambda: len(lines) > 2)
    reminder.cancel()
    return lines


@pytest.mark.fault("G3")
def test_that_it_is_open_is_said_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "REMINDER_SECONDS", 0.0)
    lines = asyncio.run(reminded(SecurityConfig(is_open=True), Metrics()))
    assert {(line["level"], line["event"][:14]) for line in lines} == {
        ("warning", "other machines")
    }


@pytest.mark.fault("X10")
@pytest.mark.parametrize(("days", "is_told"), [(-1, True), (6, True), (8, False)])
def test_a_certificate_s_end_is_said_seven_days_before(
    monkeypatch: pytest.MonkeyPatch, days: int, is_told: bool
) -> None:
    monkeypatch.setattr(doors, "REMINDER_SECONDS", 0.0)
    metrics = Metrics()
    metrics.note_expiry(datetime.now(UTC) + timedelta(days=days))
    # An open door is always told, so that there is something to wait for.
    lines = asyncio.run(reminded(SecurityConfig(is_open=True), metrics))
    assert any("certificate" in line["event"] for line in lines) is is_told


@pytest.mark.fault("G3")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*LOCAL, "--host=0.0.0.0"], "--host: open to other machines; got 0.0.0.0"),
        ([*LOCAL, "--host=0.0.0.0", *TLS], "--host: open to other machines"),
        ([*LOCAL, "--host=0.0.0.0", "--token-file=t"], "--host: open to other machines"),
        ([*LOCAL, "--tls-cert=c"], "--tls-key: missing; allowed --tls-cert, --tls-key together"),
        ([*LOCAL, "--tls-client-ca=a"], "--tls-cert: missing"),
        ([*LOCAL, *SHARD_TLS], "--shard-tls-cert: for HOST:PORT; got the shard unix:/a"),
        (["--shards", "gpu-host:1"], "--shards: on another machine; got gpu-host:1"),
        (["--shards", "10.0.0.1:1", "--insecure-allow-remote"], "--shards: on another machine"),
        (["--shards", "h:1", *SHARD_TLS[:2]], "--shard-tls-ca: missing"),
    ],
)
def test_what_opens_a_door_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_arguments(arguments)
    assert exit_info.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {line}") and hint.startswith("hint: ")
