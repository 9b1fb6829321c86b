"""Runs plans one after the other, each step in its time. Knows no wire and no ranks.

Steps follow a clock of their own: a step that the machine lets end late does not make the next one
late as well, so that many steps take as long as they should.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.options import MockOptions, StepTimes
from santacoder_client.loadtest.mock_shard.slots import (
    Row,
    Sampled,
    SlotTable,
    Violation,
    read_rows,
)
from santacoder_client.loadtest.mock_shard.truth import TruthLog

HANG_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """Steps of a plan have run."""

    plan_number: int
    first_step: int
    steps_run: int
    final: bool
    rows: Sequence[Row]
    sampled: Sampled
    seconds: float


OnOutcome = Callable[[Outcome], None]
OnViolation = Callable[[int, str], None]
OnFailedSequence = Callable[[int], None]


class Simulation:
    """The device of one life of a group. `hangs` says whether it stands still at a moment."""

    def __init__(
        self,
        options: MockOptions,
        table: SlotTable,
        truth: TruthLog | None,
        hangs: Callable[[], bool],
        draw: random.Random,
    ) -> None:
        self.last_plan_number = 0
        self.step_count = 0
        self.progress_at = time.monotonic()
        self.is_running = False
        self._options = options
        self._table = table
        self._truth = truth
        self._hangs = hangs
        self._draw = draw
        self._plans: asyncio.Queue[tuple[float, shard_pb2.Plan]] = asyncio.Queue()
        self._interrupted_plan_number = 0
        self._free_at = 0.0

    def submit(self, plan: shard_pb2.Plan) -> None:
        """Queues a plan."""
        self._plans.put_nowait((time.monotonic(), plan))

    def interrupt(self, plan_number: int) -> None:
        """Cuts a lease short after the step it is in."""
        self._interrupted_plan_number = plan_number

    async def run(
        self,
        on_outcome: OnOutcome,
        on_violation: OnViolation,
        on_failed_sequence: OnFailedSequence,
    ) -> None:
        """Until it is cancelled, or a plan has broken a rule."""
        while True:
            came_at, plan = await self._plans.get()
            self.is_running = True
            # A plan that was there when the last one should have ended begins at that moment.
            self._free_at = max(self._free_at, came_at)
            try:
                self._arrange(plan, on_failed_sequence)
                await self._carry_out(plan, on_outcome)
            except Violation as violation:
                on_violation(plan.number, str(violation))
                return
            self.last_plan_number = plan.number
            self.is_running = False

    def _arrange(self, plan: shard_pb2.Plan, on_failed_sequence: OnFailedSequence) -> None:
        self._table.arrange(plan)
        if not plan.admits:
            return
        if self._truth is not None:
            self._truth.admitted(time.monotonic(), list(plan.admits))
        share = self._options.failures.fail_share
        for admit in plan.admits if share else ():
            if self._draw.random() < share:
                on_failed_sequence(admit.sequence)

    async def _carry_out(self, plan: shard_pb2.Plan, on_outcome: OnOutcome) -> None:
        rows = read_rows(plan.rows)
        if not rows:
            on_outcome(Outcome(plan.number, 0, 0, True, rows, Sampled(), 0.0))
            return
        if not plan.num_steps:
            raise Violation("rows: without a step")
        if plan.num_steps > 1 and not all(row.samples for row in rows):
            raise Violation("lease: a row does not sample")
        await self._sit_out_hang()
        if self._options.times.is_instant:
            sampled = self._table.run(rows, plan.num_steps)
            self._report(plan, rows, (0, plan.num_steps), True, sampled, 0.0, on_outcome)
        else:
            await self._step_by_step(plan, rows, on_outcome)

    async def _step_by_step(
        self, plan: shard_pb2.Plan, rows: list[Row], on_outcome: OnOutcome
    ) -> None:
        cap_seconds = plan.time_cap_us / 1e6 or math.inf
        begin = self._free_at
        for step in range(plan.num_steps):
            seconds = step_seconds(self._options.times, rows) * self._factor()
            self._free_at += seconds
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
            await self._sit_out_hang()
            sampled = self._table.run(rows, 1)
            is_cut = plan.number == self._interrupted_plan_number
            is_last = step == plan.num_steps - 1 or is_cut or self._free_at - begin >= cap_seconds
            self._report(plan, rows, (step, 1), is_last, sampled, seconds, on_outcome)
            if is_last:
                return
            # Prompts are run in the first step; what follows is the id sampled last.
            rows = [row._replace(token_count=1) for row in rows]

    async def _sit_out_hang(self) -> None:
        while self._hangs():
            await asyncio.sleep(HANG_LOOK_SECONDS)
            self._free_at = time.monotonic()

    def _report(
        self,
        plan: shard_pb2.Plan,
        rows: Sequence[Row],
        first_and_count: tuple[int, int],
        final: bool,
        sampled: Sampled,
        seconds: float,
        on_outcome: OnOutcome,
    ) -> None:
        first, count = first_and_count
        self.step_count += count
        self.progress_at = time.monotonic()
        if self._truth is not None:
            sequences = [self._table[row.slot].sequence for row in rows]
            self._truth.sampled(self.progress_at, sequences, sampled.counts, sampled.states)
        on_outcome(Outcome(plan.number, first, count, final, rows, sampled, seconds))

    def _factor(self) -> float:
        jitter = self._options.times.jitter
        return math.exp(self._draw.gauss(0.0, jitter)) if jitter else 1.0


def step_seconds(times: StepTimes, rows: Sequence[Row]) -> float:
    """What one step of these rows takes, before jitter."""
    decode_count = sum(row.is_decode for row in rows)
    prefill_tokens = sum(row.token_count for row in rows if not row.is_decode)
    return (
        times.base_seconds
        + times.per_row_seconds * decode_count
        + times.prefill_seconds * prefill_tokens
    )
