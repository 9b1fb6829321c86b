"""`santacoder-load mock-shard`: a shard group without a model, to test and measure routers."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import selectors
import signal
import socket
from pathlib import Path

from santacoder_client._address import is_loopback
from santacoder_client.loadtest import values
from santacoder_client.loadtest.errors import LoadTestError, UsageError
from santacoder_client.loadtest.mock_shard.group import MockGroup
from santacoder_client.loadtest.mock_shard.options import Failures, MockOptions, StepTimes
from santacoder_client.loadtest.mock_shard.tokenizer_file import (
    TokenizerFile,
    byte_tokenizer,
    read_tokenizer,
)
from santacoder_client.loadtest.mock_shard.truth import TruthLog

MOST_RANKS = 64
MOST_TOKENS = 1 << 20
MOST_PORT_DIGITS = 5
MOST_SOCKET_PATH_BYTES = 103
"""Of `sockaddr_un` on any system, with room for a rank's number."""
DESCRIPTION = """\
Speaks the internal protocol to a router, as a shard group would, but runs no model: any ids come
back, after the times given here. Prints `ready shards=ADDR,ADDR`, for `santacoder-router --shards`.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "mock-shard",
        help="simulate a shard group, at known times",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--listen",
        default="127.0.0.1:0",
        metavar="ADDR",
        help="unix:PATH or HOST:PORT; more ranks get PATH.1 or PORT+1 and so on (%(default)s)",
    )
    add("--tokenizer", metavar="FILE", help="a tokenizer.json (default: an id a byte)")
    add("--truth", metavar="FILE", help="write what really happened, and when, as JSON lines")
    add("--seed", type=values.count(0, 2**32 - 1), default=0, help="of ids, jitter and failures")
    _add_capacity(parser)
    _add_times(parser)
    _add_failures(parser)
    parser.set_defaults(execute=execute)


def _add_capacity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("capacity").add_argument
    for flag, default, most, meaning in (
        ("--ranks", 1, MOST_RANKS, "ranks, all served by this process"),
        ("--slots", 256, 65_536, "sequences at once"),
        ("--context-tokens", 2048, MOST_TOKENS, "longest prompt and answer together"),
        ("--tokens-per-step", 2048, MOST_TOKENS, "tokens that a step may run"),
        ("--steps-per-lease", 16, 1024, "steps of one plan"),
        ("--plans-in-flight", 2, 64, "plans that wait for their answer"),
    ):
        kind = values.count(1, most)
        add(flag, type=kind, default=default, metavar="N", help=f"{meaning} (%(default)s)")
    add(
        "--kv-blocks",
        type=values.count(1, 1 << 24),
        default=0,
        metavar="N",
        help="blocks of 16 tokens (default: enough for every slot)",
    )


def _add_times(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("simulated times").add_argument
    for flag, meaning in (
        ("--step-base", "time of every step"),
        ("--step-per-row", "and for every row that decodes"),
        ("--prefill-per-token", "and for every token of a prompt that is not in the cache"),
    ):
        add(
            flag,
            type=values.duration,
            default=0.0,
            metavar="TIME",
            help=f"{meaning}, such as 5ms or 20us (0)",
        )
    add(
        "--jitter",
        type=values.number(0, 3),
        default=0.0,
        metavar="SIGMA",
        help="spread of steps: sigma of the logarithm of a factor (0)",
    )
    add(
        "--end-every",
        type=values.count(0, 1 << 30),
        default=0,
        metavar="N",
        help="one token in so many ends its text, unless the request ignores it (0: none does)",
    )


def _add_failures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("failures, from the first plan that runs anything").add_argument
    for flag, meaning in (
        ("--die-after", "exit at once, with status 1"),
        ("--hang-after", "finish no step any more"),
        ("--hang-for", "with --hang-after: until so much later (default: for ever)"),
    ):
        add(flag, type=values.duration, default=math.inf, metavar="TIME", help=meaning)
    add(
        "--fail-share",
        type=values.share,
        default=0.0,
        metavar="SHARE",
        help="give up this part of the sequences (0)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    if arguments.hang_for < math.inf and arguments.hang_after == math.inf:
        raise UsageError("--hang-for: hangs never; got no --hang-after; allowed with --hang-after")
    listen = _addresses(arguments.listen, arguments.ranks)
    tokenizer = _tokenizer(arguments.tokenizer)
    truth = _truth(arguments.truth)
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        runner.run(_serve(_options(arguments), tokenizer, truth, listen))
    return 0


def _exact_loop() -> asyncio.AbstractEventLoop:
    """asyncio rounds the waits of its usual loop up to whole milliseconds; a step may be less."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _options(arguments: argparse.Namespace) -> MockOptions:
    return MockOptions(
        rank_count=arguments.ranks,
        slot_count=arguments.slots,
        block_count=arguments.kv_blocks,
        context_token_count=arguments.context_tokens,
        tokens_per_step=arguments.tokens_per_step,
        steps_per_lease=arguments.steps_per_lease,
        plans_in_flight=arguments.plans_in_flight,
        times=StepTimes(
            arguments.step_base,
            arguments.step_per_row,
            arguments.prefill_per_token,
            arguments.jitter,
        ),
        failures=Failures(
            arguments.die_after,
            arguments.hang_after,
            arguments.hang_for,
            arguments.fail_share,
        ),
        end_every=arguments.end_every,
        seed=arguments.seed,
    )


