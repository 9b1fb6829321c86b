"""Continuous batching as a pure state machine: who runs, for how many tokens, in which blocks.

Has no clock, no randomness and no I/O: times and identities are arguments, plans and events are
results. Knows no text, no wire and no tensors.
"""

from __future__ import annotations

from santacoder_router.core.group import GroupState, PlannedRow
from santacoder_router.core.lease import StepTime
from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    Request,
    RowResult,
    RowState,
    Started,
    StepPlan,
    StepResult,
    Tokens,
)
from santacoder_router.core.planner import draft_step, extend_to_lease
from santacoder_router.core.policy import Rank, aged_priority
from santacoder_router.core.possible import check_possible
from santacoder_router.core.prefix import root_prefix
from santacoder_router.core.sequence import Sequence
from santacoder_router.core.settings import SchedulerConfig, SchedulerStats
from santacoder_router.core.statistics import stats_of
from santacoder_router.core.suspects import Suspects
from santacoder_router.core.timers import Timers
from santacoder_router.core.waiting import WaitingQueue

__all__ = ["Scheduler", "SchedulerConfig", "SchedulerStats"]

_ENDS = {
    RowState.END_OF_TEXT: FinishReason.END_OF_TEXT,
    RowState.STOP_ID: FinishReason.STOP_ID,
    RowState.LENGTH: FinishReason.LENGTH,
    RowState.NON_FINITE: FinishReason.NON_FINITE,
    # The shard says the row had ended: had we been told, it would not be live.
    RowState.MASKED: FinishReason.FAILED,
}
_MATCHES = (RowState.END_OF_TEXT, RowState.STOP_ID)


