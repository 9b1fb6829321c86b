"""Invariants of a scheduler's inside, checked from outside. Looks at private parts on purpose."""

from __future__ import annotations

from collections import Counter

from router.core.simulated_model import require

from santacoder_router.core.plan import StepPlan
from santacoder_router.core.scheduler import Scheduler, SchedulerConfig


def check_state(scheduler: Scheduler, config: SchedulerConfig) -> None:
    """What holds after every event (I6, I7, I12, I13)."""
    group = scheduler._group
    running = group.running
    residents = [residency.sequence.request.request_id for residency in running]
    queued = [sequence.request.request_id for sequence in scheduler._waiting._sequences]
    together = sorted(residents + queued)
    require(together == sorted(scheduler._live), "I13 live requests have one place each")
    tokens = sum(sequence.token_count for sequence in scheduler._waiting._sequences)
    require(tokens == scheduler.queued_token_count, "I12 queued tokens", tokens)
    require(len(running) <= config.sequence_limit, "I12 too many running", len(running))
    require(len(group.in_flight) <= config.plans_in_flight, "I12 too many plans in flight")
    slots = sorted([residency.slot for residency in running] + group._free_slots)
    require(slots == list(range(config.sequence_limit)), "I6 slots lost or doubled", slots)
    orders = [residency.sequence.order for residency in running]
    require(orders == sorted(orders), "I19 running out of order")
    _check_blocks(scheduler, config)


def _check_blocks(scheduler: Scheduler, config: SchedulerConfig) -> None:
    group = scheduler._group
    pool = group.pool
    holders = Counter(block for residency in group.running for block in residency.blocks)
    counts = pool._holder_counts
    held = [block for block, count in enumerate(counts) if count != 0]
    require(sorted(holders) == held, "I6 held blocks without a holder", held)
    require(all(counts[block] == count for block, count in holders.items()), "I6 holder counts")
    places = sorted(pool._free + list(pool._cached) + held)
    require(places == list(range(config.block_count)), "I6 blocks lost or doubled")
    stats = scheduler.stats
    total = stats.free_block_count + stats.cached_block_count + stats.held_block_count
    require(total == stats.total_block_count == config.block_count, "I6 counts", stats)
    require(all(pool._prefixes[block] is None for block in pool._free), "I6 free block is cached")
    require(all(pool._prefixes[block] for block in pool._cached), "I6 cached block has no prefix")
    for residency in group.running:
        # Whatever a plan still to come may write has one holder and is not in the cache.
        for block in residency.blocks[residency.planned_computed // config.block_size :]:
            is_own = holders[block] == 1 and pool._prefixes[block] is None
            require(is_own, "I7 shared block would be written", residency.sequence.request, block)


def check_timers(scheduler: Scheduler) -> None:
    """After an arrival: the timers of requests long gone are not kept (I13)."""
    live_count = len(scheduler._live)
    require(len(scheduler._timers) <= 6 * live_count + 64, "I13 timers pile up", live_count)


def check_progress(scheduler: Scheduler, plan: StepPlan | None) -> None:
    """After `plan` with an open window: the first in order moves, and no work is left lying."""
    group = scheduler._group
    rows = plan.rows if plan else ()
    planned = {row.sequence for row in rows}
    if group.running:
        first = group.running[0]
        moves = first.sequence.request.request_id in planned or first.samples_left <= 0
        require(moves, "L3 the first in order does not move", first)
    others_in_flight = len(group.in_flight) - (1 if plan else 0)
    if scheduler._live and others_in_flight == 0:
        require(bool(rows), "L4 work is waiting, nothing is planned", scheduler.stats)


def check_admission_order(scheduler: Scheduler, plan: StepPlan, restored: frozenset[int]) -> None:
    """Nobody is admitted while someone who goes first waits; those of a dead group go first."""
    admitted = {admit.sequence for admit in plan.admits}
    waiting = [sequence.order for sequence in scheduler._waiting._sequences]
    for residency in scheduler._group.running:
        request_id = residency.sequence.request.request_id
        if request_id in admitted and request_id not in restored:
            is_first = not waiting or residency.sequence.order < min(waiting)
            require(is_first, "I19 L2 overtook someone who waits", request_id)


def check_empty(scheduler: Scheduler, config: SchedulerConfig) -> None:
    """After the last request and the last result everything is back where it began (L5)."""
    stats = scheduler.stats
    require(stats.held_block_count == 0, "L5 blocks held", stats)
    require(stats.running_request_count == stats.queued_request_count == 0, "L5 requests", stats)
    require(stats.queued_token_count == 0, "L5 queued tokens", stats)
    require(len(scheduler._group._free_slots) == config.sequence_limit, "L5 slots taken")
    require(not scheduler._group.is_retire_urgent, "L5 retires unsent")
    require(scheduler.next_deadline() is None and len(scheduler._timers) == 0, "L5 timers left")
