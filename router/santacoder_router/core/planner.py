"""Decides what the next plan runs: decode rows first, then prefill, then newcomers.

Reads and moves the group's state; knows no results and no events.
"""

from __future__ import annotations

from santacoder_router.core.admission import admit
from santacoder_router.core.draft import Draft
from santacoder_router.core.group import GroupState
from santacoder_router.core.lease import StepTime
from santacoder_router.core.sequence import Residency
from santacoder_router.core.settings import SchedulerConfig
from santacoder_router.core.waiting import WaitingQueue

# A backlog of prompts is to be run in about so many steps, whatever they cost running answers.
BACKLOG_STEP_COUNT = 8


def draft_step(
    config: SchedulerConfig, group: GroupState, waiting: WaitingQueue, now: float
) -> Draft:
    """One step's rows, with blocks for all their tokens. Who is preempted is back in `waiting`."""
    draft = Draft(config.tokens_per_step)
    _plan_decodes(draft, group)
    for sequence in draft.preempted:
        waiting.put_back(sequence, now)
    if draft.rows:
        _limit_prompts(draft, config, group, waiting)
    for residency in group.running:
        if residency.prefill_left > 0:
            _plan_chunk(residency, draft, group)
    _admit_waiting(draft, group, waiting, now)
    for copy in draft.copies:
        group.pool.release([copy.source])
    return draft


def extend_to_lease(
    draft: Draft, config: SchedulerConfig, group: GroupState, step_time: StepTime
) -> int:
    """How many steps the draft runs; more than one only if all rows sample. Preempts nobody.

    Whoever still waits could not be admitted: newcomers are in the draft already.
    """
    if not draft.rows or not draft.is_lease_possible:
        return 1
    plan_seconds = config.plan_seconds(len(draft.rows))
    num_steps = step_time.steps_within(plan_seconds, config.steps_per_lease)
    if num_steps == 1:
        return 1
    residencies = [row.residency for row in draft.rows]
    # The draft's own step is counted already.
    more = min(num_steps - 1, min(residency.samples_left for residency in residencies))
    while more > 0 and _missing_blocks(residencies, more, group) > group.pool.available_count:
        more //= 2
    if more > 0:
        for residency in residencies:
            missing = group.missing_blocks(residency, more)
            residency.blocks += group.pool.take(missing)
            residency.planned_computed += more
            residency.pending_samples += more
    return 1 + more


def _plan_decodes(draft: Draft, group: GroupState) -> None:
    block_size = group.block_size
    # In order, so that whoever is preempted comes later and has no row in the draft yet.
    for residency in list(group.running):
        position = residency.planned_computed
        if position < residency.admitted_length or residency.samples_left <= 0:
            continue
        if not residency.is_live:
            continue
        if position == len(residency.blocks) * block_size and not _grow(residency, draft, group):
            continue
        draft.add_decode_row(residency)


def _grow(residency: Residency, draft: Draft, group: GroupState) -> bool:
    """Gives a residency a block, preempting the last in order if need be.

    False if that was the residency itself.
    """
    while group.pool.available_count == 0:
        last = group.running[-1]
        group.leave(last)
        draft.preempted.append(last.sequence)
        if last is residency:
            return False
    residency.blocks += group.pool.take(1)
    return True


def _limit_prompts(
    draft: Draft, config: SchedulerConfig, group: GroupState, waiting: WaitingQueue
) -> None:
    """Keep the step short for the answers that go on in it; longer, the more prompts wait."""
    begun_count = sum(max(0, residency.prefill_left) for residency in group.running)
    backlog_share = (begun_count + waiting.token_count) // BACKLOG_STEP_COUNT
    short = config.tokens_beside_answers - len(draft.rows)
    draft.tokens_left = min(draft.tokens_left, max(short, backlog_share, config.block_size))


def _plan_chunk(residency: Residency, draft: Draft, group: GroupState) -> None:
    """As many of a prompt's tokens as the step still holds, and none if it is full."""
    token_count = min(draft.tokens_left, residency.prefill_left)
    if token_count <= 0:
        return
    draft.add_chunk_row(residency, token_count)
    # What the chunk fills may be read from now on, by later rows of this plan too: every row writes
    # its K and V before any row attends.
    first = residency.registered_count
    group.register_blocks(residency, residency.planned_computed)
    draft.filled_blocks.update(residency.blocks[first : residency.registered_count])


def _admit_waiting(draft: Draft, group: GroupState, waiting: WaitingQueue, now: float) -> None:
    # Only while the step has room: a prompt looked up later finds more in the cache.
    while draft.tokens_left > 0 and group.has_free_slot and (sequence := waiting.head) is not None:
        residency = admit(sequence, draft, group)
        if residency is None:
            break
        waiting.take(sequence, now)
        _plan_chunk(residency, draft, group)
    waiting.keep_waiting(now)


def _missing_blocks(residencies: list[Residency], num_tokens: int, group: GroupState) -> int:
    return sum(group.missing_blocks(residency, num_tokens) for residency in residencies)
