"""An editor's session: numbers its turns and gives each reply to the turn it belongs to.

Pure. Knows neither threads nor event loops: whoever sends frames calls `frame`, whoever receives
calls `deliver`, and each turn has an inbox of the caller's kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import grpc

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.errors import DeadlineExceeded, SantaCoderError, error_from_status

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
    number: int = 0
    choice_count: int = 1
    over: bool = False

    def end(self, item: Item) -> None:
        """Puts the last thing that the turn receives."""
        self.over = True
        self.inbox.put_nowait(item)

    def cancel(self) -> None:
        """Ends the turn here and now, without waiting for the server's word."""
        for index in range(self.choice_count):
            ended = pb.ChoiceFinished(index=index, reason=pb.FINISH_REASON_CANCELLED)
            self.inbox.put_nowait(pb.CompletionEvent(choice_finished=ended))
        self.end(None)


@dataclass(frozen=True, slots=True)
class CancelTurn:
    """Asks to end a turn; the running one if none is named."""

    turn: Turn | None = None


class Turns:
    """The turns of one session. All sending goes through one caller of `frame`, in order."""

    def __init__(self) -> None:
        self.failure: SantaCoderError | None = None
        self._latest: Turn | None = None
        self._number = 0

    def frame(self, action: Turn | CancelTurn) -> pb.CompletionSessionRequest | None:
        """The message for an action; None if there is nothing left to do."""
        latest = self._latest
        if isinstance(action, CancelTurn):
            if latest is None or latest.over or action.turn not in (None, latest):
                return None
            latest.cancel()
            self._number += 1
            return pb.CompletionSessionRequest(turn=self._number, cancel=pb.TurnCancel())
        if latest is not None and not latest.over:
            latest.cancel()
        self._number += 1
        action.number = self._number
        self._latest = action
        if self.failure is not None:  # looked at last: `fail` sets it first
            action.end(self.failure)
            return None
        return pb.CompletionSessionRequest(turn=action.number, completion=action.completion)

    def deliver(self, response: pb.CompletionSessionResponse) -> None:
        """Hands a reply on. What comes late for an older turn is dropped."""
        turn = self._latest
        if turn is None or turn.over or turn.number != response.turn:
            return
        match response.WhichOneof("reply"):
            case "error":
                turn.end(error_from_status(response.error))
            case "event":
                turn.choice_count = response.event.accepted.completion_count or turn.choice_count
                turn.inbox.put_nowait(response.event)
                if response.event.HasField("finished"):
                    turn.end(None)

    def fail(self, error: SantaCoderError) -> None:
        """The session is over; so is the turn that runs."""
        self.failure = error
        if self._latest is not None and not self._latest.over:
            self._latest.end(error)


def turn_deadline_exceeded(timeout_seconds: float) -> DeadlineExceeded:
    """A turn has no deadline on the wire, so the client keeps it."""
    return DeadlineExceeded(
        f"the turn was not complete after {timeout_seconds:g} s",
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
    )
