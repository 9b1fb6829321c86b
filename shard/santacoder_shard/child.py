"""One child process: started, listened to, and its death explained. Knows not what it serves.

A child's standard input is a pipe that nobody writes to: it ends with this process, however this
process ends, and the child leaves when it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence

_LINE_LIMIT_BYTES = 1 << 20
_READY_PREFIX = "ready "
_ERROR_PREFIX = "error: "
_NOTE_PREFIX = "note "


class Child:
    """A running or ended child. `ready` holds its `ready ...` line, `exited` its exit code."""

    def __init__(self, name: str, process: Process, say: Callable[[str], None]) -> None:
        self.name = name
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.exited = asyncio.create_task(process.wait())
        # The last line that began with "note ": what it wants its starter to know.
        self.note = ""
        self.noted = asyncio.Event()
        self._process = process
        self._say = say
        self._last_error = ""
        self._relays = [
            asyncio.create_task(self._relay(process.stdout)),
            asyncio.create_task(self._relay(process.stderr)),
        ]

    @classmethod
    async def start(cls, name: str, command: Sequence[str], say: Callable[[str], None]) -> Child:
        """Start `command`; what it writes goes to `say` line by line, with the name in front."""
        # A process group of its own keeps the terminal's Ctrl-C from it: its starter decides.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_LIMIT_BYTES,
            process_group=0,
        )
        return cls(name, process, say)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it at once, and come back when it has ended."""
        self.send(signal.SIGKILL)
        await self.exited
        await asyncio.wait(self._relays)

    async def stop(self, patience_seconds: float) -> None:
        """Ask it to end; kill it if it takes longer than that."""
        self.send(signal.SIGTERM)
        await asyncio.wait({self.exited}, timeout=patience_seconds)
        await self.kill()

    async def obituary(self) -> str:
        """Who ended and why, in one line. Only for one that has ended."""
        await asyncio.wait(self._relays)
        code = await self.exited
        if code < 0:
            return f"{self.name} was killed by {signal.Signals(-code).name}"
        reason = f": {self._last_error}" if self._last_error else ""
        return f"{self.name} exited with code {code}{reason}"

    async def _relay(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:
                # A line above the limit; the reader has dropped it.
                continue
            if not line:
                return
            self._take(line.decode(errors="replace").rstrip("\n"))

    def _take(self, line: str) -> None:
        if line.startswith(_READY_PREFIX) and not self.ready.done():
            self.ready.set_result(line)
            return
        if line.startswith(_NOTE_PREFIX):
            self.note = line.removeprefix(_NOTE_PREFIX)
            self.noted.set()
            return
        if line.startswith(_ERROR_PREFIX):
            self._last_error = line.removeprefix(_ERROR_PREFIX)
        self._say(f"{self.name} | {line}")
