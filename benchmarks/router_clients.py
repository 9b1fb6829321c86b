"""Clients that cost little: raw bytes over grpc.aio, read when the measuring is over.

Not the load tester's: its figures are of requests that were due in the window, and a ceiling wants
every piece that came in it, whoever had asked before.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from santacoder.inference.v1 import inference_pb2 as pb

COMPLETION = "/santacoder.inference.v1.CompletionService"
PROMPT_TOKEN_COUNT = 64
BYTE_COUNT = 256
STREAMS_PER_CHANNEL = 64
TICK_SECONDS = 0.005
Arrivals = list[tuple[float, bytes]]
Ask = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Start = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]


@dataclass(slots=True)
class Lag:
    """How late the client itself woke at worst: no gap below that is the server's."""

    worst_seconds: float = 0.0

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.worst_seconds = max(self.worst_seconds, time.perf_counter() - due)


@dataclass(slots=True)
class StreamedLoad:
    """What all streams brought; a list of arrivals for each."""

    streams: list[Arrivals] = field(default_factory=list)

    def pieces(self, begin: float, end: float) -> tuple[int, int, list[float]]:
        """Tokens and messages that came between two moments, and the gaps between pieces."""
        token_count, message_count, gaps = 0, 0, []
        for arrivals in self.streams:
            last = None
            for at, raw in arrivals:
                count = token_count_of(raw)
                if not count:
                    continue
                if begin <= at < end:
                    token_count += count
                    message_count += 1
                    if last is not None:
                        gaps.append(at - last)
                last = at
        return token_count, message_count, gaps


def token_count_of(raw: bytes) -> int:
    """Tokens in a message of a stream."""
    event = pb.StreamCompleteResponse.FromString(raw).event
    return len(event.delta.token_ids)


def request(draw: random.Random, new_token_count: int, spread: bool) -> pb.CompletionRequest:
    """A completion of a random prompt; with `spread` of a random part of the tokens."""
    made = pb.CompletionRequest()
    made.token_ids.ids.extend(draw.randrange(BYTE_COUNT) for _ in range(PROMPT_TOKEN_COUNT))
    count = draw.randint(1, new_token_count) if spread else new_token_count
    made.stopping.max_new_tokens = count
    made.stopping.ignore_eos = True
    return made


async def channels(address: str, client_count: int) -> list[grpc.aio.Channel]:
    """Connections that are up; several, as each is one socket."""
    count = -(-client_count // STREAMS_PER_CHANNEL)
    # Else channels with the same options share one connection.
    options = (("grpc.use_local_subchannel_pool", 1),)
    made = [grpc.aio.insecure_channel(address, options=options) for _ in range(count)]
    await asyncio.gather(*(channel.channel_ready() for channel in made))
    return made


async def stream_for_ever(
    channel: grpc.aio.Channel, load: StreamedLoad, seed: int, new_token_count: int
) -> None:
    """One client: a stream after the other. The first is shorter, so that not all end together."""
    draw = random.Random(seed)
    start: Start = channel.unary_stream(f"{COMPLETION}/StreamComplete")
    for turn in itertools.count():
        completion = request(draw, new_token_count, spread=turn == 0)
        payload = pb.StreamCompleteRequest(completion=completion).SerializeToString()
        arrivals: Arrivals = []
        load.streams.append(arrivals)
        call = start(payload)
        while isinstance(raw := await call.read(), bytes):
            arrivals.append((time.perf_counter(), raw))


async def ask_for_ever(ask: Ask, payloads: Sequence[bytes], ends: list[float]) -> None:
    """One client: a unary call after the other."""
    for payload in itertools.cycle(payloads):
        await ask(payload)
        ends.append(time.perf_counter())


def unary_payloads(seed: int, new_token_count: int, count: int = 64) -> list[bytes]:
    """Requests that are made before anything is measured."""
    draw = random.Random(seed)
    completions = (request(draw, new_token_count, spread=False) for _ in range(count))
    return [pb.CompleteRequest(completion=each).SerializeToString() for each in completions]
