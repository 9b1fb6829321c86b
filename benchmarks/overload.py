"""`make overload`: what a service does with more than it can do (T11, T12, T13).

`python benchmarks/overload.py [--service mock|demo]... [--only T11|T12|T13]... [--seconds S]`.
Router, shards and load generator are processes of their own; what the generator costs is no part of
the result while the machine has cores left (the table's head says how many were ours). Rates are
parts of the saturation measured beside them. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import overload_loads as loads
import processes
from figures import Figure, table, write_json
from overload_loads import Load
from service import Service

from santacoder_client.loadtest.record import Outcome, RequestRecord

TARGETS = ("T11", "T12", "T13")
SATURATION_SECONDS = 8.0
SIDE_SECONDS = 20.0
QUEUE_WAIT_SECONDS = 10.0
MIB = 1 << 20
IDLE = ("santacoder_router_running_requests 0.0", "santacoder_router_queued_requests 0.0")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A service under test, and what is asked of it."""

    name: str
    address: str
    router_pid: int
    metrics_address: str
    slot_count: int
    new_token_count: int
    folder: Path

    def run(self, name: str, seconds: float, *arguments: str) -> list[RequestRecord]:
        """One load, on a service that had nothing to do."""
        loads.settle(self._is_idle, 60.0)
        load = Load(arguments, seconds, self.new_token_count)
        return loads.run(self.address, load, self.folder, f"{self.name}-{name}")

    def saturation(self, name: str) -> float:
        """Requests a second that it can do: four users a slot, who ask again at once."""
        users = f"--concurrency={4 * self.slot_count}"
        records = self.run(name, SATURATION_SECONDS, users)
        begin, end = loads.WARM_UP_SECONDS, loads.WARM_UP_SECONDS + SATURATION_SECONDS
        return loads.tokens_per_second(records, begin, end) / self.new_token_count

    def _is_idle(self) -> bool:
        with urlopen(f"http://{self.metrics_address}/metrics") as page:
            text = page.read().decode()
        return all(line in text for line in IDLE)


