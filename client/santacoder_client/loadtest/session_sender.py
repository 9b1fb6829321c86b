"""Sends requests to a router as turns of editor sessions: of a free one, or of a person's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.request import Encoder, Wishes
from santacoder_client.loadtest.router_sender import SERVICE, open_channels
from santacoder_client.loadtest.sender import Clock
from santacoder_client.loadtest.session import Session, SessionCall
from santacoder_client.loadtest.target import Security, Target, open_channel

SESSIONS_PER_CHANNEL = 48
"""Below the number that a server allows on one connection, which is 64."""


class SessionSender:
    """One router, by `CompletionSession`."""

    def __init__(self, target: Target, security: Security, wishes: Wishes) -> None:
        self._target = target
        self._security = security
        self._wishes = wishes
        self._encoder = Encoder(wishes)
        self._channels: list[grpc.aio.Channel] = []
        self._sessions: list[Session] = []
        self._free: list[Session] = []
        self._of_person: dict[int, Session] = {}

    async def open(self) -> None:
        """Connects. Raises Unreachable."""
        self._channels = await open_channels(self._target, self._security, 1)

    async def close(self) -> None:
        """Drops all sessions."""
        for session in self._sessions:
            session.close()
        for channel in self._channels:
            await channel.close()
        await asyncio.sleep(0)  # the sessions' readers end before their loop does

    async def send(self, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        """Sends one request as a turn of a session that has none, and waits for its end."""
        session = self._free.pop() if self._free else self._new()
        try:
            await self._ask(session, prompt, record, clock)
        finally:
            self._free.append(session)

    async def type(self, person: int, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        """Sends a turn of a person's own session; it supersedes the one that runs."""
        if person not in self._of_person:
            self._of_person[person] = self._new()
        await self._ask(self._of_person[person], prompt, record, clock)

    async def _ask(
        self, session: Session, prompt: Prompt, record: RequestRecord, clock: Clock
    ) -> None:
        completion = self._encoder.completion(prompt, record.index)
        record.request_id = completion.request_id
        timeout = self._wishes.timeout(prompt)
        cancel_after = self._wishes.cancel_after(record.index)
        await session.ask(completion, record, clock, timeout, cancel_after)

    def _new(self) -> Session:
        if len(self._sessions) >= SESSIONS_PER_CHANNEL * len(self._channels):
            self._channels.append(open_channel(self._target.addresses[0], self._security))
        session = Session(_starter(self._channels[-1], self._security))
        self._sessions.append(session)
        return session


def _starter(channel: grpc.aio.Channel, security: Security) -> Callable[[], SessionCall]:
    start: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        f"{SERVICE}/CompletionSession"
    )
    return lambda: start(metadata=security.metadata)
