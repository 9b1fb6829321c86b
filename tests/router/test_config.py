"""Arguments become frozen settings, or one line and exit code 2."""

from __future__ import annotations

import dataclasses

import pytest

from santacoder_router.config import parse_arguments


def test_defaults_listen_on_loopback() -> None:
    config = parse_arguments(["--shards", "unix:/a,localhost:1"])
    assert config.shard_addresses == ("unix:/a", "localhost:1")
    assert (config.host, config.port, config.metrics_port) == ("127.0.0.1", 50051, 0)
    assert (config.drain_seconds, config.recovery_seconds) == (30.0, 60.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "HOST", "SANTACODER_PORT", "SANTACODER_ROUTER_PORT"):
        monkeypatch.setenv(name, "9")
    assert parse_arguments(["--shards", "localhost:1"]).port == 50051


@pytest.mark.fault("G1")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--shards"),
        (["--shards", ""], "--shards"),
        (["--shards", "localhost:1,"], "--shards"),
        (["--shards", "localhost:1,localhost:1"], "--shards"),
        (["--shards", "localhost:1", "--port", "70000"], "70000"),
        (["--shards", "localhost:1", "--port", "-1"], "'-1'"),
        (["--shards", "localhost:1", "--port", "abc"], "abc"),
        (["--shards", "localhost:1", "--drain-seconds", "nan"], "nan"),
        (["--shards", "localhost:1", "--drain-seconds", "-1"], "--drain-seconds"),
        (["--shards", "localhost:1", "--log-level", "loud"], "--log-level"),
        (["--shards", "localhost:1", "--drain", "1"], "--drain"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_arguments(arguments)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ") and word in lines[0]
    assert lines[1].startswith("hint: ")