def main() -> None:
    options = _parser().parse_args()
    begin, times = time.perf_counter(), os.times()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="santacoder-overload-") as folder:
        for name in options.service or ("mock", "demo"):
            with SERVICES[name](Path(folder)) as service:
                figures += _measure(service, options.only or TARGETS, options.seconds)
    seconds, after = time.perf_counter() - begin, os.times()
    children = after.children_user + after.children_system
    busy = (children - times.children_user - times.children_system) / seconds
    cores = len(os.sched_getaffinity(0))
    facts: dict[str, object] = {
        "command": " ".join(["python", *sys.argv]),
        "cores": cores,
        "seconds": round(seconds),
        "busy_cores": round(busy, 2),
    }
    print(f"\n{facts['command']}  ({cores} cores, {busy:.1f} of them ours, {seconds:.0f} s)\n")
    print(table(figures))
    if options.json is not None:
        write_json(options.json, figures, facts)
    sys.exit(any(figure.is_met is False for figure in figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure a service under overload.")
    add = parser.add_argument
    add("--service", action="append", choices=tuple(SERVICES), help="may be repeated (both)")
    add("--only", action="append", choices=TARGETS, help="may be repeated (all)")
    add("--seconds", type=float, default=60.0, help="length of each overload (default 60)")
    add("--json", type=Path, help="also write the figures here")
    return parser


@contextlib.contextmanager
def _mock(folder: Path) -> Iterator[Loaded]:
    """A router over a mock shard group: 8 slots, steps of 10 ms."""
    flags = ("--slots=8", "--step-base=10ms", "--prefill-per-token=20us", "--steps-per-lease=4")
    with (
        processes.mock_shard(f"--listen=unix:{folder}/shard", *flags) as shard,
        processes.router(shard.addresses["shards"]) as router,
    ):
        addresses = router.addresses
        yield Loaded("mock", addresses["grpc"], router.pid, addresses["metrics"], 8, 32, folder)


@contextlib.contextmanager
def _demo(folder: Path) -> Iterator[Loaded]:
    """The demo checkpoint as a user serves it, but for a core that is left to router and load."""
    thread_count = max(1, len(os.sched_getaffinity(0)) - 1)
    with Service((f"--threads={thread_count}",)) as service:
        router_pid = service.processes()["router"]
        yield Loaded("demo", service.address, router_pid, service.metrics_address, 8, 64, folder)


SERVICES = {"mock": _mock, "demo": _demo}


def _measure(service: Loaded, targets: Sequence[str], seconds: float) -> list[Figure]:
    saturation = service.saturation("before")
    figures = [Figure(f"{service.name}: saturation", saturation, "requests/s")]
    if "T11" in targets:
        figures += _twice(service, saturation, seconds)
    if "T12" in targets:
        figures += _classes(service, saturation, seconds)
    if "T13" in targets:
        figures += _tenfold(service, saturation, seconds)
    return figures


def _twice(service: Loaded, saturation: float, seconds: float) -> list[Figure]:
    """Less than it can do, then twice that, then less again."""
    calm, burst = 0.8 * saturation, 2.0 * saturation
    begin, end = SIDE_SECONDS, SIDE_SECONDS + seconds
    steps = f"{calm:g}@{SIDE_SECONDS:g}s,{burst:g}@{seconds:g}s,{calm:g}@{SIDE_SECONDS:g}s"
    whole = 2 * SIDE_SECONDS + seconds - loads.WARM_UP_SECONDS
    records = service.run("T11", whole, f"--steps={steps}")
    saturation = (saturation + service.saturation("after")) / 2
    goodput = loads.tokens_per_second(records, begin + 1.0, end) / service.new_token_count
    normal = loads.due_between(records, loads.WARM_UP_SECONDS, begin)
    normal_p99 = loads.percentile(loads.first_token_seconds(normal), 0.99)
    name = f"{service.name}: T11 twice as much"
    return [
        Figure(
            f"{name}, goodput",
            goodput / saturation,
            "of saturation",
            at_least=0.95,
            beside=f"{goodput:.3g} of {saturation:.3g} requests/s",
        ),
        *_waits(name, loads.due_between(records, begin, end), normal_p99),
        Figure(f"{name}, admitted and not ended", loads.unended_count(records), "", at_most=0.0),
        Figure(f"{name}, recovery", _recovery(records, end, normal_p99), "s", at_most=2.0),
    ]


def _waits(name: str, records: list[RequestRecord], normal_p99: float) -> list[Figure]:
    """How long it took to serve, and how long to refuse."""
    admitted, refused = loads.first_token_seconds(records), loads.refusal_seconds(records)
    return [
        Figure(
            f"{name}, first token p99",
            loads.percentile(admitted, 0.99),
            "s",
            at_most=2 * normal_p99 + QUEUE_WAIT_SECONDS,
            beside=f"at 0.8: {normal_p99:.3g} s; p50 {loads.percentile(admitted, 0.5):.3g} s",
        ),
        Figure(
            f"{name}, refusal p99",
            1000 * loads.percentile(refused, 0.99),
            "ms",
            at_most=20.0,
            beside=f"p50 {1000 * loads.percentile(refused, 0.5):.3g} ms; {len(refused)} refused"
            f" of {len(records)}",
        ),
    ]


def _recovery(records: list[RequestRecord], end: float, normal_p99: float) -> float:
    """From when on no more than a hundredth of the requests are slow, refused or failed."""
    after = loads.due_between(records, end, end + SIDE_SECONDS)
    slow = [each.scheduled_at - end for each in after if not loads.is_quick(each, 2 * normal_p99)]
    slow = sorted(slow)[: max(0, len(slow) - len(after) // 100)]
    return max(slow, default=0.0)


def _classes(service: Loaded, saturation: float, seconds: float) -> list[Figure]:
    """A high class at half of what it can do, beside a flood of a low one."""
    high = Load((f"--rate={0.5 * saturation:g}",), seconds, service.new_token_count, "high")
    low = Load((f"--rate={12 * saturation:g}",), seconds, service.new_token_count, "low")
    both = {
        each.priority: loads.start(service.address, each, service.folder, each.priority)
        for each in (high, low)
    }
    found = {name: loads.finish(each, service.folder, name) for name, each in both.items()}
    counts = {name: _ok_count(records) for name, records in found.items()}
    name = f"{service.name}: T12 high class beside a low flood"
    first = loads.first_token_seconds(found["high"])
    return [
        Figure(
            f"{name}, success",
            100 * counts["high"] / len(found["high"]),
            "%",
            at_least=99.9,
            beside=f"{counts['high']} of {len(found['high'])}; first token p99 "
            f"{loads.percentile(first, 0.99):.3g} s{loads.why(found['high'])}",
        ),
        Figure(
            f"{name}, low ones served",
            counts["low"] / seconds,
            "requests/s",
            beside=f"of {len(found['low'])} asked",
        ),
    ]


def _tenfold(service: Loaded, saturation: float, seconds: float) -> list[Figure]:
    """Ten times what it can do."""
    memory = loads.PeakMemory(service.router_pid)
    try:
        records = service.run("T13", seconds, f"--rate={10 * saturation:g}")
    finally:
        grown_bytes = memory.end()
    begin, end = loads.WARM_UP_SECONDS, loads.WARM_UP_SECONDS + seconds
    goodput = loads.tokens_per_second(records, begin, end) / service.new_token_count
    refused = loads.refusal_seconds(records)
    name = f"{service.name}: T13 ten times as much"
    return [
        Figure(
            f"{name}, goodput",
            goodput / saturation,
            "of saturation",
            at_least=0.85,
            beside=f"{goodput:.3g} requests/s; {len(refused)} refused of {len(records)}, p50 "
            f"{1000 * loads.percentile(refused, 0.5):.3g} ms",
        ),
        Figure(f"{name}, router's memory", grown_bytes / MIB, "MiB more", at_most=64.0),
        Figure(f"{name}, admitted and not ended", loads.unended_count(records), "", at_most=0.0),
    ]


def _ok_count(records: Sequence[RequestRecord]) -> int:
    return sum(record.outcome is Outcome.OK for record in records)


if __name__ == "__main__":
    main()