class Scheduler:
    """All requests of a router and the plans for its shard group.

    Call `plan` after every `add`, `cancel`, `apply` and `reset`, and at `next_deadline`, until it
    returns no plan. Sequence numbers in plans are the request ids.
    """

    def __init__(
        self, config: SchedulerConfig, cache_seed: bytes, rank: Rank | None = None
    ) -> None:
        self._config = config
        self._cache_seed = cache_seed
        # The root of whoever has no key of their own: nearly everybody's.
        self._common_root = root_prefix(cache_seed, b"")
        self._rank = rank or aged_priority(config.aging_seconds)
        self._live: dict[int, Sequence] = {}
        self._waiting = WaitingQueue(config.aging_seconds)
        self._timers = Timers()
        self._suspects = Suspects()
        self._group = GroupState(config)
        self._step_time = StepTime()
        self._arrival_count = 0
        self._preemption_count = 0
        self._admitted_token_count = 0
        self._cached_token_count = 0

    @property
    def max_request_tokens(self) -> int:
        """Most tokens, prompt and new ones together, of a request that can ever run."""
        return self._config.max_request_tokens

    @property
    def running_ids(self) -> list[int]:
        """Requests in slots or in plans that are out."""
        return [residency.sequence.request.request_id for residency in self._group.at_work()]

    @property
    def waiting(self) -> WaitingQueue:
        """The queue, for its numbers."""
        return self._waiting

    @property
    def queued_request_count(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def queued_token_count(self) -> int:
        """Tokens of the sequences without a slot."""
        return self._waiting.token_count

    @property
    def stats(self) -> SchedulerStats:
        """The scheduler at this moment."""
        counts = self._preemption_count, self._admitted_token_count, self._cached_token_count
        return stats_of(self._waiting, self._group, *counts)

    def add(self, request: Request, now: float) -> None:
        """Queues a request. Its id is positive and was never used; its size has been checked.

        Raises ValueError for a request that could never run, rather than block the queue with it.
        """
        check_possible(request, self.max_request_tokens)
        self._arrival_count += 1
        order = (self._rank(request, now), self._arrival_count)
        key = request.cache_key
        root = root_prefix(self._cache_seed, key) if key else self._common_root
        sequence = Sequence(request, order, [root], list(request.output_ids))
        self._live[request.request_id] = sequence
        self._waiting.add(sequence, now)
        self._timers.add(sequence, now + self._config.queue_wait_seconds, len(self._live))

    def cancel(
        self, request_id: int, now: float, reason: FinishReason = FinishReason.CANCELLED
    ) -> list[Event]:
        """Ends a request at once: no later plan has it, and its blocks are free. Idempotent."""
        sequence = self._live.get(request_id)
        return [] if sequence is None else [self._finish(sequence, reason)]

    def hold(self, request_id: int, is_held: bool, now: float) -> None:
        """Takes a running request's slot while nobody reads it, or lets it go on. Idempotent."""
        sequence = self._live.get(request_id)
        if sequence is None or sequence.is_held == is_held:
            return
        if not is_held:
            self._waiting.let_go(sequence, now)
        elif sequence.residency is not None:
            self._group.leave(sequence.residency)
            self._waiting.hold(sequence)
            self._suspects.clear(sequence)

    def time_cap_seconds(self, row_count: int) -> float:
        """After how long a lease of so many rows ends, whatever steps it has left."""
        return self._config.plans_in_flight * self._config.plan_seconds(row_count)

    def expire(self, now: float) -> list[Event]:
        """Ends whoever's time is up."""
        events: list[Event] = []
        while (due := self._timers.pop_due(now)) is not None:
            events.append(self._finish(*due))
        return events

    def plan(self, now: float) -> tuple[StepPlan | None, list[Event]]:
        """The next plan to send, unless nothing is to be run or enough plans are in flight."""
        events = self.expire(now)
        group = self._group
        if self._suspects.is_trial_over and self._suspects.try_next(self._waiting):
            for sequence in group.leave_all():
                self._waiting.put_first(sequence, now)
        if len(group.in_flight) >= self._config.plans_in_flight:
            return None, events
        if self._suspects.waits_for(group.in_flight):
            return None, events
        draft = draft_step(self._config, group, self._waiting, now)
        self._preemption_count += len(draft.preempted)
        for admitted in draft.admits:
            self._admitted_token_count += len(admitted.token_ids)
            self._cached_token_count += admitted.computed_length
        for sequence, cached_token_count in draft.started:
            events.append(Started(sequence.request.request_id, cached_token_count))
        if not draft.rows and not group.is_retire_urgent:
            return None, events
        num_steps = extend_to_lease(draft, self._config, group, self._step_time)
        return draft.send(group, num_steps), events

    def apply(self, result: StepResult, now: float) -> list[Event]:
        """What a result brings. One that is not the next expected changes nothing."""
        in_flight = self._group.in_flight
        if not in_flight or not in_flight[0].expects(result):
            return []
        plan = in_flight[0]
        plan.steps_done += result.steps_run
        steps = result.steps_run
        if result.final:
            # A lease that was cut short: its other steps bring nothing.
            steps += plan.num_steps - plan.steps_done
            in_flight.popleft()
        if plan.is_decode and plan.rows and result.steps_run > 0:
            self._step_time.observe(result.device_seconds, result.steps_run)
        events: list[Event] = []
        for planned, row in zip(plan.rows, result.rows, strict=True):
            if planned.residency.is_live:
                self._apply_row(planned, row, steps, events)
            if row.state is RowState.NON_FINITE:
                # Whether or not it still lives: what it has cached is not to be read by others.
                self._group.pool.forget_all(planned.residency.sequence.prefixes)
        if self._suspects:
            self._suspects.clear_passed(plan.rows)
        return events

    def reset(self, now: float, is_excused: bool = False) -> list[Event]:
        """The group has died: who ran goes to the queue's head, unless it is what killed it.

        `is_excused`: it was ended from outside, and that is held against nobody.
        """
        running, at_work = self._group.running, self._group.at_work()
        self._group = GroupState(self._config)
        self._step_time = StepTime()
        for residency in running:
            residency.is_live = False
            residency.sequence.residency = None
            residency.sequence.is_restored = True
            self._waiting.put_back(residency.sequence, now)
        guilty = None if is_excused else self._suspects.judge(at_work, self._waiting)
        return [] if guilty is None else [self._finish(guilty, FinishReason.POISON)]

    def next_deadline(self) -> float | None:
        """When `plan` has to be called even if nothing else happens."""
        return self._timers.next_time()

    def _apply_row(
        self, planned: PlannedRow, row: RowResult, steps: int, events: list[Event]
    ) -> None:
        residency, _, is_sampled = planned
        sequence = residency.sequence
        token_ids = row.token_ids
        if is_sampled:
            residency.pending_samples -= steps
            # Steps without an id have not run: blocks or time ran out. They are planned again.
            # A prompt is never among them: it has its blocks, and the first step always runs.
            residency.planned_computed -= steps - len(token_ids)
        matched_id = None
        if token_ids:
            if row.state in _MATCHES:
                matched_id, token_ids = token_ids[-1], token_ids[:-1]
            if token_ids:
                sequence.output_ids += token_ids
                request_id = sequence.request.request_id
                events.append(Tokens(request_id, token_ids, row.logprobs[: len(token_ids)]))
            self._group.register_output(residency, matched_id is not None)
        if row.state in _ENDS:
            events.append(self._finish(sequence, _ENDS[row.state], matched_id, has_ended=True))

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        matched_id: int | None = None,
        has_ended: bool = False,
    ) -> Finished:
        sequence.is_ended = True
        del self._live[sequence.request.request_id]
        self._waiting.end(sequence)
        if sequence.residency is not None:
            self._group.leave(sequence.residency, has_ended)
        self._suspects.clear(sequence)
        return Finished(sequence.request.request_id, reason, matched_id)
