"""Tokens a second of many clients at once, beside the same job run by the engine in process."""

from __future__ import annotations

import statistics
import time

import gpu_clients
from gpu_clients import Load, Question
from gpu_job import Job
from gpu_parts import Settings
from gpu_serve import serve

STREAM_COUNT = 256
PROMPT_LENGTH, NEW_TOKENS = 128, 512
ROUND_COUNT = 3
# As many as run at once, and as many again: the next is always there, and the queue never full.
REQUEST_COUNT, REQUESTS_AT_ONCE = 1024, 512
STEPS_PER_LEASE = 8
TOKENS_PER_STEP = 512


def measure_in_process(settings: Settings) -> dict[str, float]:
    """256 prompts of 128 run as fast as plans hold them, then leases until each has 512 ids."""
    job = Job(settings.layer_count, STREAM_COUNT, TOKENS_PER_STEP)
    rates = [_job_tokens_per_second(job) for _ in range(1 + ROUND_COUNT)]
    return {"job_b256_tok_s": statistics.median(rates[1:])}


def _job_tokens_per_second(job: Job) -> float:
    slots = range(STREAM_COUNT)
    at_once = job.tokens_per_step // PROMPT_LENGTH
    plans = [
        job.prompt_plan(dict.fromkeys(slots[first : first + at_once], PROMPT_LENGTH), 0, NEW_TOKENS)
        for first in range(0, STREAM_COUNT, at_once)
    ]
    left = NEW_TOKENS - 1
    while left:
        steps = min(STEPS_PER_LEASE, left)
        plans.append(job.lease(slots, steps))
        left -= steps
    begin = time.perf_counter()
    finished = job.run(plans)
    return sum(plan.token_count for plan in finished) / (finished[-1].at - begin)


def measure(settings: Settings) -> dict[str, float]:
    """Both loads on one server; the first round of each is not counted."""
    streams = [Question(PROMPT_LENGTH, NEW_TOKENS)] * STREAM_COUNT
    requests = [Question(512, 128)] * REQUEST_COUNT
    count = settings.client_process_count
    with serve(settings) as service:
        many = [
            gpu_clients.run(service.address, gpu_clients.spread(streams, count, STREAM_COUNT, seed))
            for seed in range(1 + ROUND_COUNT)
        ]
        shares = gpu_clients.spread(requests, count, REQUESTS_AT_ONCE, 1 + ROUND_COUNT)
        queued = gpu_clients.run(service.address, shares)
    _check(queued, REQUEST_COUNT * 128)
    for load in many:
        _check(load, STREAM_COUNT * NEW_TOKENS)
    rate = statistics.median(load.tokens_per_second for load in many[1:])
    return {
        "served_b256_tok_s": rate,
        "served_share_b256": rate / settings.known["job_b256_tok_s"],
        "served_1024x512x128_tok_s": queued.tokens_per_second,
        "served_client_lag_ms": 1000 * max(load.lag_seconds for load in (*many[1:], queued)),
    }


def _check(load: Load, token_count: int) -> None:
    came = sum(sum(heard.counts) for heard in load.heard)
    if came != token_count:
        raise RuntimeError(f"{came} tokens came; {token_count} were asked for")
