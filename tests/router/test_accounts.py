"""Limits of callers as they are written, and who a caller is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import structlog

from santacoder_router.accounts import MOST_ACCOUNTS, Accounts
from santacoder_router.caller import current_caller, set_caller
from santacoder_router.caller_limits import BOUNDS, KNOWN, UNKNOWN, StandingLimits
from santacoder_router.config import parse_arguments
from santacoder_router.core.plan import Priority
from santacoder_router.reloading import UnusableFile
from santacoder_router.tokens import read_tokens

DIGEST = hashlib.sha256(b"secret").hexdigest()
SHARDS = ["--shards", "localhost:1"]


def limits_of(folder: Path, words: str) -> dict[str, object]:
    path = folder / "tokens"
    path.write_text(f"alice {DIGEST} complete {words}\n")
    path.chmod(0o600)
    token = read_tokens(path).find(b"secret")
    assert token is not None
    return dict(token.limits)


def test_a_tokens_line_says_its_callers_limits_after_all_else(tmp_path: Path) -> None:
    assert limits_of(tmp_path, "") == limits_of(tmp_path, "2999-01-01") == {}
    words = "2999-01-01 running=1 queued=2 queued-tokens=3 sessions=4 rate=0.5 weight=2"
    assert limits_of(tmp_path, f"{words} priority=high") == {
        "running": 1,
        "queued": 2,
        "queued_tokens": 3,
        "sessions": 4,
        "rate": 0.5,
        "weight": 2.0,
        "priority": Priority.HIGH,
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("running=0", "line 1: running: out of range; allowed 1..1024"),
        ("running=-1", "line 1: running: out of range"),
        ("running=1.5", "line 1: running: not a number"),
        ("rate=0", "line 1: rate: out of range; allowed 0.01..10000"),
        ("rate=nan", "line 1: rate: out of range"),
        ("rate=inf", "line 1: rate: out of range"),
        ("weight=1e9", "line 1: weight: out of range; allowed 0.01..100"),
        ("priority=urgent", "line 1: priority: not a priority; allowed low, normal, high"),
        ("speed=9", "line 1: no such limit; allowed running, queued, queued-tokens, sessions,"),
        ("rate=9 rate=9", "line 1: rate: is there twice"),
        ("rate=9 2999-01-01", "line 1: got 4 words; allowed NAME SHA256"),
        ("queued=", "line 1: queued: not a number"),
    ],
)
def test_a_limit_that_cannot_be_is_one_line(tmp_path: Path, words: str, line: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        limits_of(tmp_path, words)
    assert str(caught.value).startswith(f"--token-file: {line}")


def test_no_bound_is_open_and_none_begins_at_zero() -> None:
    for name, (kind, least, most, _) in BOUNDS.items():
        for limits in (KNOWN, UNKNOWN):
            assert 0 < least <= kind(getattr(limits, name)) <= most < float("inf"), name


def test_options_bound_known_callers_and_connections_alike() -> None:
    given = parse_arguments([*SHARDS, "--caller-running", "3", "--caller-rate", "2.5"])
    for limits, standing in (
        (given.overload.callers.known, KNOWN),
        (given.overload.callers.unknown, UNKNOWN),
    ):
        assert (limits.running, limits.rate) == (3, 2.5)
        assert (limits.queued, limits.sessions) == (standing.queued, standing.sessions)


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--caller-running", "0", "1..1024"),
        ("--caller-queued", "65537", "1..65536"),
        ("--caller-queued-tokens", "0", "1..16777216"),
        ("--caller-sessions", "-1", "1..1024"),
        ("--caller-rate", "0", "0.01..10000"),
        ("--caller-rate", "nan", "0.01..10000"),
        ("--queue-requests", "0", "1..65536"),
        ("--queue-tokens", "1e9", "1..16777216"),
        ("--queue-wait-seconds", "0", "0.01..600 s"),
        ("--stream-stall-seconds", "0", "0.1..3600 s"),
        ("--memory-limit-bytes", "0", "67108864..1125899906842624"),
    ],
)
def test_zero_is_never_unlimited(
    flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_arguments([*SHARDS, flag, value])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith((f"error: argument {flag}: ", f"error: {flag}: "))
    assert f"got '{value}'; allowed {allowed}\n" in error


def test_connections_come_and_go_and_so_many_are_remembered() -> None:
    accounts = Accounts(StandingLimits(), False, lambda: 0.0)
    first = accounts.of("peer 0", lambda: None)
    assert accounts.of("peer 0", lambda: None) is first
    for number in range(1, MOST_ACCOUNTS + 10):
        accounts.of(f"peer {number}", lambda: None)
    assert len(accounts._connections) == MOST_ACCOUNTS
    assert accounts.of("peer 0", lambda: None) is not first


def test_a_certificates_first_name_is_a_caller_where_certificates_are_asked_for() -> None:
    names = [b"editor.example", b"other.example"]
    with structlog.contextvars.bound_contextvars(caller=""):
        anonymous = Accounts(StandingLimits(), False, lambda: 0.0).of("peer", lambda: names)
        assert (anonymous.name, current_caller()) == ("", "")
        known = Accounts(StandingLimits(), True, lambda: 0.0).of("peer", lambda: names)
        assert (known.name, current_caller()) == ("editor.example", "editor.example")
        assert known.limits == KNOWN
        # A token says it better.
        set_caller("alice")
        assert Accounts(StandingLimits(), True, lambda: 0.0).of("p", lambda: names).name == "alice"
