"""The heartbeat: results into the scheduler, plans out of it to the shards, events to readers.

Knows no text and no gRPC. One task runs it; the scheduler is touched from here alone. An exception
out of the scheduler is the end of the router: what it holds can no longer be trusted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    Request,
    Tokens,
)
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.core.sequence import Sequence
from santacoder_router.fail_stop import FailStop, SchedulerFault
from santacoder_router.metrics import Metrics
from santacoder_router.shard_group import Arrived, GroupFailure, ShardGroup

# Ends of one sequence by a fault that no other has to suffer for.
FAULTS = (FinishReason.FAILED, FinishReason.NON_FINITE, FinishReason.POISON)

Clock = Callable[[], float]
Log = structlog.typing.FilteringBoundLogger

# Shards that were idle get their second plan so long after the first, which lasts longer.
SECOND_PLAN_SECONDS = 0.001


class EventReader(Protocol):
    """Who gets a request's events. Called from the loop: it must be quick and must not raise."""

    @property
    def name(self) -> str:
        """What its caller calls the request."""

    def read(self, event: Event) -> None:
        """The next event of the request; after `Finished` there are none."""

    def fail(self, error: Exception) -> None:
        """The request cannot go on; nothing comes after this."""


class StepLoop:
    """Keeps the shards busy with what the scheduler plans. `clock` gives monotonic seconds."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics, clock: Clock, log: Log) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._readers: dict[int, EventReader] = {}
        self._woken = asyncio.Event()
        self._group: ShardGroup | None = None
        self._fault: Exception | None = None
        self._is_excused = False
        self._fail_stop = FailStop(self._take_fault)

    @property
    def scheduler(self) -> Scheduler:
        """For its numbers; whoever changes it goes through the loop."""
        return self._scheduler

    @property
    def stalled_seconds(self) -> float:
        """How long plans in flight have gone without a finished step."""
        return self._group.stalled_seconds() if self._group is not None else 0.0

    def running_names(self) -> list[str]:
        """What their callers call the requests that the shards have now, each once."""
        readers = map(self._readers.get, self._scheduler.running_ids)
        return list(dict.fromkeys(reader.name for reader in readers if reader is not None))

    @property
    def epoch(self) -> int:
        """The life of the group that works now; 0 between two."""
        return self._group.description.epoch if self._group is not None else 0

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    def submit(self, request: Request, reader: EventReader) -> None:
        """Queues a request; raises SchedulerFault."""
        self._readers[request.request_id] = reader
        with self._fail_stop:
            self._scheduler.add(request, self._clock())
        self.wake()

    def cancel(self, request_id: int) -> None:
        """Ends a request and sends its reader nothing more. Idempotent; raises SchedulerFault."""
        self._readers.pop(request_id, None)
        if self._fault is not None:
            return
        with self._fail_stop:
            self._scheduler.cancel(request_id, self._clock())
        self.wake()

    def hold_request(self, request_id: int, is_held: bool) -> None:
        """Keeps a request out of plans while nobody takes its tokens; raises SchedulerFault."""
        if self._fault is None:
            with self._fail_stop:
                self._scheduler.hold(request_id, is_held, self._clock())
            self.wake()

    def drop(self, sequences: Iterable[Sequence], reason: FinishReason) -> None:
        """Ends requests and tells their readers why; raises SchedulerFault."""
        events: list[Event] = []
        with self._fail_stop:
            for sequence in sequences:
                request_id = sequence.request.request_id
                events += self._scheduler.cancel(request_id, self._clock(), reason)
        if events:
            self._deliver(events)
            self.wake()

    async def serve(self, group: ShardGroup) -> GroupFailure:
        """Works with a group until it fails; raises SchedulerFault."""
        self._group = group
        try:
            while group.failure is None:
                self._woken.clear()
                self._check_fault()
                self._beat(group)
                await self._wait()
            return group.failure
        finally:
            self._group = None

    async def hold(self, next_group: asyncio.Task[ShardGroup]) -> None:
        """Between two groups: running requests go back to the queue, and time still counts."""
        with self._fail_stop:
            self._deliver(self._scheduler.reset(self._clock(), self._is_excused))
        self._is_excused = False
        next_group.add_done_callback(lambda _: self.wake())
        while not next_group.done():
            self._woken.clear()
            self._check_fault()
            self._expire()
            await self._wait()

    def excuse_next_death(self) -> None:
        """The group is about to be ended from outside: no request is to be blamed for that."""
        self._is_excused = True

    def abandon(self, error: Exception) -> None:
        """Tells every reader that its request has failed: the group or the router has ended."""
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.fail(error)

    def _beat(self, group: ShardGroup) -> None:
        started = time.perf_counter()
        now = self._clock()
        with self._fail_stop:
            results = group.take_results()
            events = self._absorb(group, results, now)
            is_sent = self._send_plan(group, now, events)
        # Only now: shards run while text is made.
        self._deliver(events)
        if is_sent:
            self._plan_on(group)
        if is_sent or results:
            # Counted when frames and pieces are out: somebody waits for those.
            work_seconds = time.perf_counter() - started
            asyncio.get_running_loop().call_soon(self._observe, results, now, is_sent, work_seconds)

    def _plan_on(self, group: ShardGroup) -> None:
        """Another plan soon: the shards shall have the last one before it is made."""
        loop = asyncio.get_running_loop()
        if group.plan_count > 1:
            loop.call_soon(self.wake)
        else:
            # They were idle: what they are told next would delay what they begin with.
            loop.call_later(SECOND_PLAN_SECONDS, self.wake)

    def _absorb(self, group: ShardGroup, results: list[Arrived], now: float) -> list[Event]:
        events: list[Event] = []
        for arrived in results:
            events += self._scheduler.apply(arrived.result, now)
        for request_id, message in group.take_failed_sequences().items():
            # Its request's name is in the line that its failure writes.
            self._log.error("sequence failed on the shard", sequence=request_id, error=message)
            self._scheduler.cancel(request_id, now)
            events.append(Finished(request_id, FinishReason.FAILED))
        return events

    def _observe(
        self, results: list[Arrived], now: float, is_sent: bool, work_seconds: float
    ) -> None:
        for result, plan in results:
            if result.steps_run:
                self._metrics.step.observe(result.device_seconds / result.steps_run)
            if result.final:
                self._metrics.plan_round_trip.observe(now - plan.sent_at)
        if is_sent:
            self._metrics.plan_work.observe(work_seconds)
            self._metrics.plans.inc()

    def _send_plan(self, group: ShardGroup, now: float, events: list[Event]) -> bool:
        plan, new_events = self._scheduler.plan(now)
        events += new_events
        if plan is not None:
            group.send(plan, self._scheduler.time_cap_seconds(len(plan.rows)))
        group.interrupt_lease(self._scheduler.queued_request_count > 0)
        return plan is not None

    def _expire(self) -> None:
        with self._fail_stop:
            events = self._scheduler.expire(self._clock())
        self._deliver(events)

    def _deliver(self, events: list[Event]) -> None:
        token_count = 0
        for event in events:
            if isinstance(event, Finished):
                reader = self._readers.pop(event.request_id, None)
                if event.reason in FAULTS:
                    self._metrics.sequence_faults.labels(event.reason.name.lower()).inc()
            else:
                reader = self._readers.get(event.request_id)
            if reader is not None:
                reader.read(event)
                if isinstance(event, Tokens):
                    token_count += len(event.token_ids)
        self._metrics.completion_tokens.inc(token_count)

    async def _wait(self) -> None:
        due = self._scheduler.next_deadline()
        if due is None:
            await self._woken.wait()
            return
        delay_seconds = max(0.0, due - self._clock())
        timer = asyncio.get_running_loop().call_later(delay_seconds, self.wake)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    def _take_fault(self, fault: Exception) -> None:
        self._fault = fault
        self.wake()

    def _check_fault(self) -> None:
        # A fault in `submit` or `cancel` is raised to an RPC; here it ends the loop as well.
        if self._fault is not None:
            raise SchedulerFault from self._fault
