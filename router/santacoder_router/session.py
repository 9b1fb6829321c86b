"""An editor's session: one stream of turns, of which only the newest runs.

A turn's errors are told in its place and leave the session open; a message out of order ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from google.rpc import status_pb2

from santacoder.inference.v1 import inference_pb2
from santacoder_router.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Reason,
    RouterError,
    Violation,
)
from santacoder_router.faults import internal_error
from santacoder_router.generation import Generation
from santacoder_router.handlers import Call, Reception
from santacoder_router.intake import Intake
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.validation import SessionDefaults, check_session_open

Requests = AsyncIterator[inference_pb2.CompletionSessionRequest]


class SessionIdle(DeadlineExceeded):
    """Nothing runs in the session, and nothing was asked for too long."""

    def __init__(self, idle_seconds: float) -> None:
        super().__init__(
            Reason.SESSION_IDLE,
            f"session: nothing was asked for {idle_seconds:g} s; open a new one",
        )


class SessionServicer:
    """Opens sessions, so many for each caller."""

    def __init__(
        self, intake: Intake, lifecycle: Lifecycle, reception: Reception, idle_seconds: float
    ) -> None:
        self._intake = intake
        self._lifecycle = lifecycle
        self._reception = reception
        self._idle_seconds = idle_seconds

    async def completion_session(self, requests: Requests, call: Call) -> None:
        """A session from its first message to the end of its stream."""
        self._lifecycle.admit()
        with call.account.session():
            try:
                await self._serve(Messages(requests, self._idle_seconds), call)
            except SessionIdle:
                self._reception.metrics.idle_sessions.inc()
                raise

    async def _serve(self, messages: Messages, call: Call) -> None:
        first = await messages.next(is_idle=lambda: True)
        if first is None:
            return
        if first.WhichOneof("action") != "open":
            raise _out_of_order("first message", first.WhichOneof("action"), "open")
        usual = SessionDefaults(call.account.usual_priority)
        defaults = check_session_open(first.open, self._lifecycle.admit().limits, usual)
        call.account.check_priority(defaults.priority)
        await call.write(
            inference_pb2.CompletionSessionResponse(opened=inference_pb2.SessionOpened())
        )
        await Session(self._intake, defaults, call, self._reception).run(messages)


class Messages:
    """A session's messages, waited for as long as it is not idle for too long."""

    def __init__(self, requests: Requests, idle_seconds: float) -> None:
        self._requests = requests
        self._idle_seconds = idle_seconds

    async def next(
        self, is_idle: Callable[[], bool]
    ) -> inference_pb2.CompletionSessionRequest | None:
        """The next one, None at the end; raises SessionIdle."""
        coming = asyncio.ensure_future(anext(self._requests, None))
        try:
            while not (await asyncio.wait({coming}, timeout=self._idle_seconds))[0]:
                if is_idle():
                    raise SessionIdle(self._idle_seconds)
            return coming.result()
        finally:
            coming.cancel()


class Session:
    """An open session. Reading goes on while a turn writes, so that the next one can cut it off."""

    def __init__(
        self, intake: Intake, defaults: SessionDefaults, call: Call, reception: Reception
    ) -> None:
        self._intake = intake
        self._defaults = defaults
        self._call = call
        self._reception = reception
        self._last_number = 0
        self._turn: Turn | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # gRPC takes one write at a time; a cut-off turn still tells its end beside the next.
        self._writing = asyncio.Lock()

    async def run(self, messages: Messages) -> None:
        """Until the client half-closes and the last turn has ended; raises SessionIdle."""
        try:
            while request := await messages.next(is_idle=lambda: not self._tasks):
                self._take(request)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self._abandon()

    async def write(self, response: inference_pb2.CompletionSessionResponse) -> None:
        """Sends a message of some turn."""
        async with self._writing:
            await self._call.write(response)

    def _take(self, request: inference_pb2.CompletionSessionRequest) -> None:
        action = request.WhichOneof("action")
        if action == "open" or action is None:
            raise _out_of_order("action", action, "completion or cancel")
        if request.turn <= self._last_number:
            raise _out_of_order("turn", request.turn, f"above {self._last_number}")
        self._last_number = request.turn
        if self._turn is not None:
            self._turn.supersede()
            self._turn = None
        if action == "completion":
            self._turn = Turn(request.turn, self._intake, self._defaults)
            task = asyncio.create_task(self._run_turn(self._turn, request.completion))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_turn(self, turn: Turn, message: inference_pb2.CompletionRequest) -> None:
        request_id = f"{self._call.request_id}.{turn.number}"
        try:
            async for event in turn.events(message, request_id, self._call):
                await self.write(
                    inference_pb2.CompletionSessionResponse(turn=turn.number, event=event)
                )
        except RouterError as error:
            self._reception.metrics.refused_requests.labels(error.reason).inc()
            await self._refuse(turn.number, error.to_status(request_id))
        except Exception as cause:
            log = self._reception.log.bind(request_id=request_id)
            fault = internal_error(log, "a session's turn failed", cause)
            await self._refuse(turn.number, fault.to_status(request_id))

    async def _refuse(self, number: int, status: status_pb2.Status) -> None:
        await self.write(inference_pb2.CompletionSessionResponse(turn=number, error=status))

    async def _abandon(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Turn:
    """One completion of a session, which the next one supersedes."""

    def __init__(self, number: int, intake: Intake, defaults: SessionDefaults) -> None:
        self.number = number
        self._intake = intake
        self._defaults = defaults
        self._generation: Generation | None = None
        self._is_superseded = False

    def supersede(self) -> None:
        """Ends the completion at once, wherever it is; its last events say so."""
        self._is_superseded = True
        if self._generation is not None:
            self._generation.cancel()

    async def events(
        self, message: inference_pb2.CompletionRequest, request_id: str, call: Call
    ) -> AsyncIterator[inference_pb2.CompletionEvent]:
        """The completion's events; raises RouterError."""
        call.account.count_request()
        valid = self._intake.check(message, request_id, self._defaults)
        generation = await self._intake.start(valid, call.remaining_seconds(), call.account)
        self._generation = generation
        try:
            if self._is_superseded:
                # The next turn came while this one was tokenized.
                generation.cancel()
            async for event in generation.events():
                yield event
        finally:
            self._intake.release(valid, generation, call.account)


def _out_of_order(path: str, got: object, allowed: str) -> InvalidRequest:
    what = "out of order"
    return InvalidRequest([Violation(path, Reason.PROTOCOL_ORDER, what, got or "nothing", allowed)])
