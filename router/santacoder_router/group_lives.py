"""The lives of the shard group: wait for one, serve with it, and when it dies wait for the next.

Knows no requests: they are the step loop's. Ranks are started by somebody else, at the same
addresses and under a greater epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import grpc

from santacoder_router.codec import CodecError
from santacoder_router.faults import Log
from santacoder_router.group_watch import Clock
from santacoder_router.handshake import Description, GroupMixed, GroupRefused, check_successor
from santacoder_router.lifecycle import Lifecycle, Phase, unavailable
from santacoder_router.metrics import Metrics
from santacoder_router.notes import Note, death_note, no_note
from santacoder_router.serving import Serving
from santacoder_router.shard_group import ShardGroup, connect

RETRY_SECONDS = 0.1

# What may pass while a group comes up or is replaced.
TRANSIENT = (grpc.aio.AioRpcError, CodecError, GroupMixed)

# Somebody was there, and is not spoken to. What a metric calls it.
REFUSED: dict[type[Exception], str] = {
    CodecError: "malformed",
    GroupMixed: "mixed",
    GroupRefused: "another",
}

# Asked for at every try, so that a certificate may be replaced.
Credentials = Callable[[], grpc.ChannelCredentials | None]
Accept = Callable[[Description], None]


class GroupUnreachable(Exception):
    """No group came up in time; the message says what stood in the way last."""


class GroupLives:
    """Finds groups at `addresses`, in order of rank."""

    def __init__(
        self,
        addresses: Sequence[str],
        lifecycle: Lifecycle,
        metrics: Metrics,
        clock: Clock,
        log: Log,
        credentials: Credentials = lambda: None,
        note: Note = no_note,
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._note = note
        self._group: ShardGroup | None = None

    async def first(self, limit_seconds: float) -> ShardGroup:
        """The first group; raises GroupRefused or GroupUnreachable."""
        return await self._await_group(limit_seconds, lambda _: None, TRANSIENT)

    async def run(self, group: ShardGroup, serving: Serving, recovery_seconds: float) -> None:
        """Serves with one group after another, until none comes back; raises SchedulerFault."""
        loop = serving.step_loop
        while True:
            self._group = group
            group.open(loop.wake)
            failure = await loop.serve(group)
            self._metrics.group_failures.inc()
            note = death_note(group.description.epoch, failure, loop.running_names())
            self._log.error("shard group failed", **note)
            self._note(note)
            self._lifecycle.enter(Phase.RECOVERING)
            await group.close()
            search = asyncio.create_task(self._successor(group.description, recovery_seconds))
            try:
                await loop.hold(search)
            finally:
                search.cancel()
            try:
                group = search.result()
            except GroupUnreachable as error:
                self._log.error("shard group lost", error=str(error))
                return
            self._log.info("shard group is back", epoch=group.description.epoch)
            self._lifecycle.enter(Phase.SERVING)

    async def close(self) -> None:
        """Half-closes the streams of the group there is."""
        if self._group is not None:
            await self._group.close(graceful=True)

    async def _successor(self, before: Description, limit_seconds: float) -> ShardGroup:
        def accept(after: Description) -> None:
            check_successor(before, after)

        return await self._await_group(limit_seconds, accept, (*TRANSIENT, GroupRefused))

    async def _await_group(
        self, limit_seconds: float, accept: Accept, passing: tuple[type[Exception], ...]
    ) -> ShardGroup:
        """Tries until a group is there that `accept` does not refuse with a `passing` error."""
        obstacle = ""
        try:
            async with asyncio.timeout(limit_seconds):
                while True:
                    try:
                        return await self._try(accept)
                    except passing as error:
                        if kind := REFUSED.get(type(error)):
                            self._metrics.refused_groups.labels(kind).inc()
                        if (now := _in_words(error)) != obstacle:
                            obstacle = now
                            self._log.warning("waiting for the shard group", obstacle=obstacle)
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            message = f"no shard group within {limit_seconds:g} s: {obstacle or 'no answer'}"
            raise GroupUnreachable(message) from None

    async def _try(self, accept: Accept) -> ShardGroup:
        group = await connect(self._addresses, self._clock, self._credentials())
        try:
            accept(group.description)
        except BaseException:
            await group.close()
            raise
        return group


def abandon_requests(lifecycle: Lifecycle, phase: Phase) -> None:
    """Enters a phase without service and tells every request in progress."""
    lifecycle.enter(phase)
    if lifecycle.serving is not None:
        lifecycle.serving.step_loop.abandon(unavailable(phase))


def _in_words(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return str(error)
