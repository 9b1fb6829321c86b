"""Short ways to make a scheduler, requests and results for the unit tests. Knows no invariants."""

from __future__ import annotations

from typing import Any

from santacoder_router.core.plan import Request, RowResult, RowState, StepPlan, StepResult
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig

DEFAULTS: dict[str, Any] = {
    "block_size": 4,
    "block_count": 32,
    "slot_count": 8,
    "blocks_per_sequence": 16,
    "tokens_per_step": 64,
    "steps_per_lease": 1,
    "plans_in_flight": 2,
    "context_token_count": 64,
    "lease_seconds": 0.01,
    "queue_wait_seconds": 10.0,
    "aging_seconds": 5.0,
}


def make_scheduler(**changes: Any) -> Scheduler:
    """A scheduler with blocks of 4 tokens, and what `changes` say."""
    return Scheduler(SchedulerConfig(**{**DEFAULTS, **changes}), b"seed")


def make_request(request_id: int, prompt: range | list[int], new: int = 8, **more: Any) -> Request:
    """A request for `new` tokens after the ids of `prompt`."""
    return Request(request_id=request_id, prompt_ids=tuple(prompt), max_new_tokens=new, **more)


def planned(scheduler: Scheduler, now: float = 0.0) -> StepPlan:
    """The next plan, which there must be."""
    plan, _ = scheduler.plan(now)
    assert plan is not None
    return plan


def answer(
    plan: StepPlan,
    *rows: tuple[tuple[int, ...], RowState],
    first_step: int = 0,
    steps_run: int | None = None,
    final: bool = True,
    device_seconds: float = 0.001,
) -> StepResult:
    """A result with these ids and states; without any, each sampled row yields 9 and runs on."""
    steps = plan.num_steps if steps_run is None else steps_run
    if not rows:
        rows = tuple(((9,) * steps if row.sample else (), RowState.RUNNING) for row in plan.rows)
    return StepResult(
        plan_number=plan.number,
        first_step=first_step,
        steps_run=steps,
        final=final,
        rows=tuple(RowResult(ids, state) for ids, state in rows),
        device_seconds=device_seconds,
    )


def run_to_end(scheduler: Scheduler, now: float = 0.0) -> list[StepPlan]:
    """Answers plans with ids 9 until nothing is left; rows end at their maximum."""
    left: dict[int, int] = {}
    plans: list[StepPlan] = []
    while (plan := scheduler.plan(now)[0]) is not None:
        plans.append(plan)
        left.update({admit.sequence: admit.remaining_max_tokens for admit in plan.admits})
        rows: list[tuple[tuple[int, ...], RowState]] = []
        for row in plan.rows:
            count = min(plan.num_steps, left[row.sequence]) if row.sample else 0
            left[row.sequence] -= count
            state = RowState.RUNNING if left[row.sequence] else RowState.LENGTH
            rows.append(((9,) * count, state))
        scheduler.apply(answer(plan, *rows), now)
    return plans
