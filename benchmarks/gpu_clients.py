"""Many clients in several processes, so that they are not what limits a server: raw bytes over
grpc.aio, read when all is over.

Each process is given questions, which it asks at most so many at a time, each not before it is due.
All begin at one moment.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import router_clients as clients

from santacoder.inference.v1 import inference_pb2 as pb

TOKEN_COUNT = 49000
READY_SECONDS = 60.0
ANSWER_SECONDS = 300.0
LEAD_SECONDS = 0.2
TICK_SECONDS = 0.005
LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt of random ids; `due_seconds` counts from the common beginning."""

    prompt_length: int
    new_token_count: int
    due_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one process asks; after `stop_seconds` it breaks off whatever still runs."""

    questions: tuple[Question, ...]
    at_once: int
    seed: int
    stop_seconds: float = ANSWER_SECONDS


@dataclass(frozen=True, slots=True)
class Heard:
    """When a question was sent, when pieces came, by `time.perf_counter`, and their tokens."""

    question: Question
    sent_at: float
    times: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """All that was sent, broken off or not; how late a client woke at worst."""

    began_at: float
    heard: tuple[Heard, ...]
    lag_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """From the beginning to the last piece of all."""
        last = max(heard.times[-1] for heard in self.heard if heard.times)
        return sum(sum(heard.counts) for heard in self.heard) / (last - self.began_at)


def spread(
    questions: Sequence[Question], process_count: int, at_once: int, seed: int
) -> list[Share]:
    """Deal questions out to processes, which together ask `at_once` at a time."""
    each = max(1, at_once // process_count)
    return [
        Share(tuple(questions[first::process_count]), each, seed * process_count + first)
        for first in range(min(process_count, len(questions)))
    ]


def run(address: str, shares: Sequence[Share]) -> Load:
    """Ask everything; returns when all have their answers. Raises what a client raised."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for share in shares:
        ours, theirs = context.Pipe()
        process = context.Process(target=_ask_all, args=(address, share, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            _receive(pipe, READY_SECONDS)
        began_at = time.perf_counter() + LEAD_SECONDS
        for pipe in pipes:
            pipe.send(began_at)
        answers = [_receive(pipe, ANSWER_SECONDS) for pipe in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()
    lag = max(lag for _, lag in answers)
    return Load(began_at, tuple(heard for part, _ in answers for heard in part), lag)


def _receive(pipe: Connection, seconds: float) -> tuple[list[Heard], float]:
    if not pipe.poll(seconds):
        raise RuntimeError(f"clients did not answer within {seconds:.0f} s")
    answer = pipe.recv()
    if isinstance(answer, str):
        raise RuntimeError(f"a client failed: {answer}")
    part, lag = answer
    return part, lag


def _ask_all(address: str, share: Share, pipe: Connection) -> None:
    try:
        pipe.send(asyncio.run(_clients(address, share, pipe)))
    except Exception as error:
        traceback.print_exc()
        pipe.send(" ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON])


async def _clients(address: str, share: Share, pipe: Connection) -> tuple[list[Heard], float]:
    draw = random.Random(share.seed)
    asked = [_Asked(question, _payload(draw, question)) for question in share.questions]
    channels = await clients.channels(address, min(share.at_once, len(asked)))
    starts: list[clients.Start] = [
        channel.unary_stream(f"{clients.COMPLETION}/StreamComplete") for channel in channels
    ]
    lag = _Lag()
    pipe.send(([], 0.0))
    began_at = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    watching = asyncio.create_task(lag.watch())
    free = asyncio.Semaphore(share.at_once)
    tasks = [
        asyncio.create_task(one.ask(starts[place % len(starts)], began_at, free))
        for place, one in enumerate(asked)
    ]
    stop = began_at + share.stop_seconds - time.perf_counter()
    done, running = await asyncio.wait(tasks, timeout=stop)
    for task in (watching, *running):
        task.cancel()
    await asyncio.gather(watching, *running, return_exceptions=True)
    for task in done:
        task.result()
    return [one.heard() for one in asked if one.sent_at], lag.worst_seconds


class _Lag:
    """How late the process itself woke at worst: no gap below that is the server's."""

    worst_seconds = 0.0

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.worst_seconds = max(self.worst_seconds, time.perf_counter() - due)


class _Asked:
    """A question on its way."""

    def __init__(self, question: Question, payload: bytes) -> None:
        self._question, self._payload = question, payload
        self.sent_at = 0.0
        self.arrivals: list[tuple[float, bytes]] = []

    async def ask(self, start: clients.Start, began_at: float, free: asyncio.Semaphore) -> None:
        wait = began_at + self._question.due_seconds - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        async with free:
            self.sent_at = time.perf_counter()
            call = start(self._payload)
            while isinstance(raw := await call.read(), bytes):
                self.arrivals.append((time.perf_counter(), raw))

    def heard(self) -> Heard:
        """Messages without tokens are left out."""
        counted = [(at, clients.token_count_of(raw)) for at, raw in self.arrivals]
        pieces = [(at, count) for at, count in counted if count]
        times, counts = zip(*pieces, strict=True) if pieces else ((), ())
        return Heard(self._question, self.sent_at, tuple(times), tuple(counts))


def _payload(draw: random.Random, question: Question) -> bytes:
    made = pb.CompletionRequest()
    made.token_ids.ids.extend(draw.choices(range(TOKEN_COUNT), k=question.prompt_length))
    made.stopping.max_new_tokens = question.new_token_count
    made.stopping.ignore_eos = True
    return pb.StreamCompleteRequest(completion=made).SerializeToString()
