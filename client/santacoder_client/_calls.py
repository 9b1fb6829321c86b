"""A call over as many attempts as it takes, for blocking callers. `_retry.py` decides.

Each attempt goes to a server that may not be the one before: a completion is asked for what has not
come yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._channel import HEALTH_SECONDS, SERVING, Connection, Stubs
from santacoder_client._resume import Received
from santacoder_client._retry import Retries
from santacoder_client.errors import (
    Cancelled,
    DeadlineExceeded,
    SantaCoderError,
    Unavailable,
    rpc_errors,
)

Response = TypeVar("Response")


class Patience:
    """Waits for the moment of the next attempt, and says where it goes: to `stubs`."""

    def __init__(self, connection: Connection, retries: Retries) -> None:
        """Raises RuntimeError if the client is closed."""
        self.stubs = connection.stubs()
        self._connection = connection
        self._retries = retries
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends a wait, now or to come."""
        self._cancelled.set()

    def wait(self, error: SantaCoderError) -> None:
        """After an attempt has failed: returns for the next one; raises if there is to be none."""
        pause = self._retries.after(error)
        self._leave()
        while not self._cancelled.wait(pause.seconds):
            if not pause.awaits_server or self._is_serving():
                return
            self._leave()
            pause = self._retries.not_serving(error)
        raise Cancelled("the request was cancelled")

    def _leave(self) -> None:
        self.stubs = self._connection.leave(self.stubs)

    def _is_serving(self) -> bool:
        left = self._retries.left_seconds()
        seconds = HEALTH_SECONDS if left is None else min(HEALTH_SECONDS, left)
        # Where there are others, the time is theirs.
        waits = not self._connection.has_others
        try:
            with rpc_errors():
                return self.stubs.health(b"", timeout=seconds, wait_for_ready=waits) == SERVING
        except (Unavailable, DeadlineExceeded):
            return False
        except Cancelled:
            raise
        except SantaCoderError:
            return True  # a server is there, and its health nobody's business


def ask(
    connection: Connection, retries: Retries, attempt: Callable[[Stubs, float | None], Response]
) -> Response:
    """The answer to a call that may be repeated. `attempt` is given its timeout in seconds."""
    patience = Patience(connection, retries)
    while True:
        try:
            with rpc_errors():
                response = attempt(patience.stubs, retries.left_seconds())
        except SantaCoderError as error:
            patience.wait(error)
        else:
            retries.answered()
            return response


def complete(
    connection: Connection, request: pb.CompletionRequest, retries: Retries
) -> pb.CompleteResponse:
    """A whole answer. One that was lost is asked for again: nothing of it had come."""
    received = Received(request)

    def attempt(stubs: Stubs, timeout_seconds: float | None) -> pb.CompleteResponse:
        rest = received.rest(retries.elapsed_seconds) if retries.has_failed else request
        message = pb.CompleteRequest(completion=rest)
        return stubs.completion.Complete(message, timeout=timeout_seconds)

    return ask(connection, retries, attempt)


class ResumingCall:
    """An answer in pieces, which goes on where it was after its server is gone."""

    def __init__(
        self, connection: Connection, request: pb.CompletionRequest, retries: Retries
    ) -> None:
        """Sends the request. Raises RuntimeError if the client is closed."""
        self._retries = retries
        self._received = Received(request)
        self._patience = Patience(connection, retries)
        self._open(request)

    def receive(self) -> pb.CompletionEvent | None:
        """The next event; None at the end."""
        while True:
            try:
                with rpc_errors():
                    response = next(self._call, None)
            except SantaCoderError as error:
                if self._received.is_whole:
                    return None
                self._patience.wait(error)
                self._open(self.rest())
                continue
            if response is None:
                return None
            event = response.event
            if self._received.add(event):
                self._retries.progressed(bool(event.delta.token_ids))
                if self._received.is_whole:
                    self._retries.answered()
                return event

    def rest(self) -> pb.CompletionRequest:
        """The request for what has not been received."""
        return self._received.rest(self._retries.elapsed_seconds)

    def cancel(self) -> None:
        """Ends it; from any thread."""
        self._patience.cancel()
        self._call.cancel()

    def _open(self, completion: pb.CompletionRequest) -> None:
        completions = self._patience.stubs.completion
        request = pb.StreamCompleteRequest(completion=completion)
        self._call = completions.StreamComplete(request, timeout=self._retries.left_seconds())
        if self._patience.is_cancelled:
            self._call.cancel()
