"""A router from start to end: start, become ready, serve, drain, stop. Owns every other part.

Knows no signals and no arguments; `__main__.py` turns those into calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Callable

import grpc

from santacoder_router import gauges
from santacoder_router.accounts import Accounts
from santacoder_router.config import RouterConfig
from santacoder_router.doors import make_doors, remind
from santacoder_router.fail_stop import SchedulerFault
from santacoder_router.faults import Log
from santacoder_router.group_lives import GroupLives, abandon_requests
from santacoder_router.handlers import Reception
from santacoder_router.health import Health
from santacoder_router.intake import Intake
from santacoder_router.lifecycle import Lifecycle, Phase
from santacoder_router.memory import find_limit_bytes
from santacoder_router.metrics import Metrics
from santacoder_router.metrics_server import MetricsServer
from santacoder_router.notes import no_note, write_note
from santacoder_router.server import PortTaken, bind, make_server, taken_by
from santacoder_router.serving import make_serving
from santacoder_router.stalls import Stalls
from santacoder_router.tracing import Tracing

METRICS_HOST = "127.0.0.1"
DRAIN_LOOK_SECONDS = 0.02
# What has been said must still get out after the last request has ended.
FLUSH_SECONDS = 1.0
HEARING_SECONDS = 3600.0

Announce = Callable[[str, str], None]


class Ending(enum.Enum):
    """How a router's run ended."""

    DRAINED = "drained"
    FAULT = "fault"


class ServerEnded(Exception):
    """The gRPC server has ended by itself, which it does only if it fails."""


class Router:
    """One router. `announce` is called with both addresses when it is first ready.

    Raises UnusableFile for certificates and tokens that cannot be used, TracingAbsent where traces
    are asked for and cannot be made.
    """

    def __init__(self, config: RouterConfig, announce: Announce, log: Log) -> None:
        self._config = config
        self._announce = announce
        self._log = log
        clock = time.monotonic
        self._clock = clock
        self.metrics = Metrics()
        self.lifecycle = Lifecycle()
        self._intake = Intake(self.lifecycle, self.metrics, clock, log)
        self._reception = Reception(
            Accounts(config.overload.callers, config.security.asks_certificates, clock),
            Stalls(config.overload.stream_stall_seconds, clock),
            self.metrics,
            log,
        )
        self._doors = make_doors(config.security, self.metrics, clock, log)
        self._lives = GroupLives(
            config.shard_addresses,
            self.lifecycle,
            self.metrics,
            clock,
            log,
            self._doors.shards,
            write_note if config.has_notes else no_note,
        )
        self._tracing = Tracing(config.otlp_endpoint, clock, self._epoch)
        self._health = Health(self.lifecycle, config.stall_seconds)
        self._server: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._work: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self.address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Listens from here on, though not yet ready; raises PortTaken."""
        self._server = make_server(
            self._config,
            self.lifecycle,
            self._intake,
            self._health,
            self._reception,
            (*self._tracing.interceptors, *self._doors.interceptors),
        )
        config = self._config
        self.address = bind(self._server, config.host, config.port, self._doors.server)
        try:
            port = config.metrics_port
            self._metrics_server = MetricsServer(self.metrics, METRICS_HOST, port)
        except OSError as error:
            reason = taken_by(port) if port else f": {error.strerror}"
            raise PortTaken(f"--metrics-port: cannot listen on {port}{reason}") from None
        self.metrics_address = f"{METRICS_HOST}:{self._metrics_server.port}"
        await self._server.start()

    async def run(self) -> Ending:
        """Serves until `drain` is called and done, or the scheduler fails.

        Raises GroupRefused or GroupUnreachable if no group comes up at first.
        """
        limit_bytes = self._config.overload.memory_limit_bytes or find_limit_bytes()
        watches = {
            asyncio.create_task(watch)
            for watch in (
                gauges.watch(self.lifecycle, self._health, self._intake, limit_bytes, self.metrics),
                self._reception.stalls.watch(),
                remind(self._config.security, self.metrics, self._log),
            )
        }
        self._work = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(self._stop.wait())
        hearing = asyncio.create_task(self._hear())
        try:
            tasks = {self._work, stopping, hearing}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                await hearing
            if self._work.done():
                # Only a fault or a start that failed comes here: a lost group waits for the drain.
                await self._work
            await self._drain()
        except SchedulerFault as fault:
            return self._fail("the scheduler failed", fault)
        except ServerEnded as fault:
            return self._fail("the server has ended", fault)
        finally:
            ending = {*watches, stopping, hearing, self._work}
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)
        return Ending.DRAINED

    async def close(self) -> None:
        """Ends what is left, soon."""
        if self._server is not None:
            await self._server.stop(FLUSH_SECONDS)
        await self._lives.close()
        if self._metrics_server is not None:
            self._metrics_server.close()
        if self.lifecycle.serving is not None:
            self.lifecycle.serving.tokenizer_threads.close()
        await asyncio.to_thread(self._tracing.close)

    def drain(self) -> None:
        """Takes no new requests, and ends when the running ones have ended or their time is up."""
        withdraws = self._config.withdraw_seconds > 0
        self.lifecycle.enter(Phase.WITHDRAWING if withdraws else Phase.DRAINING)
        self._stop.set()

    def lose_group(self) -> None:
        """The shard group is gone for good: every request is answered, now and from now on."""
        abandon_requests(self.lifecycle, Phase.LOST)

    def _fail(self, what: str, fault: Exception) -> Ending:
        self._log.critical(what, exc_info=fault.__cause__)
        abandon_requests(self.lifecycle, Phase.FAULT)
        return Ending.FAULT

    async def _hear(self) -> None:
        """Raises ServerEnded: alive and deaf, a router must leave for another to take its place."""
        server = self._server
        try:
            # Without a limit the wait, once cancelled, would be the end of the server's own.
            while server is not None and await server.wait_for_termination(HEARING_SECONDS):
                pass
        except Exception as error:
            raise ServerEnded from error
        raise ServerEnded

    def _epoch(self) -> int:
        serving = self.lifecycle.serving
        return 0 if serving is None else serving.step_loop.epoch

    async def _serve(self) -> None:
        config = self._config
        group = await self._lives.first(config.start_seconds)
        try:
            serving = make_serving(
                group.description, config.overload, self.metrics, self._clock, self._log
            )
        except BaseException:
            await group.close()
            raise
        self.lifecycle.begin(serving)
        if self._health.is_serving():
            self._announce(self.address, self.metrics_address)
        await self._lives.run(group, serving, config.recovery_seconds)
        self.lose_group()
        # There is nothing to serve with, but somebody has to say so.
        await self._stop.wait()

    async def _drain(self) -> None:
        # Until balancers have seen in its health that it leaves.
        await asyncio.sleep(self._config.withdraw_seconds)
        self.lifecycle.enter(Phase.DRAINING)
        self._log.info("draining", running_count=self._intake.running_count)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_seconds):
                while self._intake.running_count and not self._work_ended():
                    await asyncio.sleep(DRAIN_LOOK_SECONDS)
        abandon_requests(self.lifecycle, Phase.DRAINING)

    def _work_ended(self) -> bool:
        return self._work is not None and self._work.done()
