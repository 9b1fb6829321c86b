"""The time of a decode step in process: leases of eight steps, each given behind the one before.

What is between the ends of two leases holds everything: kernels, the choice of the id, ids to the
host, blocks granted, and whatever the GPU waits for the host.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import pairwise

from gpu_job import Job
from gpu_parts import Settings

STEPS_PER_LEASE = 8
WARM_UP_LEASES = 2
LEAST_STEP_COUNT = 288
TOKENS_PER_STEP = 512


@dataclass(frozen=True, slots=True)
class Case:
    """So many sequences, each with a context of `context` to `context` + 8 * `lease_count`."""

    key: str
    batch: int
    context: int = 512
    lease_count: int = 18


CASES = (
    *(Case(f"decode_b{batch}", batch) for batch in (1, 8, 32, 64, 128, 256)),
    Case("decode_ctx2000_b1", 1, 2000, 5),
    Case("decode_ctx2000_b64", 64, 2000, 5),
)


def measure(settings: Settings) -> dict[str, float]:
    """Each case's median, mean and worst lease, in ms a step."""
    job = Job(settings.layer_count, max(case.batch for case in CASES), TOKENS_PER_STEP)
    values: dict[str, float] = {}
    for case in CASES:
        steps = milliseconds(job, case)
        values[f"{case.key}_ms"] = statistics.median(steps)
        values[f"{case.key}_mean_ms"] = statistics.fmean(steps)
        values[f"{case.key}_worst_ms"] = max(steps)
        print(f"{case.key}: {values[f'{case.key}_ms']:.3f} ms", flush=True)
    return values


def milliseconds(job: Job, case: Case) -> list[float]:
    """Of a step, a figure a lease."""
    slots = range(case.batch)
    first = case.context - STEPS_PER_LEASE * WARM_UP_LEASES
    _fill(job, case.batch, first)
    steps: list[float] = []
    while len(steps) * STEPS_PER_LEASE < LEAST_STEP_COUNT:
        # The last token of the prompt is the warm-up's first; the others are in the blocks.
        plans = [job.prompt_plan(dict.fromkeys(slots, first), cached=first - 1)]
        for _ in range(WARM_UP_LEASES + case.lease_count):
            plans.append(job.lease(slots, STEPS_PER_LEASE))
        ends = [finished.at for finished in job.run(plans)]
        gaps = [1000 * (end - begin) / STEPS_PER_LEASE for begin, end in pairwise(ends)]
        steps += gaps[WARM_UP_LEASES:]
    return steps


def _fill(job: Job, batch: int, length: int) -> None:
    """Put K and V of random tokens into the slots' blocks: zeros would draw less power."""
    for slot in range(batch):
        for end in range(TOKENS_PER_STEP, length + TOKENS_PER_STEP, TOKENS_PER_STEP):
            cached = end - TOKENS_PER_STEP
            job.run([job.prompt_plan({slot: min(end, length)}, cached)])
