"""Clients that cost little: raw bytes over grpc.aio, for bare echoes and for one request at a time.

Loads on the router are the load tester's, in `router_load.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc.aio
import processes
from processes import ServerProcess

from santacoder.inference.v1 import inference_pb2 as pb

COMPLETION = "/santacoder.inference.v1.CompletionService"
PROMPT_TOKEN_COUNT = 64
BYTE_COUNT = 256
CALLS_PER_CHANNEL = 64
WARM_UP_SECONDS = 2.0
IDLE_SECONDS = 0.003
CALL_SECONDS = 30.0
Ask = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Start = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
Counts = Callable[[bytes], int]
Asking = tuple[str, str, Counts]
"""Address, method, and what of a message counts."""


def token_count_of(raw: bytes) -> int:
    """Tokens in a message of a stream."""
    event = pb.StreamCompleteResponse.FromString(raw).event
    return len(event.delta.token_ids)


def request(draw: random.Random, new_token_count: int) -> pb.CompletionRequest:
    """A completion of a random prompt."""
    made = pb.CompletionRequest()
    made.token_ids.ids.extend(draw.randrange(BYTE_COUNT) for _ in range(PROMPT_TOKEN_COUNT))
    made.stopping.max_new_tokens = new_token_count
    made.stopping.ignore_eos = True
    return made


async def channels(address: str, client_count: int) -> list[grpc.aio.Channel]:
    """Connections that are up; several, as each is one socket."""
    count = -(-client_count // CALLS_PER_CHANNEL)
    # Else channels with the same options share one connection.
    options = (("grpc.use_local_subchannel_pool", 1),)
    made = [grpc.aio.insecure_channel(address, options=options) for _ in range(count)]
    await asyncio.gather(*(channel.channel_ready() for channel in made))
    return made


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers that came in some seconds, and what each process's CPU had to do for them."""

    count: int
    seconds: float
    cpu_seconds: Mapping[str, float]


async def ask_together(
    address: str,
    method: str,
    client_count: int,
    payloads: Sequence[bytes],
    servers: Mapping[str, ServerProcess],
    seconds: float,
) -> Asked:
    """Clients that each ask again when answered. Raises what a client raised."""
    open_channels = await channels(address, client_count)
    ends: list[float] = []
    asks: list[Ask] = [channel.unary_unary(method) for channel in open_channels]
    running = [
        asyncio.create_task(_ask_for_ever(asks[place % len(asks)], payloads, ends))
        for place in range(client_count)
    ]
    try:
        await _wait(running, WARM_UP_SECONDS)
        begin, before = time.perf_counter(), processes.all_cpu_seconds(servers)
        await _wait(running, seconds)
        end, after = time.perf_counter(), processes.all_cpu_seconds(servers)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await _close(open_channels)
    spent = {name: after[name] - before[name] for name in after}
    return Asked(sum(begin <= at < end for at in ends), end - begin, spent)


async def first_messages(
    ours: Asking, theirs: Asking, new_token_count: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Times to the first message that counts, in ms, of two servers that are else idle.

    One request at a time, in turn, so that both see the same machine.
    """
    sides = (ours, theirs)
    open_channels = [(await channels(address, 1))[0] for address, _, _ in sides]
    starts: list[Start] = [
        channel.unary_stream(method)
        for channel, (_, method, _) in zip(open_channels, sides, strict=True)
    ]
    times: tuple[list[float], list[float]] = ([], [])
    draw = random.Random(3)
    warm_at = time.perf_counter() + WARM_UP_SECONDS
    while (now := time.perf_counter()) < warm_at + seconds:
        completion = request(draw, new_token_count)
        payload = pb.StreamCompleteRequest(completion=completion).SerializeToString()
        for start, (_, _, counts), taken in zip(starts, sides, times, strict=True):
            await asyncio.sleep(IDLE_SECONDS)
            first = await _first_message(start, payload, counts)
            if now >= warm_at:
                taken.append(1000 * first)
    await _close(open_channels)
    return times


async def _first_message(start: Start, payload: bytes, counts: Counts) -> float:
    """Seconds to the first message that counts; the stream is then read to its end."""
    begin = time.perf_counter()
    first = 0.0
    call = start(payload, timeout=CALL_SECONDS)
    while isinstance(raw := await call.read(), bytes):
        if not first and counts(raw):
            first = time.perf_counter() - begin
    return first


async def _ask_for_ever(ask: Ask, payloads: Sequence[bytes], ends: list[float]) -> None:
    for payload in itertools.cycle(payloads):
        await ask(payload)
        ends.append(time.perf_counter())


async def _wait(running: Sequence[asyncio.Task[None]], seconds: float) -> None:
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _close(open_channels: Sequence[grpc.aio.Channel]) -> None:
    closing: list[Awaitable[None]] = [channel.close() for channel in open_channels]
    await asyncio.gather(*closing)


def unary_payloads(seed: int, new_token_count: int, count: int = 64) -> list[bytes]:
    """Requests that are made before anything is measured."""
    draw = random.Random(seed)
    completions = (request(draw, new_token_count) for _ in range(count))
    return [pb.CompleteRequest(completion=each).SerializeToString() for each in completions]
