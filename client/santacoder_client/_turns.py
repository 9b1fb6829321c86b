"""An editor's session: numbers its turns and gives each reply to the turn it belongs to.

Pure. Knows neither threads nor event loops: whoever sends frames calls `begin` and `cancel`,
whoever receives calls `deliver`, and each turn has an inbox of the caller's kind. A session may
outlive its connection: `anew` has the frames for the next one, on which the running turn goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import grpc

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._resume import Received
from santacoder_client._retry import Retries
from santacoder_client.errors import (
    Cancelled,
    DeadlineExceeded,
    SantaCoderError,
    Unavailable,
    error_from_status,
)

Item = pb.CompletionEvent | SantaCoderError | None
"""What a turn receives: events, then None; or an error."""


class Inbox(Protocol):
    """A queue, of threads or of tasks."""

    def put_nowait(self, item: Item, /) -> None: ...


@dataclass(slots=True, eq=False)
class Turn:
    """One completion of a session."""

    completion: pb.CompletionRequest
    inbox: Inbox
    retries: Retries
    number: int = 0
    choice_count: int = 1
    over: bool = False
    received: Received = field(init=False)
    shown: Received = field(init=False)
    """What of it the caller has taken; the rest waits in the inbox."""

    def __post_init__(self) -> None:
        self.received = Received(self.completion)
        self.shown = Received(self.completion)

    def rest(self) -> pb.CompletionRequest:
        """The request for what has not been received."""
        return self.received.rest(self.retries.elapsed_seconds)

    def take(self, event: pb.CompletionEvent) -> None:
        """Hands an event on. What an earlier connection has said already is dropped."""
        self.choice_count = event.accepted.completion_count or self.choice_count
        try:
            is_new = self.received.add(event)
        except SantaCoderError as error:
            self.end(error)
            return
        if is_new:
            self.retries.progressed(bool(event.delta.token_ids))
            self.inbox.put_nowait(event)
        if self.received.is_whole:
            self.retries.answered()
            self.end(None)

    def end(self, item: Item) -> None:
        """Puts the last thing that the turn receives; nothing where it has ended."""
        if not self.over:
            self.over = True
            self.inbox.put_nowait(item)

    def cancel(self) -> None:
        """Ends the turn here and now, without waiting for the server's word."""
        for index in range(self.choice_count):
            ended = pb.ChoiceFinished(index=index, reason=pb.FINISH_REASON_CANCELLED)
            self.inbox.put_nowait(pb.CompletionEvent(choice_finished=ended))
        self.end(None)


TurnT = TypeVar("TurnT", bound=Turn)


class Turns(Generic[TurnT]):
    """The turns of one session. Frames are to be sent in the order of the calls that make them."""

    def __init__(self, opening: pb.SessionOpen) -> None:
        self._opening = opening
        self._latest: TurnT | None = None
        self._number = 0

    @property
    def running(self) -> TurnT | None:
        """The turn that has not ended."""
        return None if self._latest is None or self._latest.over else self._latest

    def begin(self, turn: TurnT) -> pb.CompletionSessionRequest:
        """The message that starts a turn; the one before is over."""
        if self.running is not None:
            self.running.cancel()
        self._latest = turn
        return self._numbered(turn, turn.completion)

    def cancel(self, turn: TurnT | None = None) -> pb.CompletionSessionRequest | None:
        """The message that ends a turn, the running one if none is named; None if it is over."""
        running = self.running
        if running is None or turn not in (None, running):
            return None
        running.cancel()
        self._number += 1
        return pb.CompletionSessionRequest(turn=self._number, cancel=pb.TurnCancel())

    def anew(self) -> list[pb.CompletionSessionRequest]:
        """The messages that a new connection begins with."""
        frames = [pb.CompletionSessionRequest(open=self._opening)]
        if self.running is not None:
            frames.append(self._numbered(self.running, self.running.rest()))
        return frames

    def unseen(self, turn: TurnT) -> pb.CompletionRequest:
        """The request for what a turn's caller has not taken, as it stands outside the session."""
        rest = turn.shown.rest(turn.retries.elapsed_seconds)
        opening = self._opening
        if opening.HasField("priority") and not rest.HasField("priority"):
            rest.priority = opening.priority
        if opening.HasField("cache_salt") and not rest.HasField("cache_salt"):
            rest.cache_salt = opening.cache_salt
        return rest

    def deliver(self, response: pb.CompletionSessionResponse) -> None:
        """Hands a reply on; what comes late for an older turn is dropped.

        Raises the SantaCoderError of a server that is leaving: the turn may go on with the next.
        """
        turn = self.running
        if turn is None or turn.number != response.turn:
            return
        match response.WhichOneof("reply"):
            case "error":
                error = error_from_status(response.error)
                if turn.retries.is_outage(error):
                    raise error
                turn.end(error)
            case "event":
                turn.take(response.event)

    def _numbered(
        self, turn: TurnT, completion: pb.CompletionRequest
    ) -> pb.CompletionSessionRequest:
        self._number += 1
        turn.number = self._number
        return pb.CompletionSessionRequest(turn=turn.number, completion=completion)


def session_lost() -> Unavailable:
    """What a server means that ends a session."""
    return Unavailable("the server has ended the session", code=grpc.StatusCode.UNAVAILABLE)


def reader_failed(is_closed: bool, cause: Exception) -> SantaCoderError:
    """What a turn is told when nobody reads its replies any more: its client is closed, or ill."""
    if is_closed:
        return Cancelled("the client was closed")
    message = f"the session's reader failed: {type(cause).__name__}: {cause}"
    error = SantaCoderError(message, code=grpc.StatusCode.INTERNAL)
    error.__cause__ = cause
    return error


def turn_deadline_exceeded(timeout_seconds: float) -> DeadlineExceeded:
    """A turn has no deadline on the wire, so the client keeps it."""
    return DeadlineExceeded(
        f"the turn was not complete after {timeout_seconds:g} s",
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
    )
