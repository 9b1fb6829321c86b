"""An editor's session, blocking: one stream on which each completion supersedes the one before.

Knows how to wait with threads; what to say and to whom a reply belongs is `_turns.py`'s.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._channel import Stubs
from santacoder_client._codec import encode_call
from santacoder_client._options import CompletionOptions
from santacoder_client._stream import CompletionStream
from santacoder_client._turns import CancelTurn, Item, Turn, Turns, turn_deadline_exceeded
from santacoder_client.errors import Cancelled, SantaCoderError, rpc_errors
from santacoder_client.types import Completion, Infill, Prompt


class Session:
    """Completions for one document: a new one cancels the one that runs. Threads may share it.

    Example:
        >>> with client.session(priority="high") as session:
        ...     for piece in session.stream_infill(before, after, max_new_tokens=32):
        ...         show(piece.text)
    """

    def __init__(self, stubs: Stubs, opening: pb.SessionOpen) -> None:
        self._turns = Turns()
        self._outbox: queue.SimpleQueue[Turn | CancelTurn | None] = queue.SimpleQueue()
        self._closed = False
        self._call = stubs.completion.CompletionSession(self._frames(opening))
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
        self._outbox.put(CancelTurn())

    def close(self) -> None:
        """Ends the session and its running turn. May be called again."""
        self._closed = True
        self._call.cancel()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, prompt: Prompt | Infill, options: CompletionOptions) -> CompletionStream:
        if self._closed:
            raise RuntimeError("the session is closed; open a new one")
        completion, timeout_seconds = encode_call(prompt, options)
        inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        turn = Turn(completion, inbox)
        self._outbox.put(turn)
        if self._turns.failure is not None:  # nobody may be sending any more
            turn.end(self._turns.failure)
        receive = _Receive(inbox, timeout_seconds)
        return CompletionStream(receive, lambda: self._outbox.put(CancelTurn(turn)))

    def _frames(self, opening: pb.SessionOpen) -> Iterator[pb.CompletionSessionRequest]:
        """What to send; gRPC waits here, on a thread of its own."""
        yield pb.CompletionSessionRequest(open=opening)
        while (action := self._outbox.get()) is not None:
            frame = self._turns.frame(action)
            if frame is not None:
                yield frame

    def _read(self) -> None:
        """Hands out replies until the session ends, on a thread of its own."""
        failure: SantaCoderError = Cancelled("the session has ended")
        try:
            with rpc_errors():
                for response in self._call:
                    self._turns.deliver(response)
        except SantaCoderError as error:
            failure = error
        self._turns.fail(failure)
        self._fail_unsent(failure)
        self._outbox.put(None)

    def _fail_unsent(self, failure: SantaCoderError) -> None:
        try:
            while True:
                action = self._outbox.get_nowait()
                if isinstance(action, Turn):
                    action.end(failure)
        except queue.Empty:
            return


class _Receive:
    """Takes the next event out of a turn's inbox, until its time is up."""

    def __init__(self, inbox: queue.SimpleQueue[Item], timeout_seconds: float | None) -> None:
        self._inbox = inbox
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()

    def __call__(self) -> pb.CompletionEvent | None:
        item = self._take()
        if isinstance(item, SantaCoderError):
            raise item
        return item

    def _take(self) -> Item:
        if self._timeout_seconds is None:
            return self._inbox.get()
        left = self._started + self._timeout_seconds - time.monotonic()
        try:
            return self._inbox.get(timeout=max(left, 0))
        except queue.Empty:
            raise turn_deadline_exceeded(self._timeout_seconds) from None
