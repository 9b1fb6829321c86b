"""Looks at a service under a load, and in its pauses: what is held, and how much memory."""

from __future__ import annotations

import asyncio
import gc
import os
import time

from faults.load import MixedLoad
from soak.record import Record
from soak.site import Held, Site, resident

from santacoder_client import AsyncClient, CompletionOptions

CALM_SECONDS = 120.0
TOLD_SECONDS = 5.0
SAMPLE_SECONDS = 15.0
# gRPC ends threads of its pools some time after they had work, and starts others.
THREAD_SLACK = 4
GAUGES = ("running_requests", "queued_requests")
PROBE = CompletionOptions(max_new_tokens=32, temperature=0.7, seed=4, ignore_eos=True)
PROBE_IDS = [5, 9, 200, 31, 7]


class Watch:
    """Fills the record of one run."""

    def __init__(self, site: Site, record: Record) -> None:
        self.site = site
        self.record = record
        self._held: Held = {}
        self._golden: tuple[int, ...] = ()

    async def begin(self, load: MixedLoad) -> None:
        """What is there after some load and before any fault is what has to be there later."""
        running = asyncio.create_task(load.run())
        await load.more(60)
        load.stop()
        await running
        load.go_on()
        self._golden = await self._probe()
        await asyncio.sleep(1.0)
        self._held = self.site.held()

    async def sample_until(self, at: float) -> None:
        """Notes the memory of every process from time to time."""
        while (left := at - time.monotonic()) > 0:
            await asyncio.sleep(min(left, SAMPLE_SECONDS))
            self._sample()

    async def calm(self, name: str) -> None:
        """Waits until nothing is held any more; notes what still is after two minutes."""
        began = time.monotonic()
        left: list[str] = []
        is_told = False
        while True:
            try:
                left = await asyncio.to_thread(self._left)
            except (OSError, ValueError, AssertionError, StopIteration) as error:
                left = [f"the service is away: {error}"]
            if not left:
                break
            if not is_told and time.monotonic() > began + TOLD_SECONDS:
                is_told = True
                print(f"{'':32s}still: {'; '.join(left)}")
            if time.monotonic() > began + CALM_SECONDS:
                self.record.missed(f"after {name}: {'; '.join(left)}")
                break
            await asyncio.sleep(0.25)
        self.record.calmed(name, time.monotonic() - began)
        if await self._probe() != self._golden:
            self.record.missed(f"after {name}: the probe gives another text")
        self._sample()

    async def end(self) -> None:
        """A clean end of the service, whose every life has said nothing of errors of its own."""
        last = await self.site.stop()
        if last.code:
            self.record.missed(f"the last life ended with {last.code}")
        for life in self.site.ended:
            for line in life.errors.splitlines():
                # A rank whose neighbour was killed says where it was.
                if "Traceback" in line and not line.startswith("rank"):
                    self.record.missed(f"a trace in the log: {line[:2000]}")
        self.record.life_count = self.site.life_count

    def _left(self) -> list[str]:
        service = self.site.service
        left = [
            f"{gauge} is {value:g}"
            for gauge in GAUGES
            if (value := service.metric(f"santacoder_router_{gauge}"))
        ]
        if blocks := service.metric("santacoder_router_kv_blocks", state="held"):
            left.append(f"{blocks:g} blocks are held")
        for name, (threads, descriptors) in self.site.held().items():
            before = self._held.get(name, (threads, descriptors))
            if threads > before[0] + THREAD_SLACK:
                left.append(f"{name} has {threads} threads, before {before[0]}")
            if descriptors > before[1]:
                left.append(f"{name} has {descriptors} descriptors, before {before[1]}")
        return left

    async def _probe(self) -> tuple[int, ...]:
        async with AsyncClient(self.site.target) as client:
            return tuple((await client.complete(PROBE_IDS, **PROBE)).token_ids)

    def _sample(self) -> None:
        gc.collect()
        self.record.sampled("this client", os.getpid(), resident(os.getpid()))
        try:
            found = self.site.resident_bytes()
        except OSError:
            return  # one of them has just ended
        for (name, pid), size_bytes in found.items():
            self.record.sampled(name, pid, size_bytes)
