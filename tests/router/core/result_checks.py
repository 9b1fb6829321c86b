"""What a result has to bring, and how long the leases it measures may be. Knows no caches."""

from __future__ import annotations

from router.core.simulated_model import require

from santacoder_router.core.plan import (
    Event,
    Finished,
    FinishReason,
    RowState,
    StepPlan,
    StepResult,
    Tokens,
)
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig

_ENDS = {
    RowState.END_OF_TEXT: FinishReason.END_OF_TEXT,
    RowState.STOP_ID: FinishReason.STOP_ID,
    RowState.LENGTH: FinishReason.LENGTH,
    RowState.NON_FINITE: FinishReason.NON_FINITE,
}


def expected_events(plan: StepPlan, result: StepResult, live: list[bool]) -> list[Event]:
    """What clients are told of a result, row by row; rows that have ended bring nothing."""
    events: list[Event] = []
    for row, outcome, is_live in zip(plan.rows, result.rows, live, strict=True):
        if not is_live:
            continue
        is_match = outcome.state in (RowState.END_OF_TEXT, RowState.STOP_ID)
        count = len(outcome.token_ids) - is_match
        if count > 0:
            logprobs = outcome.logprobs[:count]
            events.append(Tokens(row.sequence, outcome.token_ids[:count], logprobs))
        if outcome.state in _ENDS:
            matched_id = outcome.token_ids[-1] if is_match else None
            events.append(Finished(row.sequence, _ENDS[outcome.state], matched_id))
    return events


class LeaseOracle:
    """The fastest and the slowest decode step seen in one life of a group: leases lie between."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._fastest = self._slowest = 0.0

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        """A result counts if every row of its plan ran one token and sampled."""
        is_decode = all(row.token_count == 1 and row.sample for row in plan.rows)
        if not plan.rows or not is_decode or result.steps_run == 0:
            return
        seconds = result.device_seconds / result.steps_run
        self._fastest = min(self._fastest or seconds, seconds)
        self._slowest = max(self._slowest, seconds)

    def check(self, plan: StepPlan, scheduler: Scheduler) -> None:
        """A lease lasts no longer than it may, and no shorter than work and blocks allow."""
        config = self._config
        row_seconds = len(plan.rows) * config.seconds_per_row
        allowed = max(config.lease_seconds / config.plans_in_flight, row_seconds)
        cap = scheduler.time_cap_seconds(len(plan.rows))
        require(cap == config.plans_in_flight * allowed, "I12 wrong time cap", cap, allowed)
        num_steps = plan.num_steps
        if num_steps > 1:
            require(self._fastest > 0, "I12 a lease of unknown time", num_steps)
            is_short = num_steps * self._fastest <= allowed * 1.000001
            require(is_short, "I12 a lease lasts too long", num_steps, self._fastest, allowed)
        if num_steps == config.steps_per_lease or (num_steps + 1) * self._slowest > allowed:
            return
        if not self._fastest or not plan.rows or not all(row.sample for row in plan.rows):
            return
        running = [scheduler._live[row.sequence].residency for row in plan.rows]
        least_left = min(residency.samples_left for residency in running if residency)
        most_blocks = len(running) * (config.steps_per_lease // config.block_size + 1)
        is_cut = least_left <= 0 or scheduler._group.pool.available_count < most_blocks
        require(is_cut, "L4 a lease is shorter than it may be", num_steps, allowed, self._slowest)
