"""Looks at the router from time to time: sets the gauges, and says what memory allows."""

from __future__ import annotations

import asyncio
import time

from santacoder_router.core.scheduler import SchedulerStats
from santacoder_router.health import Health
from santacoder_router.intake import Intake
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.memory import pressure_of, resident_bytes
from santacoder_router.metrics import Metrics

LOOK_SECONDS = 0.25


async def watch(
    lifecycle: Lifecycle,
    health: Health,
    intake: Intake,
    memory_limit_bytes: int,
    metrics: Metrics,
) -> None:
    """Looks until cancelled; also measures how late the event loop wakes this up."""
    preemption_count = 0
    metrics.memory.labels("limit").set(memory_limit_bytes)
    while True:
        due = time.monotonic() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        health.lag_seconds = max(0.0, time.monotonic() - due)
        metrics.loop_lag.set(health.lag_seconds)
        used_bytes = resident_bytes()
        metrics.memory.labels("resident").set(used_bytes)
        intake.press(pressure_of(used_bytes, memory_limit_bytes))
        if lifecycle.serving is None:
            continue
        stats = lifecycle.serving.step_loop.scheduler.stats
        set_gauges(metrics, stats)
        metrics.preemptions.inc(stats.preemption_count - preemption_count)
        preemption_count = stats.preemption_count


def set_gauges(metrics: Metrics, stats: SchedulerStats) -> None:
    """What the scheduler holds now."""
    metrics.running_requests.set(stats.running_request_count)
    metrics.queued_requests.set(stats.queued_request_count)
    metrics.queued_tokens.set(stats.queued_token_count)
    metrics.kv_blocks.labels("free").set(stats.free_block_count)
    metrics.kv_blocks.labels("cached").set(stats.cached_block_count)
    metrics.kv_blocks.labels("held").set(stats.held_block_count)
