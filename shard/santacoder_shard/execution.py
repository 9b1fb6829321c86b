"""One Execute stream after its hello: plans in order to the worker, results and heartbeats out.

Everything that leaves goes through one outbox, so a fault comes after what was sent before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import grpc

from santacoder_shard import codec
from santacoder_shard.digest import CommandDigest
from santacoder_shard.step import StepOutcome
from santacoder_shard.worker import PlanQueueFull, PlanRunner, Worker

_WATCH_PER_HEARTBEAT = 4
_CANCEL_SECONDS = 0.05
# The router counts plans in flight by rank 0's answers; the other ranks may trail behind those.
_TRAILING_PLANS = 16


class StreamFault(Exception):
    """Ends the stream, and with it the rank: a status, the plan at fault or 0, and one line."""

    def __init__(self, code: grpc.StatusCode, message: str, plan_number: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.plan_number = plan_number


class FrameContext(Protocol):
    """What is used of grpc.aio.ServicerContext: frames as bytes."""

    async def read(self) -> object:
        """The next frame as bytes; anything else at the end."""

    async def write(self, message: bytes) -> None:
        """Send one frame."""


@dataclass(frozen=True, slots=True)
class RankIdentity:
    """Who this rank is: its number, the epoch of its group's life, and the group's size."""

    rank: int
    epoch: int
    size: int


class ExecuteStream:
    """Serves one stream. Made and used on the event loop."""

    def __init__(
        self,
        identity: RankIdentity,
        runner: PlanRunner,
        model_thread: Executor,
        plans_in_flight: int,
        heartbeat_seconds: float,
    ) -> None:
        self._identity = identity
        self._queue_limit = plans_in_flight + (_TRAILING_PLANS if identity.rank else 0)
        self._heartbeat_seconds = heartbeat_seconds
        self._outbox: asyncio.Queue[bytes | StreamFault | None] = asyncio.Queue()
        self._digest = CommandDigest()
        self._last_plan_number = 0
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(
            runner,
            model_thread,
            self._queue_limit,
            on_outcome=lambda outcome: self._post(lambda: self._send_outcome(outcome)),
            on_failure=lambda plan, error: self._post(lambda: self._fail(plan, error)),
        )

    async def serve(self, context: FrameContext) -> None:
        """Until the router half-closes and its plans have run. StreamFault if something failed."""
        reader = asyncio.create_task(self._read(context))
        pulse = asyncio.create_task(self._pulse())
        try:
            while (item := await self._outbox.get()) is not None:
                if isinstance(item, StreamFault):
                    raise item
                await context.write(item)
        finally:
            reader.cancel()
            pulse.cancel()
            self._worker.stop()

    async def _read(self, context: FrameContext) -> None:
        try:
            while isinstance(frame := await context.read(), bytes):
                self._take(frame)
        except codec.FrameError as error:
            self._outbox.put_nowait(StreamFault(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except StreamFault as fault:
            self._outbox.put_nowait(fault)
        except Exception as error:
            self._fail(self._last_plan_number, error)
        else:
            # A router that died looks like a half-close here, until a moment later the call is
            # cancelled, and this task with it.
            await asyncio.sleep(_CANCEL_SECONDS)
            self._worker.finish(lambda: self._post(lambda: self._outbox.put_nowait(None)))

    def _take(self, frame: bytes) -> None:
        request = codec.decode_request(frame)
        if isinstance(request, codec.PlanFrame):
            self._take_plan(request, frame)
        elif isinstance(request, codec.Interrupt):
            self._worker.interrupt(request.plan_number)
        else:
            raise StreamFault(
                grpc.StatusCode.FAILED_PRECONDITION, "hello: the stream is open already"
            )

    def _take_plan(self, request: codec.PlanFrame, frame: bytes) -> None:
        plan = request.plan
        expected = self._last_plan_number + 1
        if request.epoch != self._identity.epoch:
            raise self._out_of_order(
                f"plan.epoch: of another life of the group; got {request.epoch};"
                f" allowed {self._identity.epoch}",
                plan.number,
            )
        if plan.number != expected:
            raise self._out_of_order(
                f"plan.number: out of order; got {plan.number}; allowed {expected}", plan.number
            )
        self._last_plan_number = plan.number
        digest = self._digest.accept(plan.number, frame)
        # Ranks that part ways show by it before they meet; a rank alone parts from nobody.
        if self._identity.size > 1:
            # Before the worker has it, so that the acceptance always precedes the result.
            self._outbox.put_nowait(codec.encode_accepted(plan.number, digest))
        try:
            self._worker.submit(plan)
        except PlanQueueFull:
            raise self._out_of_order(
                f"plan: too many in flight; got {self._queue_limit + 1};"
                f" allowed {self._queue_limit}",
                plan.number,
            ) from None

    @staticmethod
    def _out_of_order(message: str, plan_number: int) -> StreamFault:
        return StreamFault(grpc.StatusCode.FAILED_PRECONDITION, message, plan_number)

    def _send_outcome(self, outcome: StepOutcome) -> None:
        try:
            digest = self._digest.report(outcome)
            frame = codec.encode_result(outcome, digest, with_rows=self._identity.rank == 0)
        except (KeyError, ValueError, OverflowError) as error:
            self._fail(outcome.plan_number, error)
        else:
            self._outbox.put_nowait(frame)

    def _fail(self, plan_number: int, error: Exception) -> None:
        first_line = (str(error).splitlines() or [""])[0]
        fault = StreamFault(
            grpc.StatusCode.INTERNAL,
            f"plan {plan_number} failed: {type(error).__name__}: {first_line}",
            plan_number,
        )
        fault.__cause__ = error
        self._outbox.put_nowait(fault)

    async def _pulse(self) -> None:
        """A heartbeat every second, and between them a look whether a step hangs."""
        while True:
            # While frames wait to be written, they say that the rank lives.
            if self._outbox.empty():
                self._outbox.put_nowait(codec.encode_heartbeat(self._worker.progress()))
            for _ in range(_WATCH_PER_HEARTBEAT):
                await asyncio.sleep(self._heartbeat_seconds / _WATCH_PER_HEARTBEAT)
                self._check_deadline()

    def _check_deadline(self) -> None:
        overdue = self._worker.overdue()
        if overdue is None:
            return
        plan_number, age_seconds = overdue
        message = f"plan {plan_number} hangs: its step has run for {age_seconds:.1f} s"
        fault = StreamFault(grpc.StatusCode.DEADLINE_EXCEEDED, message, plan_number)
        self._outbox.put_nowait(fault)

    def _post(self, call: Callable[[], None]) -> None:
        """From the model's thread to the event loop; if that has gone, the rank is leaving."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
