"""What holds after every fault: all have ended, nothing is held, a probe gives the known text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from router.running_router import Running, until

from santacoder_client import AsyncClient, Completion, CompletionOptions, RetryPolicy

AT_ONCE = RetryPolicy(first_pause_seconds=0.01, longest_pause_seconds=0.2)
PROBE = CompletionOptions(max_new_tokens=40, temperature=0.5, seed=2, ignore_eos=True)


async def ask(target: str, prompt: str = "def f(x):", **more: Any) -> Completion:
    """A streamed answer through the SDK, put together."""
    async with AsyncClient(target, retry=AT_ONCE) as client:
        options = cast(CompletionOptions, {**PROBE, **more})
        return await client.stream(prompt, **options).result()


async def ask_many(target: str, count: int) -> list[Completion]:
    """Answers at once to as many prompts."""
    return await asyncio.gather(*(ask(target, f"prompt {number}") for number in range(count)))


def said(answers: list[Completion]) -> list[object]:
    """All that an answer is held to; times may differ."""
    return [answer.choices for answer in answers]


async def expect_calm(running: Running, golden: Completion) -> None:
    """Nothing is left of what ran, and the probe is `golden`."""
    scheduler = running.step_loop.scheduler

    def is_calm() -> bool:
        stats = scheduler.stats
        held = (stats.running_request_count, stats.queued_request_count, stats.held_block_count)
        return held == (0, 0, 0) and running.router._intake.running_count == 0

    await until(is_calm)
    assert (await ask(running.router.address)).choices == golden.choices
    await until(is_calm)
    assert [line for line in running.log if line.get("exc_info")] == []


@asynccontextmanager
async def supervised(running: Running) -> AsyncIterator[None]:
    """As under a supervisor: when a rank's stream has ended, the next life of the group comes."""

    async def replace() -> None:
        while True:
            waits = [asyncio.create_task(shard.ended.wait()) for shard in running.group.shards]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            await running.next_life()

    supervisor = asyncio.create_task(replace())
    try:
        yield
    finally:
        supervisor.cancel()
        with suppress(asyncio.CancelledError):
            await supervisor
