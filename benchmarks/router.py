"""`make bench-router`: what the router itself can do, over a mock shard group that takes no time.

`python benchmarks/router.py [--only streaming|unary|first-token]... [--seconds S] [--json FILE]`.
Router, mock shard and client share the machine's cores, each in a process of its own. CPU times
are those of whole processes, so gRPC's part is in them; a bare echo beside them shows how much.
Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import processes
import router_clients as clients
from figures import Figure, table, write_json
from processes import ServerProcess

from santacoder.inference.v1 import inference_pb2 as pb

PARTS = ("streaming", "unary", "first-token")
STREAM_CLIENT_COUNT = 256
STREAM_NEW_TOKENS = 512
UNARY_CLIENT_COUNT = 64
UNARY_NEW_TOKENS = 16
WARM_UP_SECONDS = 2.0
IDLE_SECONDS = 0.003
CALL_SECONDS = 30.0
ECHO = "/bare.Echo"
LEAST_TOKENS_PER_SECOND = 40_000
LEAST_REQUESTS_PER_SECOND = 1_200
MOST_GAP_MS = 50
MOST_ADDED_MS = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured: from when to when, and each process's CPU seconds in between."""

    begin: float
    end: float
    cpu_seconds: Mapping[str, float]
    client_lag_seconds: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Servers:
    """What is measured, and the bare servers beside it."""

    router: ServerProcess
    shard: ServerProcess
    front: ServerProcess


