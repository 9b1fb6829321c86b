"""An editor's session, awaited: the same turns as `_session.py`, waited for with tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._channel import AsyncStubs
from santacoder_client._codec import encode_call
from santacoder_client._options import CompletionOptions
from santacoder_client._stream import AsyncCompletionStream, read
from santacoder_client._turns import CancelTurn, Item, Turn, Turns, turn_deadline_exceeded
from santacoder_client.errors import Cancelled, SantaCoderError, async_rpc_errors
from santacoder_client.types import Completion, Infill, Prompt


class AsyncSession:
    """Completions for one document: a new one cancels the one that runs.

    Example:
        >>> async with client.session(priority="high") as session:
        ...     async for piece in session.stream_infill(before, after, max_new_tokens=32):
        ...         show(piece.text)
    """

    def __init__(self, stubs: AsyncStubs, opening: pb.SessionOpen) -> None:
        self._turns = Turns()
        self._outbox: asyncio.Queue[Turn | CancelTurn] = asyncio.Queue()
        self._closed = False
        self._call = stubs.completion.CompletionSession(self._frames(opening))
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
        self._outbox.put_nowait(CancelTurn())

    async def close(self) -> None:
        """Ends the session and its running turn. May be called again."""
        self._closed = True
        self._call.cancel()
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
        turn = Turn(completion, inbox)
        if self._turns.failure is not None:  # nobody is sending any more
            turn.end(self._turns.failure)
        else:
            self._outbox.put_nowait(turn)
        receive = _Receive(inbox, timeout_seconds)
        return AsyncCompletionStream(receive, lambda: self._outbox.put_nowait(CancelTurn(turn)))

    async def _frames(self, opening: pb.SessionOpen) -> AsyncIterator[pb.CompletionSessionRequest]:
        """What to send; gRPC waits here, in a task of its own."""
        yield pb.CompletionSessionRequest(open=opening)
        while True:
            frame = self._turns.frame(await self._outbox.get())
            if frame is not None:
                yield frame

    async def _read(self) -> None:
        """Hands out replies until the session ends, in a task of its own."""
        failure: SantaCoderError = Cancelled("the session has ended")
        try:
            with async_rpc_errors():
                while response := await read(self._call, pb.CompletionSessionResponse):
                    self._turns.deliver(response)
        except SantaCoderError as error:
            failure = error
        self._turns.fail(failure)
        while not self._outbox.empty():
            action = self._outbox.get_nowait()
            if isinstance(action, Turn):
                action.end(failure)


class _Receive:
    """Takes the next event out of a turn's inbox, until its time is up."""

    def __init__(self, inbox: asyncio.Queue[Item], timeout_seconds: float | None) -> None:
        self._inbox = inbox
        self._timeout_seconds = timeout_seconds
        self._started = asyncio.get_running_loop().time()

    async def __call__(self) -> pb.CompletionEvent | None:
        item = await self._take()
        if isinstance(item, SantaCoderError):
            raise item
        return item

    async def _take(self) -> Item:
        if self._timeout_seconds is None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout_at(self._started + self._timeout_seconds):
                return await self._inbox.get()
        except TimeoutError:
            raise turn_deadline_exceeded(self._timeout_seconds) from None
