"""What has to hold between a call of `plan` and its answer. Looks at private parts on purpose.

Order, times and needs are worked out again from the requests: the scheduler's own are not believed.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.core.fair_line import FairLine
from router.core.simulated_clients import NATURAL_ENDS, Client
from router.core.simulated_model import require
from router.core.simulation_checks import tried_ids

from santacoder_router.core.plan import Event, Finished, Started, StepPlan
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig
from santacoder_router.core.sequence import Residency, Sequence


class PlanCheck:
    """A scheduler before one call of `plan`, to be compared with what it is after.

    `line` knows whose turn it is; it follows what the plan did.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        config: SchedulerConfig,
        clients: Mapping[int, Client],
        line: FairLine,
    ) -> None:
        self._scheduler = scheduler
        self._config = config
        self._clients = clients
        self._line = line
        self._running = list(scheduler._group.running)
        self._stats = scheduler.stats
        self._tried = tried_ids(scheduler) or set()
        self._answering = {
            residency.sequence.request.request_id
            for residency in self._running
            if residency.prefill_left <= 0
        }
        # How many need a block for their next token.
        self._growing_count = sum(_needs_block(r, config.block_size) for r in self._running)

    def make_way(self) -> None:
        """Where others are tried now than before, nobody keeps a slot."""
        tried = tried_ids(self._scheduler) or set()
        if not tried - self._tried:
            return
        for residency in self._running:
            request_id = residency.sequence.request.request_id
            if self._clients[request_id].finished is None:
                self._line.make_way(request_id)
        self._running, self._answering, self._growing_count = [], set(), 0

    def check(self, plan: StepPlan | None, events: list[Event], now: float) -> None:
        """After a call with room for a plan in flight; `events` are what it told."""
        rows = plan.rows if plan else ()
        planned = {row.sequence for row in rows}
        token_count = sum(row.token_count for row in rows)
        # Whoever lost its slot and got one in the same plan is read again.
        self._answering -= {admit.sequence for admit in (plan.admits if plan else ())}
        prompts_are_full = token_count >= self._prompt_limit(plan)
        self._check_progress(planned, token_count, prompts_are_full)
        if not prompts_are_full:
            self._check_head(plan)
        self._check_retires(plan)
        preempted = self._check_preemptions(any(isinstance(event, Finished) for event in events))
        self._check_turns(plan, preempted, now)
        self._check_counters(plan, len(preempted))
        if plan is not None:
            self._check_admissions(plan, planned)
        started = [event for event in events if isinstance(event, Started)]
        expected = [
            Started(admit.sequence, min(admit.computed_length, admit.prompt_length))
            for admit in (plan.admits if plan else ())
            if not self._clients[admit.sequence].has_started
        ]
        require(started == expected, "I11 wrong starts", started, expected)

    def _prompt_limit(self, plan: StepPlan | None) -> int:
        """Up to how many tokens of a step, answers' included, prompts are read on.

        Fewer beside answers than without, unless more wait than an eighth of which is that many.
        """
        config, rows = self._config, plan.rows if plan else ()
        answer_count = sum(row.sequence in self._answering for row in rows)
        if not answer_count:
            return config.tokens_per_step
        read = sum(row.token_count for row in rows) - answer_count
        found = sum(admit.computed_length for admit in plan.admits) if plan else 0
        left = sum(max(0, r.prefill_left) for r in self._scheduler._group.running)
        backlog = self._scheduler._waiting.token_count + left + read + found
        most = max(config.block_size, backlog // 8)
        return min(config.tokens_per_step, max(config.tokens_beside_answers, answer_count + most))

    def _check_progress(self, planned: set[int], token_count: int, prompts_are_full: bool) -> None:
        group = self._scheduler._group
        for index, residency in enumerate(group.running):
            request_id = residency.sequence.request.request_id
            moves = request_id in planned or residency.samples_left <= 0
            require(moves or index > 0, "L3 the first in order does not move", request_id)
            is_answering = request_id in self._answering
            is_full = token_count >= self._config.tokens_per_step
            is_full = is_full or (prompts_are_full and not is_answering)
            require(moves or is_full, "L4 a sequence does not move, the step has room", request_id)
            is_read = residency.prefill_left <= 0 or is_full
            require(is_read, "L4 a prompt is not read on, the step has room", request_id)
        others_in_flight = len(group.in_flight) - (1 if planned else 0)
        if len(self._scheduler._live) > len(self._line.held) and others_in_flight <= 0:
            require(bool(planned), "L4 work is waiting, nothing is planned", self._scheduler.stats)

    def _check_head(self, plan: StepPlan | None) -> None:
        """The next in line waits for the step, a slot or blocks, and for nothing else."""
        group = self._scheduler._group
        head = self._scheduler._waiting.head
        if head is None or not group._free_slots:
            return
        block_size = self._config.block_size
        found = _find_cached(head, self._scheduler, block_size)
        # The last token is run again.
        is_all_cached = len(found) * block_size == head.token_count
        needed = -(-head.token_count // block_size) - len(found) + is_all_cached
        # What is found and held by nobody counts as available until it is shared.
        taken = sum(group.pool._holder_counts[block] == 0 for block in found)
        taken += len(plan.copies) if plan else 0
        is_short = needed + len(group.running) > group.pool.available_count - taken
        require(is_short, "L4 the next in line could be admitted", head.request.request_id)

    def _check_retires(self, plan: StepPlan | None) -> None:
        """Whoever ended unknown to the shards is retired at once, others in passing."""
        if plan is None:
            for retire in self._scheduler._group.retires:
                is_known = self._clients[retire.sequence].finished in NATURAL_ENDS
                require(is_known, "L4 nobody tells the shards of an end", retire)
        elif not plan.rows:
            ends = [self._clients[retire.sequence].finished for retire in plan.retires]
            is_urgent = any(end not in NATURAL_ENDS for end in ends)
            require(is_urgent, "L4 a plan without work", plan)

    def _check_preemptions(self, has_ends: bool) -> list[Residency]:
        lost: list[Residency] = []
        kept: list[Residency] = []
        for residency in self._running:
            if residency.sequence.residency is residency:
                kept.append(residency)
            elif self._clients[residency.sequence.request.request_id].finished is None:
                lost.append(residency)
        if lost:
            first_lost = min(self._place(residency.sequence) for residency in lost)
            is_last = all(self._place(residency.sequence) < first_lost for residency in kept)
            require(is_last, "I19 preempted out of order", first_lost)
            available = self._stats.free_block_count + self._stats.cached_block_count
            is_needed = has_ends or self._growing_count > available
            require(is_needed, "L3 preempted although blocks are there", first_lost)
        return lost

    def _check_turns(self, plan: StepPlan | None, preempted: list[Residency], now: float) -> None:
        for residency in preempted:
            self._line.preempt(residency.sequence.request.request_id, now)
        for admit in plan.admits if plan else ():
            self._line.check_turn(admit.sequence, now)
        head = self._scheduler._waiting.head
        turn = head.request.request_id if head is not None else None
        require(turn == self._line.turn(), "I19 L2 the next in line", turn, self._line.turn())

    def _check_counters(self, plan: StepPlan | None, preempted_count: int) -> None:
        before, after = self._stats, self._scheduler.stats
        admits = plan.admits if plan else ()
        admitted = sum(len(admit.token_ids) for admit in admits)
        cached = sum(admit.computed_length for admit in admits)
        grown = (
            after.preemption_count - before.preemption_count,
            after.admitted_token_count - before.admitted_token_count,
            after.cached_token_count - before.cached_token_count,
        )
        require(grown == (preempted_count, admitted, cached), "I11 counters", grown)

    def _check_admissions(self, plan: StepPlan, planned: set[int]) -> None:
        group = self._scheduler._group
        for admit in plan.admits:
            request_id = admit.sequence
            require(request_id in planned, "L2 admitted to a step without room", request_id)
        if plan.admits and plan.num_steps == 1:
            # As many as ran when the last was admitted: their next tokens preempt nobody.
            is_roomy = group.pool.available_count >= len(group.running) - 1
            require(is_roomy, "L3 a newcomer takes the last blocks", group.pool.available_count)

    def _place(self, sequence: Sequence) -> tuple[float, int]:
        """By class, where every `aging_seconds` of waiting count as one more; then by arrival."""
        client = self._clients[sequence.request.request_id]
        aged = client.request.priority - client.arrival / self._config.aging_seconds
        return -aged, client.request.request_id


def _needs_block(residency: Residency, block_size: int) -> bool:
    position = residency.planned_computed
    is_decoding = position >= residency.admitted_length and residency.samples_left > 0
    return is_decoding and position == len(residency.blocks) * block_size


def _find_cached(sequence: Sequence, scheduler: Scheduler, block_size: int) -> list[int]:
    blocks: list[int] = []
    for count in range(1, sequence.token_count // block_size + 1):
        found = scheduler._group.pool.find(sequence.prefix(count, block_size))
        if found is None:
            break
        blocks.append(found[0])
    return blocks
