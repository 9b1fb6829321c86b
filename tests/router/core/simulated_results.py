"""How a shard group tells what a plan brought: in one result or several, cut short or not."""

from __future__ import annotations

from random import Random

from santacoder_router.core.plan import RowResult, RowState, StepPlan, StepResult


def report(
    plan: StepPlan,
    outcomes: list[list[RowResult]],
    states: list[RowState],
    step_seconds: float,
    random: Random,
) -> list[StepResult]:
    """The results of a plan, of which each step that ran has an outcome a row."""
    is_cut = len(outcomes) < plan.num_steps
    # A lease that is cut after its last report ends with a report of no step.
    ends_empty = is_cut and random.random() < 0.5
    results: list[StepResult] = []
    first = 0
    while first < len(outcomes):
        count = random.randint(1, len(outcomes) - first)
        part = outcomes[first : first + count]
        rows = tuple(_joined(steps) for steps in zip(*part, strict=True))
        is_final = first + count == len(outcomes) and not ends_empty
        seconds = _seconds(plan, first, count, step_seconds) * random.uniform(0.97, 1.03)
        results.append(StepResult(plan.number, first, count, is_final, rows, seconds))
        first += count
    if ends_empty:
        rows = tuple(RowResult((), state) for state in states)
        results.append(StepResult(plan.number, first, 0, True, rows, 0.0))
    return results


def _seconds(plan: StepPlan, first_step: int, num_steps: int, step_seconds: float) -> float:
    """What the device took. A step that reads prompts takes longer."""
    seconds = num_steps * step_seconds
    if first_step == 0:
        seconds += sum(row.token_count - 1 for row in plan.rows) * step_seconds
    return seconds


def _joined(steps: tuple[RowResult, ...]) -> RowResult:
    """One row's outcome of several steps; masked steps after an end do not hide the end."""
    run = [step for step in steps if step.state is not RowState.MASKED]
    return RowResult(
        tuple(token_id for step in steps for token_id in step.token_ids),
        run[-1].state if run else RowState.MASKED,
        tuple(entry for step in steps for entry in step.logprobs),
    )
