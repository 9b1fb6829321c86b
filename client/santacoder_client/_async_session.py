"""An editor's session, awaited: the same turns as `_session.py`, waited for with tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._async_calls import AsyncPatience
from santacoder_client._channel import AsyncConnection, AsyncStubs
from santacoder_client._codec import encode_call
from santacoder_client._options import CompletionOptions
from santacoder_client._resume import Received
from santacoder_client._session import MakeRetries
from santacoder_client._stream import AsyncCompletionStream, read
from santacoder_client._turns import (
    Item,
    Turn,
    Turns,
    reader_failed,
    session_lost,
    turn_deadline_exceeded,
)
from santacoder_client.errors import Cancelled, SantaCoderError, async_rpc_errors
from santacoder_client.types import Completion, Infill, Prompt


class _Line:
    """One call to one server. Frames go out in the order in which they were put."""

    def __init__(self, stubs: AsyncStubs, frames: Iterable[pb.CompletionSessionRequest]) -> None:
        self.stubs = stubs
        self._outbox: asyncio.Queue[pb.CompletionSessionRequest | None] = asyncio.Queue()
        for frame in frames:
            self.send(frame)
        self.call = stubs.completion.CompletionSession(self._frames())

    def send(self, frame: pb.CompletionSessionRequest) -> None:
        self._outbox.put_nowait(frame)

    def close(self) -> None:
        self.call.cancel()
        # Where the call had ended by itself, gRPC still waits for a frame.
        self._outbox.put_nowait(None)

    async def _frames(self) -> AsyncIterator[pb.CompletionSessionRequest]:
        """gRPC waits here, in a task of its own."""
        while (frame := await self._outbox.get()) is not None:
            yield frame


@dataclass(eq=False)
class _Turn(Turn):
    patience: AsyncPatience = field(kw_only=True)

    def end(self, item: Item) -> None:
        """Nobody waits for a server either."""
        super().end(item)
        self.patience.cancel()


class AsyncSession:
    """Completions for one document: a new one cancels the one that runs.

    Example:
        >>> async with client.session(priority="high") as session:
        ...     async for piece in session.stream_infill(before, after, max_new_tokens=32):
        ...         show(piece.text)
    """

    def __init__(
        self, connection: AsyncConnection, opening: pb.SessionOpen, make_retries: MakeRetries
    ) -> None:
        self._connection = connection
        self._make_retries = make_retries
        self._turns: Turns[_Turn] = Turns(opening)
        self._closed = False
        self._begun = asyncio.Event()
        self._line = _Line(connection.stubs(), self._turns.anew())
        self._reader = asyncio.create_task(self._read(), name="santacoder-session")

    async def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Completion:
        """Like `AsyncClient.complete`. Raises Cancelled when another turn supersedes it."""
        async with self._start(prompt, options) as stream:
            return await stream.result()

    def stream(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> AsyncCompletionStream:
        """Like `AsyncClient.stream`. When superseded it ends with a piece of reason CANCELLED."""
        return self._start(prompt, options)

    async def infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> Completion:
        """Like `AsyncClient.infill`. Raises Cancelled when another turn supersedes it."""
        async with self._start(Infill(prefix, suffix), options) as stream:
            return await stream.result()

    def stream_infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> AsyncCompletionStream:
        """Like `AsyncClient.stream_infill`. When superseded its last piece says CANCELLED."""
        return self._start(Infill(prefix, suffix), options)

    def cancel(self) -> None:
        """Ends the running turn, if there is one; the session goes on."""
        self._cancel(None)

    async def close(self) -> None:
        """Ends the session and its running turn. May be called again."""
        self._closed = True
        self._end_running(Cancelled("the session was closed"))
        self._line.close()
        self._begun.set()
        await asyncio.wait([self._reader])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _start(self, prompt: Prompt | Infill, options: CompletionOptions) -> AsyncCompletionStream:
        if self._closed:
            raise RuntimeError("the session is closed; open a new one")
        completion, timeout_seconds = encode_call(prompt, options)
        inbox: asyncio.Queue[Item] = asyncio.Queue()
        retries = self._make_retries(timeout_seconds)
        patience = AsyncPatience(self._connection, retries)
        turn = _Turn(completion, inbox, retries, patience=patience)
        # On a line that is dead already it is lost; then it is the first on the next one.
        self._line.send(self._turns.begin(turn))
        self._begun.set()
        receive = _Receive(inbox, turn.shown, timeout_seconds)
        unseen = partial(self._turns.unseen, turn)
        return AsyncCompletionStream(receive, lambda: self._cancel(turn), unseen)

    def _cancel(self, turn: _Turn | None) -> None:
        frame = self._turns.cancel(turn)
        if frame is not None:
            self._line.send(frame)

    def _end_running(self, error: SantaCoderError) -> None:
        if self._turns.running is not None:
            self._turns.running.end(error)

    async def _read(self) -> None:
        """Hands out replies until the session is closed, in a task of its own."""
        try:
            while await self._reopened_after(await self._failure_of(self._line)):
                pass
        except Exception as cause:
            self._end_running(reader_failed(self._connection.is_closed, cause))
            self._closed = True

    async def _failure_of(self, line: _Line) -> SantaCoderError:
        """Hands out replies until the line ends; why it has."""
        try:
            with async_rpc_errors():
                while response := await read(line.call, pb.CompletionSessionResponse):
                    self._turns.deliver(response)
        except SantaCoderError as error:
            return error
        return session_lost()

    async def _reopened_after(self, error: SantaCoderError) -> bool:
        """Opens the next line once there is a turn for it; False once the session is closed."""
        self._line.close()
        self._connection.stubs()  # raises where the client is closed
        failed = self._turns.running
        while (turn := await self._next_turn()) is not None:
            if turn is failed and not await self._may_go_on(turn, error):
                continue
            if not self._closed:
                # A turn that goes on has asked its server already whether it serves.
                stubs = turn.patience.stubs if turn is failed else self._connection.stubs()
                self._line = _Line(stubs, self._turns.anew())
                return True
        return False

    async def _next_turn(self) -> _Turn | None:
        """Waits for one that has not ended; None once the session is closed."""
        while not self._closed and self._turns.running is None:
            self._begun.clear()
            await self._begun.wait()
        return None if self._closed else self._turns.running

    async def _may_go_on(self, turn: _Turn, error: SantaCoderError) -> bool:
        """Waits for the next server; False if the turn has ended instead."""
        # Left is the server that failed, which may not be the one that others use by now.
        turn.patience.stubs = self._line.stubs
        try:
            await turn.patience.wait(error)
        except SantaCoderError as final:
            turn.end(final)
        return not turn.over


class _Receive:
    """Takes the next event out of a turn's inbox, until its time is up."""

    def __init__(
        self, inbox: asyncio.Queue[Item], shown: Received, timeout_seconds: float | None
    ) -> None:
        self._inbox = inbox
        self._shown = shown
        self._timeout_seconds = timeout_seconds
        self._started = asyncio.get_running_loop().time()

    async def __call__(self) -> pb.CompletionEvent | None:
        item = await self._take()
        if isinstance(item, SantaCoderError):
            raise item
        if item is not None:
            self._shown.add(item)
        return item

    async def _take(self) -> Item:
        if self._timeout_seconds is None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout_at(self._started + self._timeout_seconds):
                return await self._inbox.get()
        except TimeoutError:
            raise turn_deadline_exceeded(self._timeout_seconds) from None
