"""Invariants of a scheduler's inside, checked from outside. Looks at private parts on purpose."""

from __future__ import annotations

from collections import defaultdict
from math import inf

from router.core.simulated_clients import Client
from router.core.simulated_model import require
from router.core.simulated_worlds import most_sequences

from santacoder_router.core.scheduler import Scheduler, SchedulerConfig
from santacoder_router.core.sequence import Residency, Sequence


def check_state(scheduler: Scheduler, config: SchedulerConfig) -> None:
    """What holds after every event (I6, I7, I12, I13)."""
    group = scheduler._group
    running = group.running
    slot_count = most_sequences(config)
    require(len(running) <= slot_count, "I12 too many running", len(running))
    require(len(group.in_flight) <= config.plans_in_flight, "I12 too many plans in flight")
    slots = sorted([residency.slot for residency in running] + group._free_slots)
    require(slots == list(range(slot_count)), "I6 slots lost or doubled", slots)
    orders = [residency.sequence.order for residency in running]
    require(orders == sorted(orders), "I19 running out of order")
    _check_blocks(scheduler, config)
    _check_cache(scheduler)


def held_ids(scheduler: Scheduler) -> list[int]:
    """Who has neither a slot nor a place in the queue."""
    return [number for number, sequence in scheduler._live.items() if sequence.is_held]


def _check_loads(scheduler: Scheduler, waiting: list[Sequence]) -> None:
    """Of every caller who has something here it is known how much, and of nobody else (I12)."""
    expected: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for residency in scheduler._group.running:
        expected[residency.sequence.request.caller.name][0] += 1
    for sequence in waiting:
        counts = expected[sequence.request.caller.name]
        counts[1] += 1
        counts[2] += sequence.token_count
    known = {
        name: [load.running_count, load.waiting_count, load.waiting_tokens]
        for name, load in scheduler._waiting._loads.items()
    }
    require(known == expected, "I12 I13 what callers have", known, dict(expected))
    require(len(scheduler._waiting) == len(waiting), "I12 queued", len(waiting))


def _check_blocks(scheduler: Scheduler, config: SchedulerConfig) -> None:
    pool = scheduler._group.pool
    holders = [0] * config.block_count
    for residency in scheduler._group.running:
        _check_table(residency, config.block_size)
        for block in residency.blocks:
            holders[block] += 1
    require(holders == pool._holder_counts, "I6 holder counts", holders, pool._holder_counts)
    idle = pool._free + list(pool._cached)
    require(len(idle) == len(set(idle)) == holders.count(0), "I6 blocks lost or doubled")
    require(sum(map(holders.__getitem__, idle)) == 0, "I6 a held block may be taken")
    counted = pool.held_count + len(idle)
    require(counted == pool.total_count == config.block_count, "I6 counts", counted)
    for residency in scheduler._group.running:
        # Whatever a plan still to come may write has one holder and is not in the cache.
        for block in residency.blocks[residency.planned_computed // config.block_size :]:
            is_own = holders[block] == 1 and pool._prefixes[block] is None
            require(is_own, "I7 shared block would be written", residency.sequence.request, block)


def _check_table(residency: Residency, block_size: int) -> None:
    request = residency.sequence.request
    # The last token sampled is not run.
    most_tokens = len(request.prompt_ids) + request.max_new_tokens - 1
    block_count = len(residency.blocks)
    is_needed = (block_count - 1) * block_size < most_tokens
    require(is_needed, "I6 more blocks than the longest answer needs", request, block_count)


def _check_cache(scheduler: Scheduler) -> None:
    """Blocks and prefixes name each other, and whoever is cached can be found (I6, I13)."""
    pool = scheduler._group.pool
    named = set(pool._block_by_digest.values())
    named_count = len(pool._prefixes) - pool._prefixes.count(None)
    is_paired = len(named) == len(pool._block_by_digest) == named_count
    require(is_paired, "I13 prefixes and blocks are not one to one")
    require(named.isdisjoint(pool._free), "I6 free block is cached")
    require(named.issuperset(pool._cached), "I6 cached block has no prefix")


def check_line(scheduler: Scheduler, clients: list[Client], now: float) -> None:
    """After `plan`: who waits is counted right, and whose time is up has ended (I12, I17)."""
    waiting = list(scheduler._waiting)
    running = [residency.sequence for residency in scheduler._group.running]
    together = [sequence.request.request_id for sequence in running + waiting]
    together += held_ids(scheduler)
    together.sort()
    require(together == sorted(scheduler._live), "I13 live requests have one place each")
    _check_loads(scheduler, waiting)
    tokens = sum([sequence.token_count for sequence in waiting])
    require(tokens == scheduler.queued_token_count, "I12 queued tokens", tokens)
    earliest = min([client.first_end[0] for client in clients], default=inf)
    require(earliest > now, "I17 lives on past its time", earliest)
    expected = None if earliest == inf else earliest
    require(scheduler.next_deadline() == expected, "L4 next deadline", expected)


def check_timer_count(scheduler: Scheduler) -> None:
    """After an arrival: the timers of requests long gone are not kept (I13)."""
    live_count = len(scheduler._live)
    require(len(scheduler._timers) <= 6 * live_count + 64, "I13 timers pile up", live_count)


def check_empty(scheduler: Scheduler, config: SchedulerConfig) -> None:
    """After the last request and the last result everything is back where it began (L5)."""
    stats = scheduler.stats
    require(stats.held_block_count == 0, "L5 blocks held", stats)
    require(stats.running_request_count == stats.queued_request_count == 0, "L5 requests", stats)
    require(stats.queued_token_count == 0, "L5 queued tokens", stats)
    require(len(scheduler._group._free_slots) == most_sequences(config), "L5 slots taken")
    require(not scheduler._group.is_retire_urgent, "L5 retires unsent")
    suspects = scheduler._suspects
    is_tried = suspects._on_trial or suspects._untried
    require(not suspects and not is_tried, "L5 suspects left")
    require(scheduler.next_deadline() is None and len(scheduler._timers) == 0, "L5 timers left")
    prefixes = [prefix for prefix in scheduler._group.pool._prefixes if prefix is not None]
    is_whole = all(len(prefix.content) == 4 * config.block_size for prefix in prefixes)
    require(is_whole, "I8 a block in part written is cached")


def live_rows(scheduler: Scheduler) -> list[bool]:
    """Of the plan that the next result answers, the rows that it still means something to."""
    in_flight = scheduler._group.in_flight
    require(bool(in_flight), "I3 a plan was forgotten")
    return [row.residency.sequence.residency is row.residency for row in in_flight[0].rows]


def tried_ids(scheduler: Scheduler) -> set[int] | None:
    """Who alone may run, while it is looked for who kills the group."""
    return set(scheduler._suspects._on_trial) if scheduler._waiting.is_trying else None


def fingerprint(scheduler: Scheduler) -> tuple[object, ...]:
    """All that a result may change: equal before and after what must change nothing (I3, I5)."""
    group = scheduler._group
    running = [
        (
            residency.sequence.request.request_id,
            residency.generation,
            residency.planned_computed,
            residency.pending_samples,
            residency.registered_count,
            list(residency.blocks),
            list(residency.sequence.output_ids),
        )
        for residency in group.running
    ]
    in_flight = [(plan.number, plan.steps_done) for plan in group.in_flight]
    retires = list(group.retires)
    waiting = [sequence.request.request_id for sequence in scheduler._waiting]
    waiting += held_ids(scheduler)
    return scheduler.stats, running, in_flight, retires, waiting, len(scheduler._timers)
