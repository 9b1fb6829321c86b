"""`make bench-router`: what the router itself can do, over a mock shard group that takes no time.

`python benchmarks/router.py [--only streaming|unary|first-token]... [--seconds S] [--json FILE]`.
Router, mock shard and client share the machine's cores, each in a process of its own. Streams and
unary requests are driven and counted by the load tester; bare echoes of one hop and of two, asked
by a client that only counts, show what gRPC takes of it. CPU times are those of whole processes.
Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
import router_clients as clients
import router_load
from figures import Figure, table, write_json
from processes import ServerProcess
from router_load import Users

from santacoder_client.loadtest.meter import IdleSelector

PARTS = ("streaming", "unary", "first-token")
STREAM_CLIENT_COUNT = 256
STREAM_NEW_TOKENS = (256, 768)
UNARY_CLIENT_COUNT = 64
UNARY_NEW_TOKENS = 16
ECHO = "/bare.Echo"
LEAST_TOKENS_PER_SECOND = 40_000
LEAST_REQUESTS_PER_SECOND = 1_200
MOST_GAP_MS = 50
MOST_ADDED_MS = 1.0


@dataclass(frozen=True, slots=True)
class Servers:
    """What is measured, the bare servers beside it, and what measures."""

    router: ServerProcess
    shard: ServerProcess
    front: ServerProcess
    back: ServerProcess
    selector: IdleSelector
    """Of this client's event loop."""

    @property
    def ours(self) -> dict[str, ServerProcess]:
        """Whose CPU time is a request's."""
        return {"router": self.router, "shard": self.shard}


def main() -> None:
    options = _parser().parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="santacoder-bench-") as folder:
        selector = IdleSelector()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            figures = runner.run(_measure(options, folder, selector))
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


async def _measure(
    options: argparse.Namespace, folder: str, selector: IdleSelector
) -> list[Figure]:
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
        servers = Servers(router, shard, front, back, selector)
        if "streaming" in parts:
            figures += await _streaming(servers, options.seconds, options.clients)
        if "unary" in parts:
            figures += await _unary(servers, options.seconds)
            figures += await _bare(servers, options.seconds)
        if "first-token" in parts:
            figures += await _first_token(servers, options.seconds)
    return figures


async def _streaming(servers: Servers, seconds: float, client_count: int) -> list[Figure]:
    users = Users("stream", client_count, *STREAM_NEW_TOKENS)
    found = await _loaded(servers, users, seconds)
    name = f"{client_count} streams"
    gaps = found.summary.figures["itl_chunk"]
    first = found.summary.figures["ttft"].percentiles
    lag = f"the client's loop was {1000 * found.client.lag_p99_seconds:.1f} ms late at p99"
    return [
        Figure(
            name,
            found.token_count / found.seconds,
            "tokens/s",
            at_least=LEAST_TOKENS_PER_SECOND,
            beside=f"aim 100000; {found.finished_count / found.seconds:.0f} requests/s",
        ),
        Figure(f"{name}, gap p99", gaps.percentiles["p99"].value or 0.0, "ms", beside=lag),
        Figure(f"{name}, gap max", gaps.max, "ms", at_most=MOST_GAP_MS),
        Figure(f"{name}, first token p50", first["p50"].value or 0.0, "ms"),
        *_cpu(name, found, found.token_count, "token"),
    ]


async def _unary(servers: Servers, seconds: float) -> list[Figure]:
    users = Users("unary", UNARY_CLIENT_COUNT, UNARY_NEW_TOKENS, UNARY_NEW_TOKENS)
    found = await _loaded(servers, users, seconds)
    name = f"unary, {UNARY_CLIENT_COUNT} clients"
    goal = LEAST_REQUESTS_PER_SECOND
    rate = found.finished_count / found.seconds
    return [
        Figure(name, rate, "requests/s", at_least=goal, beside="aim 2000"),
        *_cpu(name, found, found.finished_count, "request"),
    ]


async def _loaded(servers: Servers, users: Users, seconds: float) -> router_load.Measured:
    address = servers.router.addresses["grpc"]
    return await router_load.measure(address, users, seconds, servers.ours, servers.selector)


async def _bare(servers: Servers, seconds: float) -> list[Figure]:
    """What the same messages cost where nothing is done with them."""
    payloads = clients.unary_payloads(1, UNARY_NEW_TOKENS)
    router, front = servers.router.addresses["grpc"], servers.front.addresses["echo"]
    complete = f"{clients.COMPLETION}/Complete"
    one_hop = {"server": servers.front}
    two_hops = {"front": servers.front, "back": servers.back}
    figures = []
    for name, address, method, weighed in (
        ("the same, client that only counts", router, complete, servers.ours),
        ("bare echo, two hops", front, f"{ECHO}/Forward", two_hops),
        ("bare echo, one hop", front, f"{ECHO}/Echo", one_hop),
    ):
        asked = await clients.ask_together(
            address, method, UNARY_CLIENT_COUNT, payloads, weighed, seconds
        )
        rate = asked.count / asked.seconds
        figures += [Figure(name, rate, "requests/s"), *_cpu(name, asked, asked.count, "request")]
    return figures


async def _first_token(servers: Servers, seconds: float) -> list[Figure]:
    router, front = servers.router.addresses["grpc"], servers.front.addresses["echo"]
    routed, bare = await clients.first_messages(
        (router, f"{clients.COMPLETION}/StreamComplete", clients.token_count_of),
        (front, f"{ECHO}/Relay", len),
        UNARY_NEW_TOKENS,
        seconds,
    )
    return _first_token_figures(routed, bare)


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


def _cpu(
    name: str, window: clients.Asked | router_load.Measured, count: float, unit: str
) -> list[Figure]:
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


if __name__ == "__main__":
    main()
