"""Bare grpc.aio servers that do nothing but carry bytes: what the wire alone costs.

`python benchmarks/echo.py` answers every frame of a stream; with `--front --to ADDR` it has
`Echo` (unary, answers itself), and `Forward` and `Relay`: each request goes over one long stream to
the back and comes back, unary or as a stream of one message. These are the two hops of a router and
its shard. Prints its address.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import AsyncIterator

import grpc
import grpc.aio

SERVICE = "bare.Echo"
NUMBER_BYTES = 8
Context = grpc.aio.ServicerContext[bytes, bytes]


class Back:
    """The far end."""

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        return {"Frames": grpc.stream_stream_rpc_method_handler(self._frames)}

    async def _frames(self, _frames: object, context: Context) -> None:
        while isinstance(frame := await context.read(), bytes):
            await context.write(frame)


class Front:
    """The near end, with its one stream to the back."""

    def __init__(self, back: str) -> None:
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count()
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        channel = grpc.aio.insecure_channel(back)
        self._frames: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            f"/{SERVICE}/Frames"
        )
        self._reading = asyncio.create_task(self._read())

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Forward": grpc.unary_unary_rpc_method_handler(self._forward),
            "Relay": grpc.unary_stream_rpc_method_handler(self._relay),
        }

    async def _echo(self, request: bytes, context: Context) -> bytes:
        return request

    async def _forward(self, request: bytes, context: Context) -> bytes:
        number = next(self._numbers).to_bytes(NUMBER_BYTES)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._outgoing.put_nowait(number + request)
        return await answer

    async def _relay(self, request: bytes, context: Context) -> None:
        await context.write(await self._forward(request, context))

    async def _send(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._outgoing.get()

    async def _read(self) -> None:
        async for frame in self._frames(self._send()):
            answer = self._waiting.pop(frame[:NUMBER_BYTES])
            if not answer.cancelled():
                answer.set_result(frame[NUMBER_BYTES:])


async def serve(options: argparse.Namespace) -> None:
    role = Front(options.to) if options.front else Back()
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(SERVICE, role.handlers())
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(options.listen)
    await server.start()
    address = options.listen if options.listen.startswith("unix:") else f"127.0.0.1:{port}"
    print(f"ready echo={address}", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Carries bytes.")
    parser.add_argument("--front", action="store_true")
    parser.add_argument("--to", help="address of the back, for --front")
    parser.add_argument("--listen", default="127.0.0.1:0")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
