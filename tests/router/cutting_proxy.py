"""A connection between client and router that breaks after so many bytes of answers, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

CHUNK_BYTES = 65_536


class CuttingProxy:
    """Hands bytes on. `cut_after` holds for the next connection alone; None breaks none."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._host, self._port = host, int(port)
        self._server: asyncio.Server | None = None
        self.target = ""
        self.cut_after: int | None = None
        self.cut_count = 0
        self.answered_byte_count = 0

    async def start(self) -> None:
        """Listens from here on."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Takes no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut_after, self.cut_after = self.cut_after, None
        to_reader, to_writer = await asyncio.open_connection(self._host, self._port)
        left = cut_after

        def allowed(data: bytes) -> int:
            nonlocal left
            self.answered_byte_count += len(data)
            if left is None:
                return len(data)
            count = min(left, len(data))
            left -= count
            return count

        ways = [
            asyncio.create_task(_hand_on(reader, to_writer, len)),
            asyncio.create_task(_hand_on(to_reader, writer, allowed)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if left == 0:
            self.cut_count += 1
        for end in (writer, to_writer):
            end.transport.abort()
        await asyncio.wait(ways)


async def _hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Callable[[bytes], int]
) -> None:
    """Until one end is closed, or less is allowed than came."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            count = allowed(data)
            writer.write(data[:count])
            await writer.drain()
            if count < len(data):
                return


@contextlib.asynccontextmanager
async def cutting_proxy(target: str) -> AsyncIterator[CuttingProxy]:
    """A proxy that is gone afterwards."""
    proxy = CuttingProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