async def _serve(
    options: MockOptions, tokenizer: TokenizerFile, truth: TruthLog | None, listen: tuple[str, ...]
) -> None:
    group = MockGroup(options, tokenizer, truth)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        await group.start(listen)
        print(f"ready shards={','.join(group.addresses)}", flush=True)
        await stopped.wait()
    finally:
        await group.stop()
        for address in listen:
            if address.startswith("unix:"):
                Path(address.removeprefix("unix:")).unlink(missing_ok=True)


def _addresses(listen: str, rank_count: int) -> tuple[str, ...]:
    """A rank an address. Raises UsageError."""
    allowed = "unix:PATH or HOST:PORT of this machine"
    if listen.startswith("unix:"):
        path = listen.removeprefix("unix:")
        _check_socket(path)
        return (listen, *(f"{listen}.{rank}" for rank in range(1, rank_count)))
    host, _, port = listen.rpartition(":")
    is_number = port.isascii() and port.isdigit() and len(port) <= MOST_PORT_DIGITS
    if not host or not is_number or not is_loopback(listen):
        raise UsageError(f"--listen: not an address; got {listen[:64]!r}; allowed {allowed}")
    first = int(port)
    if first + rank_count - 1 > 65_535:
        raise UsageError(f"--listen: port out of range; got {port[:16]}; allowed 0 to 65535")
    return tuple(f"{host}:{first + rank if first else 0}" for rank in range(rank_count))


def _check_socket(path: str) -> None:
    """Raises if the socket cannot be made. gRPC would take a live one over without a word."""
    if not path or not Path(path).parent.is_dir():
        raise UsageError(f"--listen: no such folder; got {path[:64]!r}; allowed unix:PATH")
    size = len(os.fsencode(path))
    if size > MOST_SOCKET_PATH_BYTES:
        allowed = f"at most {MOST_SOCKET_PATH_BYTES}"
        raise UsageError(f"--listen: path too long; got {size} bytes; allowed {allowed}")
    if os.path.lexists(path) and not Path(path).is_socket():
        raise UsageError(f"--listen: exists; got {path!r}; allowed a new path, or an old socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise LoadTestError(f"--listen: taken by another process; got unix:{path}")


def _tokenizer(path: str | None) -> TokenizerFile:
    if path is None:
        return byte_tokenizer()
    try:
        return read_tokenizer(Path(path).read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f"--tokenizer: {error.strerror}; got {path!r}; allowed a tokenizer.json"
        ) from None


def _truth(path: str | None) -> TruthLog | None:
    if path is None:
        return None
    try:
        with open(path, "x"):  # what somebody has kept is not written over
            return TruthLog(Path(path))
    except OSError as error:
        raise UsageError(f"--truth: {error.strerror}; got {path!r}; allowed a new file") from None
