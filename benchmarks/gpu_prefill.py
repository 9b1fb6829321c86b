"""The time of one prompt in process: from the plan given to the first id on the host."""

from __future__ import annotations

import statistics
import time

from gpu_job import Job
from gpu_parts import Settings

LENGTHS = (128, 1024, 1900)
TOKENS_PER_STEP = 2048
SLOT_COUNT = 4
WARM_UP_COUNT = 5
REPEAT_COUNT = 200


def measure(settings: Settings) -> dict[str, float]:
    """Each length's median and p99; the whole prompt is one step."""
    job = Job(settings.layer_count, SLOT_COUNT, TOKENS_PER_STEP)
    values: dict[str, float] = {}
    for length in LENGTHS:
        times = [_milliseconds(job, length) for _ in range(WARM_UP_COUNT + REPEAT_COUNT)]
        values[f"prefill_{length}_ms"] = statistics.median(times[WARM_UP_COUNT:])
        values[f"prefill_{length}_p99_ms"] = statistics.quantiles(times[WARM_UP_COUNT:], n=100)[98]
    return values


def _milliseconds(job: Job, length: int) -> float:
    plan = job.prompt_plan({0: length})
    begin = time.perf_counter()
    [finished] = job.run([plan])
    return 1000 * (finished.at - begin)
