"""Pieces of one completion as they come; knows not whether a call or a session brings them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Protocol, Self, TypeVar

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._assembly import Assembly
from santacoder_client.errors import Cancelled, SantaCoderError, async_rpc_errors, rpc_errors
from santacoder_client.types import Accepted, Completion, Piece, Timings, Usage

Receive = Callable[[], pb.CompletionEvent | None]
"""The next event; None when there are no more."""
AsyncReceive = Callable[[], Awaitable[pb.CompletionEvent | None]]
Rest = Callable[[], pb.CompletionRequest]
"""The request for what has not been received."""
Message = TypeVar("Message")


class Readable(Protocol):
    """A call of grpc.aio that messages can be read from."""

    async def read(self) -> object: ...


async def read(call: Readable, kind: type[Message]) -> Message | None:
    """The next message; None in place of grpc.aio's mark for the end."""
    message = await call.read()
    return message if isinstance(message, kind) else None


class _Stream:
    """What both kinds of stream have in common: everything but the waiting."""

    def __init__(self, cancel: Callable[[], object], rest: Rest) -> None:
        self._assembly = Assembly()
        self._cancel = cancel
        self._rest = rest
        self._ended = False

    @property
    def accepted(self) -> Accepted | None:
        """The values in force; None before the request starts to run."""
        return self._assembly.accepted

    @property
    def request_id(self) -> str | None:
        """The request's id; None before the request starts to run."""
        return self.accepted.request_id if self.accepted else None

    @property
    def usage(self) -> Usage | None:
        """Token counts; None before the end."""
        return self._assembly.usage

    @property
    def timings(self) -> Timings | None:
        """Where the time went; None before the end."""
        return self._assembly.timings

    def bookmark(self) -> bytes:
        """What it takes to go on behind the pieces so far, after this process has died.

        Holds the prompt and what has come of the answer. For `Client.resume`.
        """
        return self._rest().SerializeToString()

    def cancel(self) -> None:
        """Ends the request at once; the iteration ends too. Harmless when it has ended."""
        if not self._ended:
            self._ended = True
            self._cancel()

    def _fail(self, error: SantaCoderError) -> None:
        """Raises the error, unless it only tells of this stream's own cancel."""
        expected = self._ended and isinstance(error, Cancelled)
        self.cancel()  # a turn whose time is up still runs at the server
        if not expected:
            raise error

    def _piece(self, event: pb.CompletionEvent | None) -> Piece | None:
        if event is None or self._ended:
            self._ended = True
            return None
        return self._assembly.add(event)


class CompletionStream(_Stream):
    """Iterates over a completion's pieces. Leaving the loop early cancels the request.

    Example:
        >>> for piece in client.stream("def fib(n):", max_new_tokens=64):
        ...     print(piece.text, end="", flush=True)
    """

    def __init__(self, receive: Receive, cancel: Callable[[], object], rest: Rest) -> None:
        super().__init__(cancel, rest)
        self._receive = receive

    def __iter__(self) -> Generator[Piece, None, None]:
        # A generator of its own: it closes when a loop drops it, even if the stream has a name.
        try:
            while (piece := self._next()) is not None:
                yield piece
        finally:
            self.cancel()

    def __next__(self) -> Piece:
        piece = self._next()
        if piece is None:
            raise StopIteration
        return piece

    def result(self) -> Completion:
        """Reads to the end and gives the whole answer. Raises Cancelled if it was cut short."""
        while self._next() is not None:
            pass
        return self._assembly.completion()

    def close(self) -> None:
        """The same as `cancel`."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()

    def _next(self) -> Piece | None:
        while not self._ended:
            try:
                with rpc_errors():
                    event = self._receive()
            except SantaCoderError as error:
                self._fail(error)
                break
            piece = self._piece(event)
            if piece is not None:
                return piece
        return None


class AsyncCompletionStream(_Stream):
    """Iterates over a completion's pieces, awaited. Leaving the loop early cancels the request.

    Example:
        >>> async for piece in client.stream("def fib(n):", max_new_tokens=64):
        ...     print(piece.text, end="", flush=True)
    """

    def __init__(self, receive: AsyncReceive, cancel: Callable[[], object], rest: Rest) -> None:
        super().__init__(cancel, rest)
        self._receive = receive

    def __aiter__(self) -> AsyncIterator[Piece]:
        return _Loop(self)

    async def __anext__(self) -> Piece:
        piece = await self._next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def result(self) -> Completion:
        """Reads to the end and gives the whole answer. Raises Cancelled if it was cut short."""
        while await self._next() is not None:
            pass
        return self._assembly.completion()

    async def aclose(self) -> None:
        """The same as `cancel`."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.cancel()

    async def _next(self) -> Piece | None:
        while not self._ended:
            try:
                with async_rpc_errors():
                    event = await self._receive()
            except SantaCoderError as error:
                self._fail(error)
                break
            except asyncio.CancelledError:
                self.cancel()
                raise
            piece = self._piece(event)
            if piece is not None:
                return piece
        return None


class _Loop:
    """One `async for`. An async generator would cancel only when the event loop gets to it."""

    def __init__(self, stream: AsyncCompletionStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream.cancel()
