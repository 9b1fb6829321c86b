"""What santacoder-serve hands on to its router is what that takes, with the defaults it says."""

from __future__ import annotations

from santacoder_router.caller_limits import KNOWN
from santacoder_router.config import parse_arguments
from santacoder_router.overload_options import OverloadConfig
from santacoder_shard import launch
from santacoder_shard.router_options import BOUNDS

VALUES = {"--memory-limit-bytes": "1000000000"}


def test_every_bound_that_serve_takes_reaches_the_router() -> None:
    given = [f"{flag}={VALUES.get(flag, '7')}" for flag in BOUNDS]
    arguments = launch.parse_config(given).router_arguments
    assert set(given) <= set(arguments)
    overload = parse_arguments(["--shards=localhost:1", *arguments]).overload
    assert (overload.queued_request_count, overload.queued_token_count) == (7, 7)
    assert (overload.queue_wait_seconds, overload.stream_stall_seconds) == (7.0, 7.0)
    assert overload.memory_limit_bytes == 1_000_000_000
    for limits in (overload.callers.known, overload.callers.unknown):
        assert (limits.running, limits.queued, limits.queued_tokens) == (7, 7, 7)
        assert (limits.sessions, limits.rate) == (7, 7.0)


def test_nothing_is_handed_on_that_was_not_given() -> None:
    arguments = launch.parse_config([]).router_arguments
    assert not [argument for argument in arguments if argument.partition("=")[0] in BOUNDS]


def test_the_defaults_that_serve_tells_are_the_routers() -> None:
    standing = OverloadConfig()
    defaults: dict[str, float] = {
        "--queue-requests": standing.queued_request_count,
        "--queue-tokens": standing.queued_token_count,
        "--queue-wait-seconds": standing.queue_wait_seconds,
        "--stream-stall-seconds": standing.stream_stall_seconds,
        "--caller-running": KNOWN.running,
        "--caller-queued": KNOWN.queued,
        "--caller-queued-tokens": KNOWN.queued_tokens,
        "--caller-sessions": KNOWN.sessions,
        "--caller-rate": KNOWN.rate,
    }
    assert defaults.keys() == BOUNDS.keys() - {"--memory-limit-bytes"}
    for flag, default in defaults.items():
        assert BOUNDS[flag].endswith(f"({default:.10g})"), flag
