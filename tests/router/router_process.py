"""A router in a process of its own, to be killed and replaced, over a mock group in the test's."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from router.mock_shard import Behaviour, MockGroup

DRAIN_SECONDS = 0.1


@dataclass
class RouterProcess:
    """The router, and what it runs on."""

    group: MockGroup
    behaviour: Behaviour
    port: int = 0
    metrics_address: str = ""
    process: Process | None = None

    @property
    def target(self) -> str:
        """The same in every life."""
        return f"127.0.0.1:{self.port}"

    def held_request_count(self) -> int:
        """Sequences that the router has, waiting or running."""
        url = f"http://{self.metrics_address}/metrics"
        with urllib.request.urlopen(url, timeout=60) as page:
            lines = page.read().decode().splitlines()
        names = ("santacoder_router_running_requests ", "santacoder_router_queued_requests ")
        return sum(int(float(line.split()[1])) for line in lines if line.startswith(names))

    async def start(self) -> None:
        """A life of the group, and of the router; ready."""
        await self.group.start()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "santacoder_router",
            f"--shards={','.join(self.group.addresses)}",
            f"--port={self.port}",
            "--log-level=error",
            f"--drain-seconds={DRAIN_SECONDS}",
            stdout=PIPE,
            stderr=DEVNULL,
        )
        assert self.process.stdout is not None
        words = (await self.process.stdout.readline()).decode().split()
        assert words and words[0] == "ready", words
        facts = dict(word.split("=", 1) for word in words[1:])
        self.metrics_address = facts["metrics"]
        self.port = int(facts["grpc"].rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self._replace_group()

    async def drain(self) -> None:
        """SIGTERM; what runs on for too long is cut off."""
        assert self.process is not None
        self.process.terminate()
        assert await self.process.wait() == 0
        await self._replace_group()

    async def _replace_group(self) -> None:
        """Without their router the shards go too, and others take their places."""
        if self.process is not None:
            await self.process.wait()
        await self.group.stop()
        assert self.group.violations == []
        self.group = self.group.next_life()


@contextlib.asynccontextmanager
async def router_process(folder: Path, behaviour: Behaviour) -> AsyncIterator[RouterProcess]:
    """A router that is ready, and gone afterwards."""
    running = RouterProcess(MockGroup(folder, behaviour), behaviour)
    try:
        await running.start()
        yield running
    finally:
        await running.kill()
