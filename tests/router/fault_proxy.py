"""A TCP connection that misbehaves: cut, silent, slow, late or in crumbs, as a test says.

Stands between whoever calls and a target, HOST:PORT or unix:PATH. What is set holds at once, also
for connections that are there, except `cut_after`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Literal

CHUNK_BYTES = 65_536
Way = Literal["to target", "to caller"]
WAYS: tuple[Way, Way] = ("to target", "to caller")
Chunk = tuple[float, bytes] | None
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """Hands bytes on, and does to them what its attributes say."""

    def __init__(self, target: str, seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._may_pass = {way: asyncio.Event() for way in WAYS}
        for event in self._may_pass.values():
            event.set()
        self.target = ""
        self.cut_after: int | None = None
        """The next connection alone breaks after so many bytes of answers."""
        self._cut_at: int | None = None
        self.refuses = False
        """Connections are taken and closed at once."""
        self.latency_seconds = 0.0
        self.jitter_seconds = 0.0
        """Of the latency, to either side; the order stays."""
        self.bytes_per_second: float | None = None
        self.segment_bytes = CHUNK_BYTES
        """Largest piece that is written at once."""
        self.connection_count = 0
        self.cut_count = 0
        self.answered_byte_count = 0

    async def start(self) -> None:
        """Listens from here on."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Takes no more connections, and drops those there are."""
        if self._server is not None:
            self._server.close()
        self.heal()
        self.cut()

    def silence(self, *ways: Way) -> None:
        """Nothing goes that way any more, and no end is told: a black hole."""
        for way in ways or WAYS:
            self._may_pass[way].clear()

    def heal(self) -> None:
        """What was held back goes on its way."""
        for event in self._may_pass.values():
            event.set()

    def cut(self) -> None:
        """Resets all connections that there are."""
        self._cut_at = None
        for writer in self._writers:
            writer.transport.abort()

    def cut_after_answers(self, byte_count: int) -> None:
        """Resets all connections as soon as so many more bytes of answers have gone."""
        self._cut_at = self.answered_byte_count + byte_count

    def _count(self, data: bytes) -> int:
        """How many bytes of an answer may pass before all is cut."""
        before, self.answered_byte_count = (
            self.answered_byte_count,
            self.answered_byte_count + len(data),
        )
        if self._cut_at is None or self.answered_byte_count < self._cut_at:
            return len(data)
        count, self._cut_at = self._cut_at - before, None
        return count

    async def _open_target(self) -> Streams:
        if self._target.startswith("unix:"):
            return await asyncio.open_unix_connection(self._target.removeprefix("unix:"))
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        left, self.cut_after = self.cut_after, None
        try:
            to_reader, to_writer = await self._open_target()
        except OSError:
            writer.transport.abort()
            return

        def allowed(data: bytes) -> int:
            nonlocal left
            count = self._count(data)
            if left is None:
                return count
            count = min(left, count)
            left -= count
            return count

        ends = {writer, to_writer}
        self._writers |= ends
        if self.refuses:
            self.cut()
        ways = [
            asyncio.create_task(self._hand_on("to target", reader, to_writer, len)),
            asyncio.create_task(self._hand_on("to caller", to_reader, writer, allowed)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if left == 0:
            self.cut_count += 1
        for end in ends:
            end.transport.abort()
        self._writers -= ends
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)

    async def _hand_on(
        self,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        allowed: Callable[[bytes], int],
    ) -> None:
        """Until one end is closed, or less is allowed than came."""
        chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        taking = asyncio.create_task(self._take(reader, chunks))
        try:
            with contextlib.suppress(ConnectionError):
                while (chunk := await chunks.get()) is not None:
                    due, data = chunk
                    await asyncio.sleep(due - asyncio.get_running_loop().time())
                    await self._may_pass[way].wait()
                    count = allowed(data)
                    await self._write(writer, data[:count])
                    if count < len(data):
                        return
        finally:
            taking.cancel()

    async def _take(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[Chunk]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                drawn = self._random.uniform(-self.jitter_seconds, self.jitter_seconds)
                now = asyncio.get_running_loop().time()
                chunks.put_nowait((now + max(0.0, self.latency_seconds + drawn), data))
        chunks.put_nowait(None)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.segment_bytes
        for start in range(0, len(data), size):
            segment = data[start : start + size]
            writer.write(segment)
            await writer.drain()
            if self.bytes_per_second is not None:
                await asyncio.sleep(len(segment) / self.bytes_per_second)


@contextlib.asynccontextmanager
async def fault_proxy(target: str) -> AsyncIterator[FaultProxy]:
    """A proxy that is gone afterwards."""
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