def main() -> None:
    options = _parser().parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="santacoder-bench-") as folder:
        figures = asyncio.run(_measure(options, folder))
    facts: dict[str, object] = {
        "command": " ".join(["python", *sys.argv]),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(time.perf_counter() - begin),
    }
    print(f"\n{facts['command']}  ({facts['cores']} cores, {facts['seconds']} s)\n")
    print(table(figures))
    if options.json is not None:
        write_json(options.json, figures, facts)
    sys.exit(any(figure.is_met is False for figure in figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the router over a mock shard group.")
    add = parser.add_argument
    add("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    add("--seconds", type=float, default=8.0, help="length of each measurement (default 8)")
    add("--clients", type=int, default=STREAM_CLIENT_COUNT, help="streams at once (default 256)")
    add("--steps-per-lease", type=int, default=16, help="of the mock shard (default 16)")
    add("--ranks", type=int, default=1, help="of the mock shard (default 1)")
    add("--json", type=Path, help="also write the figures here")
    return parser


async def _measure(options: argparse.Namespace, folder: str) -> list[Figure]:
    parts = options.only or PARTS
    shard_flags = (
        f"--listen=unix:{folder}/shard",
        f"--steps-per-lease={options.steps_per_lease}",
        f"--ranks={options.ranks}",
    )
    figures: list[Figure] = []
    with (
        processes.mock_shard(*shard_flags) as shard,
        processes.router(shard.addresses["shards"]) as router,
        processes.echo(f"--listen=unix:{folder}/back") as back,
        processes.echo("--front", f"--to={back.addresses['echo']}") as front,
    ):
        servers = Servers(router, shard, front)
        if "streaming" in parts:
            figures += await _streaming(servers, options.seconds, options.clients)
        if "unary" in parts:
            figures += await _unary(servers, options.seconds)
        if "first-token" in parts:
            figures += await _first_token(servers, options.seconds)
    return figures


async def _streaming(servers: Servers, seconds: float, client_count: int) -> list[Figure]:
    channels = await clients.channels(servers.router.addresses["grpc"], client_count)
    load = clients.StreamedLoad()
    tasks = [
        clients.stream_for_ever(channels[place % len(channels)], load, place, STREAM_NEW_TOKENS)
        for place in range(client_count)
    ]
    window = await _watch(tasks, {"router": servers.router, "shard": servers.shard}, seconds)
    await _close(channels)
    token_count, message_count, gaps = load.pieces(window.begin, window.end)
    if len(gaps) < 2:
        raise RuntimeError(
            f"{client_count} streams brought {message_count} pieces; see the log above"
        )
    name = f"{client_count} streams"
    beside = f"{token_count / max(1, message_count):.1f} tokens a piece; aim 100000"
    lag = f"the client itself woke {1000 * window.client_lag_seconds:.1f} ms late at worst"
    gap_p99 = statistics.quantiles(gaps, n=100)[98]
    rate = token_count / window.seconds
    return [
        Figure(name, rate, "tokens/s", at_least=LEAST_TOKENS_PER_SECOND, beside=beside),
        Figure(f"{name}, gap p99", 1000 * gap_p99, "ms"),
        Figure(f"{name}, gap max", 1000 * max(gaps), "ms", at_most=MOST_GAP_MS, beside=lag),
        *_cpu(name, window, token_count, "token"),
    ]


async def _unary(servers: Servers, seconds: float) -> list[Figure]:
    ours = {"router": servers.router, "shard": servers.shard}
    payloads = clients.unary_payloads(1, UNARY_NEW_TOKENS)
    complete = f"{clients.COMPLETION}/Complete"
    rate, window, count = await _asked(
        servers.router.addresses["grpc"], complete, payloads, ours, seconds
    )
    echoed, bare, echo_count = await _asked(
        servers.front.addresses["echo"],
        f"{ECHO}/Echo",
        payloads,
        {"server": servers.front},
        seconds,
    )
    name = f"unary, {UNARY_CLIENT_COUNT} clients"
    goal = LEAST_REQUESTS_PER_SECOND
    return [
        Figure(
            name, rate, "requests/s", at_least=goal, beside=f"{rate / echoed:.0%} of bare; aim 2000"
        ),
        *_cpu(name, window, count, "request"),
        Figure("bare echo", echoed, "requests/s", beside="grpc.aio alone, one hop"),
        *_cpu("bare echo", bare, echo_count, "request"),
    ]


async def _asked(
    address: str,
    method: str,
    payloads: Sequence[bytes],
    servers: Mapping[str, ServerProcess],
    seconds: float,
) -> tuple[float, Window, int]:
    """Requests a second, the window, and the number of requests in it."""
    channels = await clients.channels(address, UNARY_CLIENT_COUNT)
    ends: list[float] = []
    asks: list[clients.Ask] = [channel.unary_unary(method) for channel in channels]
    tasks = [
        clients.ask_for_ever(asks[place % len(asks)], payloads, ends)
        for place in range(UNARY_CLIENT_COUNT)
    ]
    window = await _watch(tasks, servers, seconds)
    await _close(channels)
    count = sum(window.begin <= end < window.end for end in ends)
    return count / window.seconds, window, count


async def _first_token(servers: Servers, seconds: float) -> list[Figure]:
    """One request at a time, in turn with the bare servers, so that both see the same machine."""
    [routed] = await clients.channels(servers.router.addresses["grpc"], 1)
    [bare] = await clients.channels(servers.front.addresses["echo"], 1)
    complete: clients.Start = routed.unary_stream(f"{clients.COMPLETION}/StreamComplete")
    relay: clients.Start = bare.unary_stream(f"{ECHO}/Relay")
    draw = random.Random(3)
    ours: list[float] = []
    theirs: list[float] = []
    until = time.perf_counter() + WARM_UP_SECONDS + seconds
    warm_at = time.perf_counter() + WARM_UP_SECONDS
    while (now := time.perf_counter()) < until:
        completion = clients.request(draw, UNARY_NEW_TOKENS, spread=False)
        payload = pb.StreamCompleteRequest(completion=completion).SerializeToString()
        await asyncio.sleep(IDLE_SECONDS)
        first = await _first_message(complete, payload, clients.token_count_of)
        await asyncio.sleep(IDLE_SECONDS)
        echoed = await _first_message(relay, payload, len)
        if now >= warm_at:
            ours.append(1000 * first)
            theirs.append(1000 * echoed)
    await _close([routed, bare])
    return _first_token_figures(ours, theirs)


async def _first_message(
    start: clients.Start,
    payload: bytes,
    counts: Callable[[bytes], int],
) -> float:
    """Seconds to the first message that counts; the stream is then read to its end."""
    begin = time.perf_counter()
    first = 0.0
    call = start(payload, timeout=CALL_SECONDS)
    while isinstance(raw := await call.read(), bytes):
        if not first and counts(raw):
            first = time.perf_counter() - begin
    return first


def _first_token_figures(ours: Sequence[float], theirs: Sequence[float]) -> list[Figure]:
    p50, p99 = statistics.median(ours), statistics.quantiles(ours, n=100)[98]
    bare_p50, bare_p99 = statistics.median(theirs), statistics.quantiles(theirs, n=100)[98]
    count = f"{len(ours)} in turn"
    return [
        Figure("first token, p50", p50, "ms", beside=f"bare two hops {bare_p50:.3g} ms; {count}"),
        Figure("first token, p99", p99, "ms", beside=f"bare two hops {bare_p99:.3g} ms"),
        Figure("added, p50", p50 - bare_p50, "ms", at_most=MOST_ADDED_MS, beside="aim 0.4"),
        Figure("added, p99", p99 - bare_p99, "ms"),
    ]


async def _watch(
    tasks: Sequence[Coroutine[Any, Any, None]],
    servers: Mapping[str, ServerProcess],
    seconds: float,
) -> Window:
    """Runs clients; what they do is measured after the warm-up. Raises what a client raised."""
    lag = clients.Lag()
    running = [asyncio.create_task(task) for task in tasks]
    watching = asyncio.create_task(lag.watch())
    try:
        await _wait(running, WARM_UP_SECONDS)
        lag.worst_seconds = 0.0
        begin, before = time.perf_counter(), _cpu_seconds(servers)
        await _wait(running, seconds)
        end, after = time.perf_counter(), _cpu_seconds(servers)
    finally:
        for task in (watching, *running):
            task.cancel()
        await asyncio.gather(watching, *running, return_exceptions=True)
    spent = {name: after[name] - before[name] for name in after}
    return Window(begin, end, spent, lag.worst_seconds)


async def _wait(running: Sequence[asyncio.Task[None]], seconds: float) -> None:
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _cpu_seconds(servers: Mapping[str, ServerProcess]) -> dict[str, float]:
    spent = {name: server.cpu_seconds() for name, server in servers.items()}
    return {**spent, "client": processes.cpu_seconds(os.getpid())}


def _cpu(name: str, window: Window, count: int, unit: str) -> list[Figure]:
    """Microseconds of CPU for each of `count`, a process a line."""
    return [
        Figure(
            f"{name}, CPU in {process}",
            1e6 * spent / max(1, count),
            f"us/{unit}",
            beside=f"{spent / window.seconds:.0%} of a core",
        )
        for process, spent in window.cpu_seconds.items()
    ]


async def _close(channels: Sequence[grpc.aio.Channel]) -> None:
    closing: list[Awaitable[None]] = [channel.close() for channel in channels]
    await asyncio.gather(*closing)


if __name__ == "__main__":
    main()
