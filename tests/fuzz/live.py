"""Foreign bytes to a running router's port: to every method, and to the connection itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import raw_http2
from fuzz.mutations import either, mutated, noise
from fuzz.request_targets import SEEDS
from router.running_router import Running, running_router, text_of

from santacoder_router.access import RIGHTS

WAIT_SECONDS = 60.0
INFERENCE = [method for method in RIGHTS if "inference" in method]
# What a caller may be told; UNKNOWN would be somebody's exception, unmapped.
TOLD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
CALL = raw_http2.PREFACE + b"".join(
    (
        raw_http2.frame(raw_http2.SETTINGS, 0, 0),
        raw_http2.frame(
            raw_http2.HEADERS, 4, 1, raw_http2.fields(raw_http2.grpc_headers(INFERENCE[0]))
        ),
        raw_http2.frame(raw_http2.DATA, 1, 1, raw_http2.message(SEEDS[0])),
    )
)
CONNECTIONS = (
    CALL,
    raw_http2.PREFACE + raw_http2.frame(raw_http2.PING, 0, 0, bytes(8)) * 8,
    raw_http2.PREFACE + raw_http2.frame(raw_http2.RST_STREAM, 0, 1, bytes(4)) * 100,
    raw_http2.PREFACE + raw_http2.frame(raw_http2.SETTINGS, 0, 0, bytes(range(36))),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
    b"POST /x HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
)


async def fuzz_live(folder: Path, count: int, seed: int) -> list[str]:
    """What went wrong, in lines; afterwards the router must still say what it said before."""
    source = random.Random(seed)
    problems: list[str] = []
    make_message = either(noise(), mutated(SEEDS))
    make_connection = either(noise(600), mutated(CONNECTIONS))
    async with running_router(folder) as running:
        golden = text_of(await running.stream(text="golden"))
        for _ in range(count):
            method, data = source.choice(INFERENCE), make_message(source)
            code = await _called(running, method, data)
            if code not in TOLD:
                problems.append(f"{method}: {code.name} for {data.hex()}")
            await _connected(running.router.address, make_connection(source))
        if text_of(await running.stream(text="golden")) != golden:
            problems.append("a golden text has changed")
        if running.router.lifecycle.phase.name != "SERVING":
            problems.append("the router does not serve any more")
        problems += [str(line) for line in running.log if line["level"] in ("error", "critical")]
    return problems


async def _called(running: Running, method: str, data: bytes) -> grpc.StatusCode:
    """A call of any kind of method, with one message, to its end."""
    start: Any = running.channel.stream_stream(method)
    call = start(iter([data]), timeout=WAIT_SECONDS)
    async for _ in _answers(call):
        pass
    code: grpc.StatusCode = await call.code()
    return code


async def _answers(call: Any) -> Any:
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError:
        return


async def _connected(address: str, data: bytes) -> None:
    """These bytes and the end of them; the router is held to end the connection, too."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(WAIT_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            writer.write_eof()
            while await reader.read(65536):
                pass
        except ConnectionError:
            return
        finally:
            writer.close()
