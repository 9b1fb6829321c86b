"""Runs a target so many times from a seed, and keeps the smallest input that it failed on.

A failure is whatever `take` raises, or a second of this process's own time in one input: time that
others took from the machine does not count.
"""

from __future__ import annotations

import math
import random
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fuzz.target import Target

HANG_SECONDS = 1.0
BATCH = 1000
"""Inputs from one source of chance; a failure is found again from its batch alone."""
MOST_FAILURES = 3
MOST_SHRINKS = 2000


class Hang(BaseException):
    """An input took longer than any may. No Exception, or a reader would take it for its own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that a target failed on: as found, and as small as it could be made."""

    batch: int
    found: bytes
    smallest: bytes
    error: str


@dataclass(slots=True)
class Tally:
    """What became of a target's runs."""

    target: Target
    executions: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def line(self) -> str:
        """For a person."""
        rate = self.executions / max(self.seconds, 1e-9)
        failed = "ok" if not self.failures else f"{len(self.failures)} FAILED"
        return f"{self.target.name:<34}{self.executions:>13,} {rate:>10,.0f}/s  {failed}"


def run(
    target: Target, count: int, seed: int, first_batch: int = 0, seconds: float = math.inf
) -> Tally:
    """`count` inputs, in whole batches but for the last.

    Ends early after a few failures, and with the batch in which its time is up.
    """
    tally = Tally(target)
    started = time.monotonic()
    batch = first_batch
    with _watched():
        while tally.executions < count and len(tally.failures) < MOST_FAILURES:
            size = min(BATCH, count - tally.executions)
            _run_batch(tally, batch, size, seed)
            batch += 1
            if time.monotonic() - started > seconds:
                break
    tally.seconds = time.monotonic() - started
    return tally


def _run_batch(tally: Tally, batch: int, size: int, seed: int) -> None:
    target = tally.target
    source = random.Random(f"{seed} {target.name} {batch}")
    for _ in range(size):
        data = target.make(source)
        tally.executions += 1
        error = _attempt(target, data)
        if error is not None:
            where = _where(error)
            tally.failures.append(Failure(batch, data, _shrink(target, data, where), where))
            return


def _attempt(target: Target, data: bytes) -> BaseException | None:
    """What it raised; also what is no Exception, as the panic of a native library."""
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
            target.take(data)
        finally:
            # A signal that is on its way comes here at the latest.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def _where(error: BaseException) -> str:
    """The kind of a failure: its exception, and the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    if isinstance(error, Hang):
        return kind
    return f"{kind} at {frame.filename.rpartition('/')[2]}:{frame.lineno}: {error}"[:300]


def _shrink(target: Target, data: bytes, where: str) -> bytes:
    """Parts are taken out for as long as it fails in the same way."""
    kind = where.partition(": ")[0]
    tries, part = 0, max(1, len(data) // 2)
    while part and tries < MOST_SHRINKS:
        start = 0
        while start < len(data) and tries < MOST_SHRINKS:
            tries += 1
            smaller = data[:start] + data[start + part :]
            if _fails(target, smaller) == kind:
                data = smaller
            else:
                start += part
        part //= 2
    return data


def _fails(target: Target, data: bytes) -> str:
    error = _attempt(target, data)
    return "" if error is None else _where(error).partition(": ")[0]


@contextmanager
def _watched() -> Iterator[None]:
    """Whatever takes too long raises Hang where it is."""

    def raise_hang(*_: object) -> None:
        raise Hang(f"over {HANG_SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, raise_hang)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
