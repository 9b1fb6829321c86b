"""The blocking client in the shape of the awaited one, so that a test states a fact once for both.

It adds awaiting and nothing else: every iterator, context and error is the blocking client's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, Self, TypeVar, cast

from santacoder_client import AsyncClient, Client, CompletionStream, Piece

Fact = TypeVar("Fact")


class Ask(Protocol):
    """Runs a scenario with a client of one kind, connected to a target."""

    def __call__(
        self, target: str, scenario: Callable[[AsyncClient], Awaitable[Fact]], /
    ) -> Fact: ...


def ask_sync(target: str, scenario: Callable[[AsyncClient], Awaitable[Fact]], /) -> Fact:
    """Runs a scenario with the blocking client."""

    async def run() -> Fact:
        with Client(target) as client:
            return await scenario(cast(AsyncClient, _Awaited(client)))

    return asyncio.run(run())


def ask_async(target: str, scenario: Callable[[AsyncClient], Awaitable[Fact]], /) -> Fact:
    """Runs a scenario with the awaited client."""

    async def run() -> Fact:
        async with AsyncClient(target) as client:
            return await scenario(client)

    return asyncio.run(run())


class _Awaited:
    """A blocking client or session; its verbs are awaited, its streams are `async for`."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._blocking, name)
        match name:
            case "stream" | "stream_infill" | "resume":
                return lambda *values, **options: _AwaitedStream(verb(*values, **options))
            case "session":
                return lambda **options: _Awaited(verb(**options))
            case "cancel":
                return verb

        async def awaited(*values: Any, **options: Any) -> Any:
            return verb(*values, **options)

        return awaited

    async def __aenter__(self) -> Self:
        self._blocking.__enter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._blocking.__exit__(*exception)


class _AwaitedStream:
    def __init__(self, stream: CompletionStream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _AwaitedLoop:
        return _AwaitedLoop(iter(self._stream))

    async def __anext__(self) -> Piece:
        return _next(self._stream)

    async def result(self) -> Any:
        return self._stream.result()

    async def aclose(self) -> None:
        self._stream.close()


class _AwaitedLoop:
    def __init__(self, pieces: Generator[Piece, None, None]) -> None:
        self._pieces = pieces

    async def __anext__(self) -> Piece:
        return _next(self._pieces)


def _next(pieces: CompletionStream | Generator[Piece, None, None]) -> Piece:
    try:
        return next(pieces)
    except StopIteration:
        raise StopAsyncIteration from None
