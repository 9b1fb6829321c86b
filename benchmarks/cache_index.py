"""What a cached block costs the router: `python benchmarks/cache_index.py`.

Requests that share nothing, one after the other: each leaves one block behind, until the pool has
no other. Until then the router's memory grows with every request, and from then on it does not.
"""

from __future__ import annotations

import random
from pathlib import Path

from santacoder_router.core.plan import Request, RowResult, RowState, StepResult
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.core.settings import SchedulerConfig

BLOCK_SIZE, BLOCK_COUNT = 16, 40_000
PROMPT_LENGTH = BLOCK_SIZE + 2
PAGE_BYTES = 4096


def main() -> None:
    """Prints bytes a block while the pool fills, and what as many requests more add."""
    scheduler = Scheduler(config(), b"seed")
    draw = random.Random(1)
    empty = resident_bytes()
    ask(scheduler, draw, 1, BLOCK_COUNT)
    full = resident_bytes()
    ask(scheduler, draw, 1 + BLOCK_COUNT, BLOCK_COUNT)
    cached = scheduler.stats.cached_block_count
    print(f"{cached} cached blocks: {(full - empty) / cached:.0f} bytes each in the router")
    print(f"{BLOCK_COUNT} requests more: {(resident_bytes() - full) / 2**20:.1f} MiB")


def config() -> SchedulerConfig:
    """One request at a time."""
    return SchedulerConfig(
        block_size=BLOCK_SIZE,
        block_count=BLOCK_COUNT,
        slot_count=1,
        blocks_per_sequence=2,
        tokens_per_step=512,
        steps_per_lease=1,
        plans_in_flight=1,
        context_token_count=2 * BLOCK_SIZE,
    )


def ask(scheduler: Scheduler, draw: random.Random, first_id: int, count: int) -> None:
    """So many requests for one token, each answered before the next."""
    for request_id in range(first_id, first_id + count):
        prompt = tuple(draw.choices(range(49_000), k=PROMPT_LENGTH))
        scheduler.add(Request(request_id, prompt, 1), float(request_id))
        plan, _ = scheduler.plan(float(request_id))
        if plan is None:
            raise RuntimeError("nothing is planned for a request that is alone")
        rows = tuple(RowResult((9,), RowState.LENGTH) for _ in plan.rows)
        scheduler.apply(StepResult(plan.number, 0, 1, True, rows, 0.001), float(request_id))


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    main()
