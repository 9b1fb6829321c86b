"""A completion over as many calls as it takes, awaited: `_calls.py` for event loops."""

from __future__ import annotations

import asyncio

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._channel import SERVING, AsyncConnection
from santacoder_client._resume import Received
from santacoder_client._retry import Retries
from santacoder_client._stream import read
from santacoder_client.errors import (
    Cancelled,
    DeadlineExceeded,
    SantaCoderError,
    Unavailable,
    async_rpc_errors,
)

HEALTH_SECONDS = 1.0
"""Longest question for health: a cancel is seen as late as that, while no server is there."""


class AsyncPatience:
    """Waits for the moment of the next attempt."""

    def __init__(self, connection: AsyncConnection, retries: Retries) -> None:
        self._connection = connection
        self._retries = retries
        self._cancelled = asyncio.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends a wait, now or to come."""
        self._cancelled.set()

    async def wait(self, error: SantaCoderError) -> None:
        """After an attempt has failed: returns for the next one; raises if there is to be none."""
        pause = self._retries.after(error)
        while not await self._is_cancelled_within(pause.seconds):
            if not pause.awaits_server or await self._is_serving():
                return
            pause = self._retries.not_serving(error)
        raise Cancelled("the request was cancelled")

    async def _is_cancelled_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._cancelled.wait()
        except TimeoutError:
            return False

    async def _is_serving(self) -> bool:
        left = self._retries.left_seconds()
        seconds = HEALTH_SECONDS if left is None else min(HEALTH_SECONDS, left)
        health = self._connection.stubs().health
        try:
            with async_rpc_errors():
                return await health(b"", timeout=seconds, wait_for_ready=True) == SERVING
        except (Unavailable, DeadlineExceeded):
            return False
        except Cancelled:
            raise
        except SantaCoderError:
            return True  # a server is there, and its health nobody's business


async def complete(
    connection: AsyncConnection, request: pb.CompletionRequest, retries: Retries
) -> pb.CompleteResponse:
    """A whole answer. One that was lost is asked for again: nothing of it had come."""
    stubs = connection.stubs()
    received, patience = Received(request), AsyncPatience(connection, retries)
    message = pb.CompleteRequest(completion=request)
    while True:
        try:
            with async_rpc_errors():
                response = await stubs.completion.Complete(message, timeout=retries.left_seconds())
        except SantaCoderError as error:
            await patience.wait(error)
            stubs = connection.stubs()
            message = pb.CompleteRequest(completion=received.rest(retries.elapsed_seconds))
        else:
            retries.answered()
            return response


class AsyncResumingCall:
    """An answer in pieces, which goes on where it was after its server is gone."""

    def __init__(
        self, connection: AsyncConnection, request: pb.CompletionRequest, retries: Retries
    ) -> None:
        """Sends the request. Raises RuntimeError if the client is closed."""
        self._connection = connection
        self._retries = retries
        self._received = Received(request)
        self._patience = AsyncPatience(connection, retries)
        self._open(request)

    async def receive(self) -> pb.CompletionEvent | None:
        """The next event; None at the end."""
        while True:
            try:
                with async_rpc_errors():
                    response = await read(self._call, pb.StreamCompleteResponse)
            except SantaCoderError as error:
                if self._received.is_whole:
                    return None
                await self._patience.wait(error)
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
        """Ends it."""
        self._patience.cancel()
        self._call.cancel()

    def _open(self, completion: pb.CompletionRequest) -> None:
        completions = self._connection.stubs().completion
        request = pb.StreamCompleteRequest(completion=completion)
        self._call = completions.StreamComplete(request, timeout=self._retries.left_seconds())
        if self._patience.is_cancelled:
            self._call.cancel()
