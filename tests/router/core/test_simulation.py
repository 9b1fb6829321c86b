"""The scheduler holds its invariants in hundreds of simulated worlds, and the worlds find its bugs.

Knows nothing of the worlds themselves; see simulate.py for how to replay one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from router.core import simulate
from router.core.simulated_model import Violation

from santacoder_router.core import admission, planner, scheduler
from santacoder_router.core.blocks import BlockPool
from santacoder_router.core.draft import Draft
from santacoder_router.core.group import GroupState, PlannedRow
from santacoder_router.core.plan import Event, FinishReason
from santacoder_router.core.prefix import Prefix, root_prefix
from santacoder_router.core.sequence import Residency, Sequence
from santacoder_router.core.timers import Timers

SEEDS_A_TEST = 50


@pytest.mark.parametrize("first", range(0, 500, SEEDS_A_TEST))
def test_invariants_hold_in_seeds_from(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        simulate.run_seed(seed)


def test_the_same_seed_gives_the_same_plans_and_events_under_another_hash_seed() -> None:
    seeds = range(7000, 7003)
    here = [simulate.run_seed(seed) for seed in seeds]
    assert here == [simulate.run_seed(seed) for seed in seeds]
    assert len(set(here)) == len(here)
    code = (
        f"from router.core import simulate; print(*(simulate.run_seed(seed) for seed in {seeds!r}))"
    )
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env=dict(os.environ, PYTHONHASHSEED=hash_seed),
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.split() == here


def _forget_a_holder(patch: pytest.MonkeyPatch) -> None:
    def share(pool: BlockPool, blocks: list[int]) -> None:
        for block in blocks:
            if pool._holder_counts[block] == 0:
                del pool._cached[block]
                pool._holder_counts[block] = 1

    patch.setattr(BlockPool, "share", share)


def _register_output_before_its_last_key_is_written(patch: pytest.MonkeyPatch) -> None:
    def register(self: scheduler.Scheduler, residency: Residency, is_matched: bool) -> None:
        self._group.register_blocks(residency, residency.sequence.token_count)

    patch.setattr(scheduler.Scheduler, "_register_output", register)


def _register_a_whole_prompt_with_its_first_chunk(patch: pytest.MonkeyPatch) -> None:
    register = GroupState.register_blocks

    def early(group: GroupState, residency: Residency, written_count: int) -> None:
        register(group, residency, max(written_count, residency.admitted_length))

    patch.setattr(GroupState, "register_blocks", early)


def _forget_every_seventh_retire(patch: pytest.MonkeyPatch) -> None:
    leave = GroupState.leave

    def forgetful(group: GroupState, residency: Residency) -> None:
        leave(group, residency)
        if residency.sequence.request.request_id % 7 == 0:
            group.retires.pop()

    patch.setattr(GroupState, "leave", forgetful)


def _copy_what_the_same_plan_has_yet_to_write(patch: pytest.MonkeyPatch) -> None:
    plan_chunk = planner._plan_chunk

    def careless(residency: Residency, draft: Draft, group: GroupState) -> None:
        plan_chunk(residency, draft, group)
        draft.filled_blocks.clear()

    patch.setattr(planner, "_plan_chunk", careless)


def _share_between_cache_keys(patch: pytest.MonkeyPatch) -> None:
    def root(cache_seed: bytes, cache_key: bytes) -> Prefix:
        return root_prefix(cache_seed, b"")

    patch.setattr(scheduler, "root_prefix", root)


def _share_the_last_block_of_a_cached_prompt(patch: pytest.MonkeyPatch) -> None:
    reserve = admission._reserve

    def uncopied(*arguments: object) -> admission._Reservation | None:
        reservation = reserve(*arguments)  # type: ignore[arg-type]
        return reservation._replace(copies=[]) if reservation else None

    patch.setattr(admission, "_reserve", uncopied)


def _count_ids_of_a_preempted_residency(patch: pytest.MonkeyPatch) -> None:
    leave = GroupState.leave

    def lively(group: GroupState, residency: Residency) -> None:
        leave(group, residency)
        residency.is_live = not residency.sequence.is_ended

    patch.setattr(GroupState, "leave", lively)


def _keep_the_cache_of_a_dead_group(patch: pytest.MonkeyPatch) -> None:
    reset = scheduler.Scheduler.reset

    def keeping(self: scheduler.Scheduler, now: float) -> list[Event]:
        for residency in list(self._group.running):
            self._group.pool.release(residency.blocks)
        pool = self._group.pool
        events = reset(self, now)
        self._group.pool = pool
        return events

    patch.setattr(scheduler.Scheduler, "reset", keeping)


def _keep_what_a_bad_row_has_cached(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scheduler.Scheduler, "_forget_prefixes", lambda self, sequence: None)


def _ignore_what_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    def samples_left(residency: Residency) -> int:
        sequence = residency.sequence
        return sequence.request.max_new_tokens - len(sequence.output_ids)

    patch.setattr(Residency, "samples_left", property(samples_left))


def _plan_a_lost_step_no_more(patch: pytest.MonkeyPatch) -> None:
    apply_row = scheduler.Scheduler._apply_row

    def forgetful(self: scheduler.Scheduler, *arguments: object) -> None:
        planned = arguments[0]
        assert isinstance(planned, PlannedRow)
        before = planned.residency.planned_computed
        apply_row(self, *arguments)  # type: ignore[arg-type]
        planned.residency.planned_computed = before

    patch.setattr(scheduler.Scheduler, "_apply_row", forgetful)


def _overlook_deadlines(patch: pytest.MonkeyPatch) -> None:
    pop_due = Timers.pop_due

    def blind(timers: Timers, now: float) -> tuple[Sequence, FinishReason] | None:
        due = pop_due(timers, now)
        is_missed = due is not None and due[1] is FinishReason.DEADLINE
        return None if is_missed else due

    patch.setattr(Timers, "pop_due", blind)


@pytest.mark.parametrize(
    "break_scheduler",
    [
        _forget_a_holder,
        _register_output_before_its_last_key_is_written,
        _register_a_whole_prompt_with_its_first_chunk,
        _forget_every_seventh_retire,
        _copy_what_the_same_plan_has_yet_to_write,
        _share_between_cache_keys,
        _share_the_last_block_of_a_cached_prompt,
        _count_ids_of_a_preempted_residency,
        _keep_the_cache_of_a_dead_group,
        _keep_what_a_bad_row_has_cached,
        _ignore_what_is_in_flight,
        _plan_a_lost_step_no_more,
        _overlook_deadlines,
    ],
)
def test_a_broken_scheduler_is_found_within_60_seeds(
    break_scheduler: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_scheduler(monkeypatch)
    with pytest.raises(Violation, match=r"replay: python tests/router/core/simulate.py --seed \d+"):
        for seed in range(60):
            simulate.run_seed(seed)
