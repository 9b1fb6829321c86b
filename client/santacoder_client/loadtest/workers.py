"""Runs a job in worker processes and hands on their records as they come.

The load never runs in this process: whatever shows or sums it up would make requests late.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from santacoder_client.loadtest.data.source import DataError
from santacoder_client.loadtest.errors import LoadTestError, Unreachable, UsageError
from santacoder_client.loadtest.health import Pressure, judge
from santacoder_client.loadtest.job import Job, line_of, read_line, record_from_json
from santacoder_client.loadtest.meter import MeterReading
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.result import ClientVerdict

START_DELAY_SECONDS = 0.1
"""Until all workers have heard when the run begins."""
MOST_LINE_BYTES = 256 * 2**20
_ERROR_BYTES = 4096
_ERRORS: dict[str, type[LoadTestError]] = {
    "Unreachable": Unreachable,
    "UsageError": UsageError,
    DataError.__name__: UsageError,
}


@dataclass(frozen=True, slots=True)
class Driven:
    """How a run went, beside its records."""

    client: ClientVerdict
    lost: tuple[str, ...]
    """A line for each worker that died; what it had told by then is kept."""
    ended_at: float
    """On the run's clock."""


class Worker:
    """One worker process, seen from outside."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self._number = number
        self._process = process
        self._complaints = asyncio.create_task(_tail(process.stderr))

    @classmethod
    async def spawn(cls, job: dict[str, Any], number: int, count: int) -> Self:
        """Starts a process and gives it the job."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "santacoder_client.loadtest.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MOST_LINE_BYTES,
            # A group of its own: Ctrl-C is for the parent, who then stops it in good order.
            process_group=0,
        )
        worker = cls(number, process)
        worker.tell("job", {"job": job, "worker": number, "workers": count})
        return worker

    def tell(self, kind: str, value: object) -> None:
        """Sends a line, if there is still somebody to hear it."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.is_closing():
            pipe.write(line_of(kind, value))

    async def wait_ready(self) -> None:
        """Until it is connected. Raises LoadTestError of the kind that it met."""
        kind, value = await self._line()
        if kind == "error":
            name, message = value
            raise _ERRORS.get(name, LoadTestError)(message)
        if kind != "ready":
            raise LoadTestError(await self.epitaph())

    async def listen(self, on_record: Callable[[RequestRecord], None]) -> MeterReading | None:
        """Hands on its records; None if it dies before it has told all."""
        while True:
            kind, value = await self._line()
            if kind == "record":
                on_record(record_from_json(value))
            elif kind == "done":
                return MeterReading.from_json(value)
            else:
                return None

    async def epitaph(self) -> str:
        """What is known of its death."""
        status = await self._process.wait()
        last = (await self._complaints).strip().splitlines()[-1:] or ["it said nothing"]
        return f"worker {self._number} died with exit status {status}: {last[0]}"

    def kill(self) -> None:
        """Ends it at once; its output ends with it."""
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Ends it, in good order if it can."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5.0):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._complaints

    async def _line(self) -> tuple[str, Any]:
        """Its next line; `died` if there is none, or half of one."""
        if self._process.stdout is None:
            return "died", None
        try:
            return read_line(await self._process.stdout.readline())
        except ValueError:
            return "died", None


class Workers:
    """All processes of one run."""

    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._count = count
        self._workers: list[Worker] = []
        self._began = 0.0
        self._is_stopped = False

    async def open(self) -> None:
        """Starts all, and waits until all are connected. Raises LoadTestError."""
        job = self._job.to_json()
        for number in range(self._count):
            self._workers.append(await Worker.spawn(job, number, self._count))
        await asyncio.gather(*(worker.wait_ready() for worker in self._workers))

    def clock(self) -> float:
        """Seconds on the run's clock, which begins with `drive`."""
        return time.monotonic() - self._began

    async def drive(self, on_record: Callable[[RequestRecord], None]) -> Driven:
        """Sends the load and waits for its end. A worker that dies does not end the others."""
        pressure = Pressure(self._job.load)

        def note(record: RequestRecord) -> None:
            pressure.add(record)
            on_record(record)

        self._began = time.monotonic() + START_DELAY_SECONDS
        for worker in self._workers:
            worker.tell("start", self._began)
        heard = await asyncio.gather(*(worker.listen(note) for worker in self._workers))
        readings = [reading for reading in heard if reading is not None]
        return Driven(judge(readings, pressure), await self._epitaphs(heard), self.clock())

    def stop(self) -> None:
        """No more is sent, what runs is cancelled; said twice, the processes are killed."""
        for worker in self._workers:
            if self._is_stopped:
                worker.kill()
            else:
                worker.tell("stop", None)
        self._is_stopped = True

    async def close(self) -> None:
        """Ends all processes. May be called again."""
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _epitaphs(self, heard: Sequence[MeterReading | None]) -> tuple[str, ...]:
        dead = [
            worker for worker, reading in zip(self._workers, heard, strict=True) if reading is None
        ]
        return tuple([await worker.epitaph() for worker in dead])


async def _tail(pipe: asyncio.StreamReader | None) -> str:
    """The end of what somebody says, when he has said it all."""
    kept = b""
    while pipe is not None and (part := await pipe.read(_ERROR_BYTES)):
        kept = (kept + part)[-_ERROR_BYTES:]
    return kept.decode(errors="replace")
