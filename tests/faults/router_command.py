"""santacoder-router as its own process over a mock group in the test's, started as a test likes."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.mock_shard import Behaviour, MockGroup

WAIT_SECONDS = 60.0


@dataclass
class RouterCommand:
    """A router that is ready."""

    process: Process
    group: MockGroup
    target: str
    metrics_address: str

    async def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)

    async def metric(self, name: str) -> float:
        """A sample without labels."""
        host, _, port = self.metrics_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(name))


@asynccontextmanager
async def router_command(
    folder: Path, behaviour: Behaviour, *extra: str, epoch: int = 1, **how: Any
) -> AsyncIterator[RouterCommand]:
    """Started with the arguments `extra`; `how` is what a process is made with."""
    folder.mkdir(exist_ok=True)
    group = MockGroup(folder, behaviour, epoch=epoch)
    await group.start()
    shards = f"--shards={','.join(group.addresses)}"
    words = ["-m", "santacoder_router", shards, "--port=0", *extra]
    streams = {"stdout": PIPE, "stderr": asyncio.subprocess.DEVNULL, **how}
    process = await asyncio.create_subprocess_exec(sys.executable, *words, **streams)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WAIT_SECONDS)
        assert line.startswith(b"ready "), line
        facts = dict(word.split("=", 1) for word in line.decode().split()[1:])
        yield RouterCommand(process, group, facts["grpc"], facts["metrics"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await group.stop()
    assert group.violations == []
