"""A completion over as many calls as it takes, for blocking callers. `_retry.py` decides.

Each call goes to a server that may not be the one before: it is asked for what has not come yet.
"""

from __future__ import annotations

import threading

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._channel import SERVING, Connection
from santacoder_client._resume import Received
from santacoder_client._retry import Retries
from santacoder_client.errors import (
    Cancelled,
    DeadlineExceeded,
    SantaCoderError,
    Unavailable,
    rpc_errors,
)

HEALTH_SECONDS = 1.0
"""Longest question for health: a cancel is seen as late as that, while no server is there."""


class Patience:
    """Waits for the moment of the next attempt."""

    def __init__(self, connection: Connection, retries: Retries) -> None:
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
        while not self._cancelled.wait(pause.seconds):
            if not pause.awaits_server or self._is_serving():
                return
            pause = self._retries.not_serving(error)
        raise Cancelled("the request was cancelled")

    def _is_serving(self) -> bool:
        left = self._retries.left_seconds()
        seconds = HEALTH_SECONDS if left is None else min(HEALTH_SECONDS, left)
        health = self._connection.stubs().health
        try:
            with rpc_errors():
                return health(b"", timeout=seconds, wait_for_ready=True) == SERVING
        except (Unavailable, DeadlineExceeded):
            return False
        except Cancelled:
            raise
        except SantaCoderError:
            return True  # a server is there, and its health nobody's business


def complete(
    connection: Connection, request: pb.CompletionRequest, retries: Retries
) -> pb.CompleteResponse:
    """A whole answer. One that was lost is asked for again: nothing of it had come."""
    stubs = connection.stubs()
    received, patience = Received(request), Patience(connection, retries)
    message = pb.CompleteRequest(completion=request)
    while True:
        try:
            with rpc_errors():
                response = stubs.completion.Complete(message, timeout=retries.left_seconds())
        except SantaCoderError as error:
            patience.wait(error)
            stubs = connection.stubs()
            message = pb.CompleteRequest(completion=received.rest(retries.elapsed_seconds))
        else:
            retries.answered()
            return response


class ResumingCall:
    """An answer in pieces, which goes on where it was after its server is gone."""

    def __init__(
        self, connection: Connection, request: pb.CompletionRequest, retries: Retries
    ) -> None:
        """Sends the request. Raises RuntimeError if the client is closed."""
        self._connection = connection
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
                self._open(self._received.rest(self._retries.elapsed_seconds))
                continue
            if response is None:
                return None
            event = response.event
            if self._received.add(event):
                self._retries.progressed(bool(event.delta.token_ids))
                if self._received.is_whole:
                    self._retries.answered()
                return event

    def cancel(self) -> None:
        """Ends it; from any thread."""
        self._patience.cancel()
        self._call.cancel()

    def _open(self, completion: pb.CompletionRequest) -> None:
        completions = self._connection.stubs().completion
        request = pb.StreamCompleteRequest(completion=completion)
        self._call = completions.StreamComplete(request, timeout=self._retries.left_seconds())
        if self._patience.is_cancelled:
            self._call.cancel()
