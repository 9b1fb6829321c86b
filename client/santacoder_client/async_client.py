"""The client for event loops: the verbs of `client.py`, awaited; knows as little of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import _async_calls, _codec
from santacoder_client._async_session import AsyncSession
from santacoder_client._channel import (
    DEFAULT_TARGET,
    HEALTH_SECONDS,
    READY_POLL_SECONDS,
    SERVING,
    AsyncConnection,
    not_ready,
)
from santacoder_client._options import CompletionOptions
from santacoder_client._resume import read_bookmark
from santacoder_client._retry import DEFAULT_POLICY, Retries, RetryBudget, RetryPolicy
from santacoder_client._security import servers_of
from santacoder_client._stream import AsyncCompletionStream
from santacoder_client._tls import TLS, tls_of
from santacoder_client.errors import DeadlineExceeded, Unavailable, async_rpc_errors
from santacoder_client.types import Completion, Infill, ModelInfo, Priority, Prompt


class AsyncClient:
    """One server, awaited. A client belongs to the event loop that uses it first.

    Verbs, options and errors are `Client`'s. Cancelling a task cancels its request.

    Example:
        >>> async with AsyncClient("127.0.0.1:50051") as client:
        ...     done = await client.complete("def fib(n):", max_new_tokens=64)
        ...     async for piece in client.stream("def fib(n):", max_new_tokens=64):
        ...         print(piece.text, end="", flush=True)
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: TLS | bool = False,
        token: str | None = None,
        allow_plain_token: bool = False,
        retry: RetryPolicy | None = DEFAULT_POLICY,
    ) -> None:
        """Sends nothing yet. Raises ValueError for what cannot be used.

        Args:
            target: HOST:PORT or unix:PATH, or several with commas between: the first that serves
                is used, and the next when it is gone.
            tls: encrypt; a TLS says with which certificates, True with those gRPC trusts.
            token: says who calls, where the server wants to know.
            allow_plain_token: send the token to another machine without encryption.
            retry: how long calls wait for a server that is gone, and go on with the next; None
                means that they fail.
        """
        servers = servers_of(target, tls_of(tls), token, allow_plain_token)
        self._connection = AsyncConnection(servers)
        self._retry = retry
        self._budget = RetryBudget()

    async def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Completion:
        """Continues a prompt. See `Client.complete`."""
        return await self._complete(prompt, options)

    def stream(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> AsyncCompletionStream:
        """Continues a prompt, in pieces as they come: `async for`. See `Client.stream`."""
        return self._stream(prompt, options)

    async def infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> Completion:
        """Fills in the middle. See `Client.infill`."""
        return await self._complete(Infill(prefix, suffix), options)

    def stream_infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> AsyncCompletionStream:
        """Fills in the middle, in pieces as they come: `async for`."""
        return self._stream(Infill(prefix, suffix), options)

    def resume(self, bookmark: bytes, *, timeout: float | None = None) -> AsyncCompletionStream:
        """Goes on with a stream of a process that has died, behind what it had.

        Pieces, and `result`, are of the rest alone; `usage` counts the whole. Raises ValueError for
        what `bookmark` of a stream did not give.
        """
        return self._streamed(read_bookmark(bookmark), _codec.check_timeout(timeout))

    def session(
        self, *, priority: Priority | str | None = None, cache_salt: str | bytes | None = None
    ) -> AsyncSession:
        """Opens an editor's session: `async with`. See `Client.session`."""
        opening = _codec.encode_session_open({"priority": priority, "cache_salt": cache_salt})
        return AsyncSession(self._connection, opening, self._retries)

    async def tokenize(self, text: str, *, timeout: float | None = None) -> list[int]:
        """The text's ids, none added. What looks like a special token stays text."""
        request = _codec.encode_tokenize(text)
        seconds = _codec.check_timeout(timeout)
        response = await _async_calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.tokenizer.Tokenize(request, timeout=left),
        )
        return list(response.token_ids)

    async def detokenize(self, token_ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The ids' text; bytes that are no whole character show as U+FFFD."""
        request = _codec.encode_detokenize(token_ids)
        seconds = _codec.check_timeout(timeout)
        response = await _async_calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.tokenizer.Detokenize(request, timeout=left),
        )
        return response.text

    async def model(self, *, timeout: float | None = None) -> ModelInfo:
        """What is served: geometry, limits, defaults, capabilities."""
        seconds = _codec.check_timeout(timeout)
        response = await _async_calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.model.GetModel(pb.GetModelRequest(), timeout=left),
        )
        return _codec.decode_model(response)

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server says that it serves; Unavailable after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        stubs, is_alone = self._connection.stubs(), not self._connection.has_others
        while (left := deadline - loop.time()) > 0:
            seconds = left if is_alone else min(left, HEALTH_SECONDS)
            with suppress(Unavailable, DeadlineExceeded), async_rpc_errors():
                if await stubs.health(b"", timeout=seconds, wait_for_ready=is_alone) == SERVING:
                    return
            stubs = self._connection.leave(stubs)
            await asyncio.sleep(READY_POLL_SECONDS)
        raise not_ready(timeout)

    async def close(self) -> None:
        """Cancels what is running. May be called again."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _complete(self, prompt: Prompt | Infill, options: CompletionOptions) -> Completion:
        completion, timeout_seconds = _codec.encode_call(prompt, options)
        retries = self._retries(timeout_seconds)
        response = await _async_calls.complete(self._connection, completion, retries)
        return _codec.decode_completion(response)

    def _stream(self, prompt: Prompt | Infill, options: CompletionOptions) -> AsyncCompletionStream:
        return self._streamed(*_codec.encode_call(prompt, options))

    def _streamed(
        self, completion: pb.CompletionRequest, timeout_seconds: float | None
    ) -> AsyncCompletionStream:
        retries = self._retries(timeout_seconds)
        call = _async_calls.AsyncResumingCall(self._connection, completion, retries)
        return AsyncCompletionStream(call.receive, call.cancel, call.rest)

    def _retries(self, timeout_seconds: float | None) -> Retries:
        return Retries(self._retry, self._budget, timeout_seconds)
