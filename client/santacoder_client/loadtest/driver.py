"""Sends a load, or one worker's share of it, from the running event loop.

In an open loop the schedule alone decides when a request is sent, never an answer. Where a cap on
concurrency holds one back it is late, or unsent at the end, and its record says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

from santacoder_client.loadtest.arrival import due_times
from santacoder_client.loadtest.data.source import Prompt, PromptSource
from santacoder_client.loadtest.editor import Typist, keystrokes
from santacoder_client.loadtest.load import Load, Share
from santacoder_client.loadtest.meter import LoopMeter
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.sender import Clock, Sender
from santacoder_client.loadtest.session_sender import SessionSender

REFUSED_PAUSE_SECONDS = 0.1
"""A user whose request failed takes a breath; else a dead server would be asked by a tight loop."""

OnRecord = Callable[[RequestRecord], None]


class Route(NamedTuple):
    """A target's name in records, and the way to it."""

    name: str
    sender: Sender


class Driver:
    """One worker's part of a load."""

    def __init__(
        self,
        load: Load,
        share: Share,
        source: PromptSource,
        routes: Sequence[Route],
        meter: LoopMeter,
        on_record: OnRecord,
    ) -> None:
        self._load = load
        self._share = share
        self._source = source
        self._routes = routes
        self._senders = dict(routes)
        self._meter = meter
        self._on_record = on_record
        self._clock: Clock = lambda: 0.0
        self._cap = share.of(load.concurrency) if load.concurrency is not None else None
        self._running: set[asyncio.Task[None]] = set()
        self._held: deque[tuple[RequestRecord, Prompt]] = deque()
        self._stopped = asyncio.Event()

    async def run(self, clock: Clock) -> None:
        """Sends everything, and waits for the answers; every record is given on when it is over."""
        self._clock = clock
        sending = asyncio.create_task(self._sending())
        metering = [
            asyncio.create_task(self._meter.tick(clock)),
            asyncio.create_task(self._phase()),
        ]
        stopping = asyncio.create_task(self._stopped.wait())
        phases = self._load.phases
        try:
            await self._wait({sending}, stopping, phases.sending_seconds + phases.grace_seconds)
            while self._running and not self._stopped.is_set():
                left = phases.sending_seconds + phases.grace_seconds
                if not await self._wait(self._running, stopping, left):
                    break
        finally:
            self._meter.end()
            await _end([sending, *self._running, *metering, stopping])
            self._give_up_held()
        if sending.done() and not sending.cancelled():
            sending.result()  # a source that cannot go on says so here

    def stop(self) -> None:
        """Sends no more, and cancels what is running."""
        self._stopped.set()

    async def _wait(
        self, tasks: set[asyncio.Task[None]], stopping: asyncio.Task[bool], until: float
    ) -> bool:
        """Whether any of the tasks ended before the time was up or the run was stopped."""
        waited = {*tasks, stopping}
        done, _ = await asyncio.wait(
            waited,
            timeout=max(0.0, until - self._clock()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        return bool(done - {stopping})

    async def _sending(self) -> None:
        match self._load.model:
            case "closed":
                users = range(self._share.worker, self._load.concurrency or 0, self._share.workers)
                own = itertools.count(self._share.worker, self._share.workers)
                await asyncio.gather(*(self._user(user, own) for user in users))
            case "editor":
                await self._people()
            case _:
                await self._open_loop()

    async def _open_loop(self) -> None:
        for index, due in enumerate(due_times(self._load)):
            if not self._share.holds(index):
                continue
            prompt = self._source.prompt(index)  # before it is due: making it may take a while
            await self._until(due)
            record = self._record(index, due, prompt)
            if self._cap is not None and len(self._running) >= self._cap:
                self._held.append((record, prompt))
            else:
                self._start(record, prompt)

    async def _people(self) -> None:
        typist = self._source if isinstance(self._source, Typist) else None
        for due, index, person in keystrokes(self._load, self._share, typist):
            if typist is None:
                prompt = self._source.prompt(index)
            else:
                prompt = typist.state(person, index // self._load.editor_count)
            await self._until(due)
            record = self._record(index, due, prompt, route_number=person)
            self._spawn(self._typed(person, record, prompt))

    async def _user(self, user: int, own: Iterator[int]) -> None:
        """One user of a closed loop: asks, waits for the answer, asks again."""
        # All at once would be a burst that no steady load has.
        stagger = self._load.phases.warm_up_seconds / 2
        await self._until(stagger * user / (self._load.concurrency or 1))
        while self._clock() < self._load.phases.sending_seconds:
            index = next(own)
            prompt = self._source.prompt(index)
            record = self._record(index, self._clock(), prompt)
            await self._send(record, prompt)
            if record.outcome is Outcome.FAILED:
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    async def _until(self, due: float) -> None:
        # At once where it is late already, but never without a turn for the others.
        await asyncio.sleep(max(0.0, due - self._clock()))
        self._meter.note_release(self._clock() - due)

    async def _phase(self) -> None:
        await asyncio.sleep(max(0.0, self._load.phases.steady_begin - self._clock()))
        self._meter.begin()
        await asyncio.sleep(max(0.0, self._load.phases.steady_end - self._clock()))
        self._meter.end()

    def _record(
        self, index: int, due: float, prompt: Prompt, route_number: int | None = None
    ) -> RequestRecord:
        route = self._routes[(index if route_number is None else route_number) % len(self._routes)]
        return RequestRecord(
            index=index,
            target=route.name,
            kind=prompt.kind,
            scheduled_at=due,
            worker=self._share.worker,
            family=prompt.family,
        )

    def _start(self, record: RequestRecord, prompt: Prompt) -> None:
        self._spawn(self._send(record, prompt))

    def _spawn(self, sending: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(sending)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        in_time = self._clock() < self._load.phases.sending_seconds
        if self._held and in_time and not self._stopped.is_set():
            self._start(*self._held.popleft())

    async def _send(self, record: RequestRecord, prompt: Prompt) -> None:
        try:
            await self._senders[record.target].send(prompt, record, self._clock)
        finally:
            self._on_record(record)

    async def _typed(self, person: int, record: RequestRecord, prompt: Prompt) -> None:
        sender = self._senders[record.target]
        try:
            if isinstance(sender, SessionSender):
                await sender.type(person, prompt, record, self._clock)
        finally:
            self._on_record(record)

    def _give_up_held(self) -> None:
        for record, _ in self._held:
            self._on_record(record)
        self._held.clear()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
