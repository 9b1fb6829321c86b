"""The scheduler's numbers, gathered. Changes nothing."""

from __future__ import annotations

from santacoder_router.core.group import GroupState
from santacoder_router.core.settings import SchedulerStats
from santacoder_router.core.waiting import WaitingQueue


def stats_of(
    waiting: WaitingQueue,
    group: GroupState,
    preemption_count: int,
    admitted_token_count: int,
    cached_token_count: int,
) -> SchedulerStats:
    """The scheduler at this moment; the counts are of its whole life."""
    pool = group.pool
    return SchedulerStats(
        queued_request_count=len(waiting),
        queued_token_count=waiting.token_count,
        running_request_count=len(group.running),
        plans_in_flight=len(group.in_flight),
        free_block_count=pool.free_count,
        cached_block_count=pool.cached_count,
        held_block_count=pool.held_count,
        total_block_count=pool.total_count,
        preemption_count=preemption_count,
        admitted_token_count=admitted_token_count,
        cached_token_count=cached_token_count,
    )
