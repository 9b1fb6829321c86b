"""A worker process: takes a job from standard input, tells its records on standard output.

In:  {"job": ...}, then {"start": moment}, then perhaps {"stop": null}; the end of input stops too.
Out: {"ready": null} or {"error": [kind, message]}; {"record": ...} each; {"done": reading}.
The moment is one of `time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from dataclasses import replace

from santacoder_client.loadtest.data.options import from_job
from santacoder_client.loadtest.data.source import DataError
from santacoder_client.loadtest.driver import Driver
from santacoder_client.loadtest.errors import LoadTestError
from santacoder_client.loadtest.job import Job, line_of, read_line, record_to_json
from santacoder_client.loadtest.load import Share
from santacoder_client.loadtest.meter import IdleSelector, LoopMeter, MeterReading
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.routes import routes_of

FLUSH_SECONDS = 0.1
"""Records go out in bundles; each on its own would be a system call each."""


class Outbox:
    """Lines on their way to the parent. Never waits: a slow reader must not make requests late."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._lines: list[bytes] = []

    def put(self, kind: str, value: object) -> None:
        """Adds a line."""
        self._lines.append(line_of(kind, value))

    def put_record(self, record: RequestRecord) -> None:
        """Adds a record."""
        self.put("record", record_to_json(record))

    def flush(self) -> None:
        """Hands on what there is."""
        if self._lines:
            self._transport.write(b"".join(self._lines))
            self._lines.clear()

    async def keep_flushing(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()


def main() -> int:
    """Runs one job."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _, values = read_line(sys.stdin.buffer.readline())
    job = Job.from_json(values["job"])
    share = Share(values["worker"], values["workers"])
    selector = IdleSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_work(job, share, selector))
    return 0


async def _work(job: Job, share: Share, selector: IdleSelector) -> None:
    inbox, transport, drained = await _pipes()
    outbox = Outbox(transport)
    try:
        await _obey(job, share, selector, inbox, outbox)
    except (LoadTestError, DataError) as error:
        outbox.put("error", [type(error).__name__, str(error)])
    outbox.flush()
    transport.close()
    await drained


async def _obey(
    job: Job, share: Share, selector: IdleSelector, inbox: asyncio.StreamReader, outbox: Outbox
) -> None:
    source = from_job(job.data)
    load = job.load
    if load.model == "trace":
        load = replace(load, trace_seconds=tuple(source.schedule or ()))
    routes = routes_of(job, share)
    meter = LoopMeter(share.worker, selector)
    try:
        for route in routes:
            await route.sender.open()
        outbox.put("ready", None)
        outbox.flush()
        kind, moment = read_line(await inbox.readline() or line_of("stop", None))
        if kind == "start":
            driver = Driver(load, share, source, routes, meter, outbox.put_record)
            outbox.put("done", (await _drive(driver, moment, meter, inbox, outbox)).to_json())
    finally:
        for route in routes:
            await route.sender.close()


async def _drive(
    driver: Driver, moment: float, meter: LoopMeter, inbox: asyncio.StreamReader, outbox: Outbox
) -> MeterReading:
    # What was made until now stays; looking through it again and again would stall the loop.
    gc.collect()
    gc.freeze()
    flushing = asyncio.create_task(outbox.keep_flushing())
    listening = asyncio.create_task(_stop_when_told(driver, inbox))
    try:
        await driver.run(lambda: time.monotonic() - moment)
    finally:
        flushing.cancel()
        listening.cancel()
    return meter.end()


async def _stop_when_told(driver: Driver, inbox: asyncio.StreamReader) -> None:
    await inbox.readline()  # the only line that comes now; or the parent is gone
    driver.stop()


async def _pipes() -> tuple[asyncio.StreamReader, asyncio.WriteTransport, asyncio.Future[None]]:
    """Standard input to read from, standard output to write to, and when all is written."""
    loop = asyncio.get_running_loop()
    inbox = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(inbox), sys.stdin.buffer)
    drained: asyncio.Future[None] = loop.create_future()
    transport, _ = await loop.connect_write_pipe(lambda: _Writing(drained), sys.stdout.buffer)
    return inbox, transport, drained


class _Writing(asyncio.BaseProtocol):
    def __init__(self, drained: asyncio.Future[None]) -> None:
        self._drained = drained

    def connection_lost(self, error: Exception | None) -> None:
        if not self._drained.done():
            self._drained.set_result(None)


if __name__ == "__main__":
    sys.exit(main())
