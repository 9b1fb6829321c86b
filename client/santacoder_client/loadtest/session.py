"""One editor's session under load: turns that supersede each other, and when each really ended.

Unlike a cancelled call, a cancelled turn is confirmed by the server, so its end has a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._turns import turn_deadline_exceeded
from santacoder_client.errors import Cancelled, SantaCoderError, error_from_rpc
from santacoder_client.loadtest import answer
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.sender import Clock

SessionCall = grpc.aio.StreamStreamCall[bytes, bytes]
_OPENING = pb.CompletionSessionRequest(open=pb.SessionOpen()).SerializeToString()


class Turn:
    """One request of a session, until its end is known."""

    def __init__(self, record: RequestRecord, clock: Clock) -> None:
        self.record = record
        self.clock = clock
        self.outcome_if_cut = Outcome.CANCELLED
        self.events: list[tuple[float, pb.CompletionEvent]] = []
        self.over = asyncio.Event()
        self.cancelling: asyncio.Task[None] | None = None

    def cut(self, outcome: Outcome) -> None:
        """Notes that the client asks for its end; only the server says when that was."""
        if not self.over.is_set() and self.record.cancelled_at is None:
            self.record.cancelled_at = self.clock()
            self.outcome_if_cut = outcome

    def take(self, at: float, event: pb.CompletionEvent) -> None:
        """Notes an event."""
        self.events.append((at, event))
        cancelled = event.choice_finished.reason == pb.FINISH_REASON_CANCELLED
        if cancelled:
            answer.note_cancelled(self.record)
            self.record.outcome = self.outcome_if_cut
            self.end(at)
        elif event.HasField("finished"):
            self.record.outcome = Outcome.OK
            self.record.status = "OK"
            self.record.cancelled_at = None  # its end was faster than the wish for it
            self.end(at)

    def fail(self, at: float, error: SantaCoderError) -> None:
        """Notes that it was refused or broken off."""
        if not self.over.is_set():
            answer.note_error(self.record, error)
            self.end(at)

    def end(self, at: float) -> None:
        """Notes the end, of whatever kind."""
        self.record.finished_at = at
        self.over.set()


class Session:
    """A session that opens with its first turn, and again after it broke."""

    def __init__(self, start: Callable[[], SessionCall]) -> None:
        self._start = start
        self._call: SessionCall | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._number = 0
        self._turns: dict[int, Turn] = {}
        self._latest: Turn | None = None

    async def ask(
        self,
        completion: pb.CompletionRequest,
        record: RequestRecord,
        clock: Clock,
        timeout_seconds: float | None = None,
        cancel_after_seconds: float | None = None,
    ) -> None:
        """Runs a turn to its end; the turn that runs is superseded by it."""
        turn = Turn(record, clock)
        record.dispatched_at = clock()
        if self._latest is not None:
            self._latest.cut(Outcome.SUPERSEDED)
        self._latest = turn
        loop = asyncio.get_running_loop()
        timers = []
        if cancel_after_seconds is not None:
            timers.append(loop.call_later(cancel_after_seconds, self._cancel, turn))
        if timeout_seconds is not None:
            timers.append(loop.call_later(timeout_seconds, self._expire, turn, timeout_seconds))
        try:
            number = self._register(turn)
            await self._write(pb.CompletionSessionRequest(turn=number, completion=completion))
            await turn.over.wait()
        except asyncio.CancelledError:
            turn.cut(Outcome.CANCELLED)
            turn.over.set()  # whatever comes now comes too late
            answer.note_cancelled(record, answer.END_OF_RUN)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            answer.read_events(record, turn.events)

    def close(self) -> None:
        """Drops the session and its turn. May be called again."""
        if self._call is not None:
            self._call.cancel()

    def _register(self, turn: Turn) -> int:
        if self._call is None:
            self._call = self._start()
            self._number = 0
            self._reader = asyncio.create_task(self._read(self._call, turn.clock))
        self._number += 1
        self._turns[self._number] = turn
        return self._number

    async def _write(self, message: pb.CompletionSessionRequest) -> None:
        call = self._call
        # gRPC takes one write at a time, and keystrokes may come faster than it takes them.
        async with self._writing:
            if call is None or call.done():
                return  # the reader tells all turns how the call ended
            try:
                if message.turn == 1:
                    await call.write(_OPENING)
                await call.write(message.SerializeToString())
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # likewise
            except asyncio.CancelledError:
                if answer.being_cancelled():
                    raise

    def _cancel(self, turn: Turn) -> None:
        if turn is self._latest and not turn.over.is_set():
            turn.cut(Outcome.CANCELLED)
            self._number += 1
            message = pb.CompletionSessionRequest(turn=self._number, cancel=pb.TurnCancel())
            turn.cancelling = asyncio.create_task(self._write(message))

    def _expire(self, turn: Turn, timeout_seconds: float) -> None:
        # A turn has no deadline on the wire.
        self._cancel(turn)
        turn.record.cancelled_at = None
        turn.fail(turn.clock(), turn_deadline_exceeded(timeout_seconds))

    async def _read(self, call: SessionCall, clock: Clock) -> None:
        """Hands replies to their turns until the call ends, in a task of its own."""
        failure: SantaCoderError = Cancelled("the session has ended")
        try:
            while isinstance(raw := await call.read(), bytes):
                self._deliver(clock(), raw)
        except grpc.RpcError as error:
            failure = error_from_rpc(error)
        except DecodeError:
            failure = SantaCoderError("the session sent no message of this contract")
            call.cancel()
        except asyncio.CancelledError:
            if answer.being_cancelled():
                raise
        finally:
            self._call = None
            turns, self._turns = self._turns, {}
            for turn in turns.values():
                turn.fail(clock(), failure)

    def _deliver(self, at: float, raw: bytes) -> None:
        response = pb.CompletionSessionResponse.FromString(raw)
        turn = self._turns.get(response.turn)
        if turn is None:
            return
        if turn.over.is_set():  # it was given up, and this is the answer to that
            del self._turns[response.turn]
            return
        if response.HasField("error"):
            answer.note_status(turn.record, response.error)
            turn.end(at)
        else:
            turn.take(at, response.event)
        if turn.over.is_set():
            del self._turns[response.turn]
