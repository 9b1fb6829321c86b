"""Sends a load, or one worker's share of it, from the running event loop.

In an open loop the schedule alone decides when a request is sent, never an answer. Where a cap on
concurrency holds one back it is late, or unsent at the end, and its record says so.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

from santacoder_client.loadtest.arrival import due_times
from santacoder_client.loadtest.data.source import Prompt, PromptSource
from santacoder_client.loadtest.editor import Keystroke, Typist, keystrokes
from santacoder_client.loadtest.load import Load, Share
from santacoder_client.loadtest.meter import LoopMeter
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.sender import Clock, Sender
from santacoder_client.loadtest.session_sender import SessionSender

REFUSED_PAUSE_SECONDS = 0.1
"""A user whose request failed takes a breath; else a dead server would be asked by a tight loop."""

NOTHING = Keystroke(math.inf, 0, 0)
"""Nothing is due."""

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
        self._answered = asyncio.Event()
        self._answered.set()
        self._ahead: Iterator[Keystroke] = iter(())
        self._current = NOTHING
        self._last_kind = ""

    async def run(self, clock: Clock) -> None:
        """Sends everything, and waits for the answers; every record is given on when it is over."""
        self._clock = clock
        work = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._stopped.wait())
        metering = [
            asyncio.create_task(self._meter.tick(clock)),
            asyncio.create_task(self._phase()),
        ]
        phases = self._load.phases
        seconds = phases.sending_seconds + phases.grace_seconds - clock()
        try:
            await asyncio.wait(
                {work, stopping}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._meter.end()
            await _end([work, *self._running, *metering, stopping])
            self._give_up()
        if not work.cancelled():
            work.result()  # a source that cannot go on says so here

    def stop(self) -> None:
        """Sends no more, and cancels what is running."""
        self._stopped.set()

    async def _work(self) -> None:
        await self._sending()
        await self._answered.wait()

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
        schedule = enumerate(due_times(self._load))
        self._ahead = (Keystroke(due, i, i) for i, due in schedule if self._share.holds(i))
        for asked in self._ahead:
            self._current = asked
            prompt = self._source.prompt(asked.number)
            record = await self._next_record(prompt)
            if self._cap is not None and len(self._running) >= self._cap:
                self._held.append((record, prompt))
            else:
                self._start(record, prompt)

    async def _people(self) -> None:
        typist = self._source if isinstance(self._source, Typist) else None
        self._ahead = keystrokes(self._load, self._share, typist)
        for asked in self._ahead:
            self._current = asked
            _, number, person = asked
            if typist is None:
                prompt = self._source.prompt(number)
            else:
                prompt = typist.state(person, number // self._load.editor_count)
            record = await self._next_record(prompt)
            self._type(person, record, prompt)

    async def _next_record(self, prompt: Prompt) -> RequestRecord:
        """The record of what is due next, when it is; its prompt was made before."""
        await self._until(self._current.due)
        record = self._record(self._current, prompt)
        self._current = NOTHING
        return record

    async def _user(self, user: int, own: Iterator[int]) -> None:
        """One user of a closed loop: asks, waits for the answer, asks again."""
        # All at once would be a burst that no steady load has.
        stagger = self._load.phases.warm_up_seconds / 2
        await self._until(stagger * user / (self._load.concurrency or 1))
        while self._clock() < self._load.phases.sending_seconds:
            index = next(own)
            prompt = self._source.prompt(index)
            record = self._record(Keystroke(self._clock(), index, index), prompt)
            try:
                await self._senders[record.target].send(prompt, record, self._clock)
            finally:
                self._on_record(record)
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

    def _record(self, asked: Keystroke, prompt: Prompt) -> RequestRecord:
        self._last_kind = prompt.kind
        return RequestRecord(
            index=asked.number,
            target=self._routes[asked.person % len(self._routes)].name,
            kind=prompt.kind,
            scheduled_at=asked.due,
            worker=self._share.worker,
            family=prompt.family,
        )

    def _start(self, record: RequestRecord, prompt: Prompt) -> None:
        self._spawn(record, self._senders[record.target].send(prompt, record, self._clock))

    def _spawn(self, record: RequestRecord, sending: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(sending)
        self._running.add(task)
        self._answered.clear()
        # Not in the task itself: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda task: self._ended(task, record))

    def _ended(self, task: asyncio.Task[None], record: RequestRecord) -> None:
        self._running.discard(task)
        self._on_record(record)
        in_time = self._clock() < self._load.phases.sending_seconds
        if self._held and in_time and not self._stopped.is_set():
            self._start(*self._held.popleft())
        if not self._running:
            self._answered.set()

    def _type(self, person: int, record: RequestRecord, prompt: Prompt) -> None:
        sender = self._senders[record.target]
        if not isinstance(sender, SessionSender):
            raise TypeError(f"{record.target} has no sessions")
        self._spawn(record, sender.type(person, prompt, record, self._clock))

    def _give_up(self) -> None:
        """Tells what was due and never sent: held back by the cap, or this client was too late."""
        for record, _ in self._held:
            self._on_record(record)
        self._held.clear()
        now = self._clock()
        late = itertools.takewhile(lambda asked: asked.due <= now, self._ahead)
        for due, number, person in itertools.chain([self._current], late):
            if due > now:
                continue
            route = self._routes[person % len(self._routes)]
            self._on_record(
                RequestRecord(number, route.name, self._last_kind, due, self._share.worker)
            )


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
