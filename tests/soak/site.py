"""A santacoder-serve that is kept alive at one address, as a supervisor of the machine would.

Knows its processes by name, and what they hold.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from process_sockets import free_port
from running_service import Service

START_COUNT = 20
# A process's threads and descriptors; what gRPC keeps for later comes and goes.
Held = dict[str, tuple[int, int]]


@dataclass
class Ended:
    """A service that has ended: its exit code, and what it had said."""

    code: int
    errors: str


class Site:
    """The service and its restarts. `tp` ranks of the model at `model`."""

    def __init__(self, model: Path | None, folder: Path, tp: int) -> None:
        self._model = model
        self._folder = folder
        self._port, metrics_port = free_port(), free_port()
        self._extra = (f"--port={self._port}", f"--metrics-port={metrics_port}", f"--tp={tp}")
        self._service: Service | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.target = f"127.0.0.1:{self._port}"
        self.life_count = 0
        self.ended: list[Ended] = []

    @property
    def service(self) -> Service:
        """The one there is."""
        assert self._service is not None
        return self._service

    async def start(self) -> None:
        """Ready, and from now on kept alive."""
        await self._begin()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> Ended:
        """A clean end."""
        assert self._keeper is not None
        self._keeper.cancel()
        self.service.process.send_signal(signal.SIGTERM)
        return await self._end()

    def close(self) -> None:
        """Gone, however it was."""
        if self._service is not None:
            self._service.close()

    def processes(self) -> dict[str, int]:
        """Ids by name: launcher, router, rank 0, ..."""
        return {"launcher": self.service.process.pid, **self.service.children()}

    def held(self) -> Held:
        """Threads and descriptors of each process."""
        return {name: _held_by(pid) for name, pid in self.processes().items()}

    def resident_bytes(self) -> dict[tuple[str, int], int]:
        """Memory of each process, by name and id."""
        return {(name, pid): resident(pid) for name, pid in self.processes().items()}

    async def _begin(self) -> None:
        """Tries again where the port is still held by the life before, as a supervisor would."""
        for left in reversed(range(START_COUNT)):
            self._service = Service(self._model, self._folder, *self._extra)
            try:
                await asyncio.to_thread(self._service.wait_ready)
            except AssertionError:
                self._service.close()
                if not left:
                    raise
                await asyncio.sleep(0.5)
            else:
                self.life_count += 1
                return

    async def _end(self) -> Ended:
        code, _, errors = await asyncio.to_thread(self.service.end)
        self.service.close()
        self.ended.append(Ended(code, errors))
        return self.ended[-1]

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            if self.service.process.poll() is not None:
                await self._end()
                await self._begin()


def resident(pid: int) -> int:
    """Bytes in memory."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _held_by(pid: int) -> tuple[int, int]:
    folder = Path(f"/proc/{pid}")
    return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))
