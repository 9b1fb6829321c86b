"""A router whose every shard is behind a proxy, and a supervisor that replaces what has died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.calm import ask, ask_many, expect_calm, supervised
from router.fault_proxy import FaultProxy, fault_proxy
from router.mock_shard import Behaviour
from router.running_router import Running, running_router, until

from santacoder_client import Completion

FAILURES = "santacoder_router_group_failures_total"


@dataclass
class Linked:
    """A router whose every shard is behind a proxy."""

    running: Running
    proxies: list[FaultProxy]
    golden: Completion

    @property
    def target(self) -> str:
        return self.running.router.address

    @property
    def failure_count(self) -> int:
        """Lives of the group that have ended."""
        return int(self.running.router.metrics.registry.get_sample_value(FAILURES) or 0)

    async def until_dead(self, count: int) -> None:
        """So many lives have ended."""
        await until(lambda: self.failure_count >= count)

    async def amid(self, fault: Callable[[], object], count: int = 3) -> list[Completion]:
        """Answers, amid which the fault comes."""
        before = self.running.generated_count
        answers = asyncio.create_task(ask_many(self.target, count))
        await until(lambda: self.running.generated_count > before + 5)
        fault()
        return await answers


@asynccontextmanager
async def linked(
    folder: Path, behaviour: Behaviour | None = None, size: int = 1
) -> AsyncIterator[Linked]:
    """At the end all has to be calm."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(fault_proxy(f"unix:{folder}/{rank}.sock"))
            for rank in range(size)
        ]
        addresses = tuple(proxy.target for proxy in proxies)
        behaviour = behaviour or Behaviour(step_seconds=0.002)
        running = await stack.enter_async_context(
            running_router(folder, behaviour, size, shard_addresses=addresses)
        )
        await stack.enter_async_context(supervised(running))
        golden = await ask(running.router.address)
        link = Linked(running, proxies, golden)
        yield link
        await expect_calm(running, golden)
