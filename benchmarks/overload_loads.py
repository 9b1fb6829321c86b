"""Loads of `santacoder-load` in processes of their own, and what came back of every request."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.writers.requests import read_requests

WARM_UP_SECONDS = 2.0
RSS_LOOK_SECONDS = 0.1
# What a request that was in the queue is told; others are refused when they come.
WAITED = ("queue: no room came", "queue: full; its place")


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the load tester: when requests are due, and what they ask for."""

    arguments: Sequence[str]
    seconds: float
    new_token_count: int
    priority: str = "normal"


def start(address: str, load: Load, folder: Path, name: str) -> subprocess.Popen[str]:
    """Begins a load; its requests will be in `folder`."""
    command = [
        *(sys.executable, "-m", "santacoder_client.loadtest", "run"),
        *(f"--target={address}", *load.arguments, f"--priority={load.priority}"),
        *(f"--duration={load.seconds:g}s", f"--warm-up={WARM_UP_SECONDS:g}s", "--cool-down=0s"),
        # Several connections, as one has at most 256 streams and keeps the rest waiting.
        *("--channels=8", "--grace=20s"),
        *("--prompt-tokens=32", f"--new-tokens={load.new_token_count}"),
        *(f"--requests-output={folder / name}.jsonl", "--quiet"),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], folder: Path, name: str) -> list[RequestRecord]:
    """Its requests, when all are over. Raises RuntimeError if there are none."""
    output, _ = process.communicate()
    path = folder / f"{name}.jsonl"
    if not path.exists():
        raise RuntimeError(f"the load {name} has no result: {output}")
    return list(read_requests(path))


def run(address: str, load: Load, folder: Path, name: str) -> list[RequestRecord]:
    """One load by itself."""
    return finish(start(address, load, folder, name), folder, name)


def tokens_per_second(records: Iterable[RequestRecord], begin: float, end: float) -> float:
    """Goodput: tokens of whole answers that came between two moments of the run."""
    count = sum(
        chunk.token_count
        for record in records
        if record.outcome is Outcome.OK
        for chunk in record.chunks
        if begin <= chunk.at_seconds < end
    )
    return count / (end - begin)


def due_between(records: Iterable[RequestRecord], begin: float, end: float) -> list[RequestRecord]:
    """Requests that were due between two moments of the run."""
    return [record for record in records if begin <= record.scheduled_at < end]


def first_token_seconds(records: Iterable[RequestRecord]) -> list[float]:
    """Of those that got one: how long after they were sent."""
    return sorted(
        record.first_token_at - record.dispatched_at
        for record in records
        if record.first_token_at is not None and record.dispatched_at is not None
    )


def refusal_seconds(records: Iterable[RequestRecord]) -> list[float]:
    """Of those that were refused when they came: how long it took to tell them."""
    return sorted(
        record.finished_at - record.dispatched_at
        for record in records
        if record.outcome is Outcome.FAILED
        and record.finished_at is not None
        and record.dispatched_at is not None
        and not record.message.startswith(WAITED)
    )


def is_quick(record: RequestRecord, most_seconds: float) -> bool:
    """Whether a request was answered, and its first token came in time."""
    [seconds] = first_token_seconds([record]) or [most_seconds + 1.0]
    return record.outcome is Outcome.OK and seconds <= most_seconds


def unended_count(records: Iterable[RequestRecord]) -> int:
    """Requests that were accepted and did not come to a whole answer."""
    return sum(
        record.accepted_at is not None and record.outcome is not Outcome.OK for record in records
    )


def why(records: Iterable[RequestRecord]) -> str:
    """The reasons of those that failed, commonest first."""
    reasons = Counter(
        record.reason or record.status for record in records if record.outcome is not Outcome.OK
    )
    return "".join(f"; {count} {reason}" for reason, count in reasons.most_common(3))


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 without any."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class PeakMemory:
    """The most memory that a process held, beyond what it held at first; in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._peak = resident_bytes(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> int:
        """What it grew by."""
        self._ended.set()
        self._thread.join()
        return self._peak - self._before

    def _watch(self) -> None:
        while not self._ended.wait(RSS_LOOK_SECONDS):
            self._peak = max(self._peak, resident_bytes(self._pid))


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; raises FileNotFoundError if it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def settle(is_idle: Callable[[], bool], seconds: float) -> None:
    """Waits until a service has nothing left to do, but not for ever."""
    end = time.monotonic() + seconds
    while not is_idle() and time.monotonic() < end:
        time.sleep(RSS_LOOK_SECONDS)
