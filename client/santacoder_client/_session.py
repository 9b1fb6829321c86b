"""An editor's session, blocking: one stream on which each completion supersedes the one before.

Knows how to wait with threads; what to say and to whom a reply belongs is `_turns.py`'s. When the
server is gone the running turn goes on with the next, as a completion does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._calls import Patience
from santacoder_client._channel import Connection, Stubs
from santacoder_client._codec import encode_call
from santacoder_client._options import CompletionOptions
from santacoder_client._resume import Received
from santacoder_client._retry import Retries
from santacoder_client._stream import CompletionStream
from santacoder_client._turns import (
    Item,
    Turn,
    Turns,
    reader_failed,
    session_lost,
    turn_deadline_exceeded,
)
from santacoder_client.errors import Cancelled, SantaCoderError, rpc_errors
from santacoder_client.types import Completion, Infill, Prompt

MakeRetries = Callable[[float | None], Retries]
"""The attempts of a turn with so many seconds."""


class _Line:
    """One call to one server. Frames go out in the order in which they were put."""

    def __init__(self, stubs: Stubs, frames: Iterable[pb.CompletionSessionRequest]) -> None:
        self.stubs = stubs
        self._outbox: queue.SimpleQueue[pb.CompletionSessionRequest | None] = queue.SimpleQueue()
        for frame in frames:
            self.send(frame)
        self.call = stubs.completion.CompletionSession(self._frames())

    def send(self, frame: pb.CompletionSessionRequest) -> None:
        self._outbox.put(frame)

    def close(self) -> None:
        self.call.cancel()
        self._outbox.put(None)

    def _frames(self) -> Iterator[pb.CompletionSessionRequest]:
        """gRPC waits here, on a thread of its own."""
        while (frame := self._outbox.get()) is not None:
            yield frame


@dataclass(eq=False)
class _Turn(Turn):
    patience: Patience = field(kw_only=True)

    def end(self, item: Item) -> None:
        """Nobody waits for a server either."""
        super().end(item)
        self.patience.cancel()


class Session:
    """Completions for one document: a new one cancels the one that runs. Threads may share it.

    Example:
        >>> with client.session(priority="high") as session:
        ...     for piece in session.stream_infill(before, after, max_new_tokens=32):
        ...         show(piece.text)
    """

    def __init__(
        self, connection: Connection, opening: pb.SessionOpen, make_retries: MakeRetries
    ) -> None:
        self._connection = connection
        self._make_retries = make_retries
        self._turns: Turns[_Turn] = Turns(opening)
        self._closed = False
        # Guards turns and line, and is told of every new turn.
        self._changed = threading.Condition()
        self._line = _Line(connection.stubs(), self._turns.anew())
        self._reader = threading.Thread(target=self._read, name="santacoder-session", daemon=True)
        self._reader.start()

    def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Completion:
        """Like `Client.complete`. Raises Cancelled when another turn supersedes it."""
        with self._start(prompt, options) as stream:
            return stream.result()

    def stream(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> CompletionStream:
        """Like `Client.stream`. When superseded it ends with a piece of reason CANCELLED."""
        return self._start(prompt, options)

    def infill(self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]) -> Completion:
        """Like `Client.infill`. Raises Cancelled when another turn supersedes it."""
        with self._start(Infill(prefix, suffix), options) as stream:
            return stream.result()

    def stream_infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> CompletionStream:
        """Like `Client.stream_infill`. When superseded it ends with a piece of reason CANCELLED."""
        return self._start(Infill(prefix, suffix), options)

    def cancel(self) -> None:
        """Ends the running turn, if there is one; the session goes on."""
        self._cancel(None)

    def close(self) -> None:
        """Ends the session and its running turn. May be called again."""
        with self._changed:
            self._closed = True
            self._end_running(Cancelled("the session was closed"))
            self._line.close()
            self._changed.notify_all()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, prompt: Prompt | Infill, options: CompletionOptions) -> CompletionStream:
        completion, timeout_seconds = encode_call(prompt, options)
        inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        retries = self._make_retries(timeout_seconds)
        patience = Patience(self._connection, retries)
        turn = _Turn(completion, inbox, retries, patience=patience)
        with self._changed:
            if self._closed:
                raise RuntimeError("the session is closed; open a new one")
            # On a line that is dead already it is lost; then it is the first on the next one.
            self._line.send(self._turns.begin(turn))
            self._changed.notify_all()
        receive = _Receive(inbox, turn.shown, timeout_seconds)
        unseen = partial(self._turns.unseen, turn)
        return CompletionStream(receive, lambda: self._cancel(turn), unseen)

    def _cancel(self, turn: _Turn | None) -> None:
        with self._changed:
            frame = self._turns.cancel(turn)
            if frame is not None:
                self._line.send(frame)

    def _end_running(self, error: SantaCoderError) -> None:
        if self._turns.running is not None:
            self._turns.running.end(error)

    def _read(self) -> None:
        """Hands out replies until the session is closed, on a thread of its own."""
        try:
            while self._reopened_after(self._failure_of(self._line)):
                pass
        except Exception as cause:
            with self._changed:
                self._end_running(reader_failed(self._connection.is_closed, cause))
                self._closed = True

    def _failure_of(self, line: _Line) -> SantaCoderError:
        """Hands out replies until the line ends; why it has."""
        try:
            with rpc_errors():
                for response in line.call:
                    with self._changed:
                        self._turns.deliver(response)
        except SantaCoderError as error:
            return error
        return session_lost()

    def _reopened_after(self, error: SantaCoderError) -> bool:
        """Opens the next line once there is a turn for it; False once the session is closed."""
        self._line.close()
        self._connection.stubs()  # raises where the client is closed
        with self._changed:
            failed = self._turns.running
        while (turn := self._next_turn()) is not None:
            if turn is failed and not self._may_go_on(turn, error):
                continue
            with self._changed:
                if not self._closed:
                    # A turn that goes on has asked its server already whether it serves.
                    stubs = turn.patience.stubs if turn is failed else self._connection.stubs()
                    self._line = _Line(stubs, self._turns.anew())
                    return True
        return False

    def _next_turn(self) -> _Turn | None:
        """Waits for one that has not ended; None once the session is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._turns.running is not None)
            return None if self._closed else self._turns.running

    def _may_go_on(self, turn: _Turn, error: SantaCoderError) -> bool:
        """Waits for the next server; False if the turn has ended instead."""
        # Left is the server that failed, which may not be the one that others use by now.
        turn.patience.stubs = self._line.stubs
        try:
            turn.patience.wait(error)
        except SantaCoderError as final:
            with self._changed:
                turn.end(final)
        return not turn.over


class _Receive:
    """Takes the next event out of a turn's inbox, until its time is up."""

    def __init__(
        self, inbox: queue.SimpleQueue[Item], shown: Received, timeout_seconds: float | None
    ) -> None:
        self._inbox = inbox
        self._shown = shown
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()

    def __call__(self) -> pb.CompletionEvent | None:
        item = self._take()
        if isinstance(item, SantaCoderError):
            raise item
        if item is not None:
            self._shown.add(item)
        return item

    def _take(self) -> Item:
        if self._timeout_seconds is None:
            return self._inbox.get()
        left = self._started + self._timeout_seconds - time.monotonic()
        try:
            return self._inbox.get(timeout=max(left, 0))
        except queue.Empty:
            raise turn_deadline_exceeded(self._timeout_seconds) from None
