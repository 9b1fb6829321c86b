"""A mixed load of SDK callers, each of whose answers is held against the undisturbed one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from santacoder_client import (
    AsyncClient,
    Client,
    Completion,
    CompletionOptions,
    RetryPolicy,
    SantaCoderError,
)

# A client that is new in the middle of an outage waits as one does that has been answered before.
PATIENT = RetryPolicy(outage_seconds=300.0, attempt_count=100, first_pause_seconds=0.02)
CANCEL_SHARE = 0.05
CALLS_PER_CLIENT = 20


@dataclass(frozen=True)
class Case:
    """What is asked for."""

    prompt: str | list[int]
    options: CompletionOptions


@dataclass
class Tally:
    """What became of all that was asked."""

    right: Counter[str] = field(default_factory=Counter)
    """By verb."""
    cancelled_count: int = 0
    token_count: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def ended_count(self) -> int:
        """Requests that have ended, however they did."""
        return self.right.total() + self.cancelled_count + len(self.wrong) + len(self.failed)

    def check(self) -> None:
        """Nothing failed and nothing was wrong."""
        assert (self.failed, self.wrong) == ([], [])


def said(done: Completion) -> object:
    """All that an answer is held to: ids, texts, log probabilities, endings, counts."""
    return done.choices, done.usage.prompt_token_count, done.usage.completion_token_count


class MixedLoad:
    """So many workers, each with one request at a time, from one seed."""

    def __init__(
        self, target: str, cases: Sequence[Case], worker_count: int, seed: int = 0
    ) -> None:
        self._target = target
        self._cases = cases
        self._worker_count = worker_count
        self._seed = seed
        self._golden: list[object] = []
        self._stop = asyncio.Event()
        self.tally = Tally()
        self.answered = asyncio.Event()
        """Set at every answer, for who waits for one."""

    async def learn(self) -> None:
        """Asks for every case undisturbed, before any fault."""
        async with AsyncClient(self._target) as client:
            for case in self._cases:
                answer = await client.complete(case.prompt, **case.options)
                self._golden.append(said(answer))

    async def run(self) -> None:
        """Until `stop`; each request that was begun ends."""
        workers = [self._work(number) for number in range(self._worker_count)]
        await asyncio.gather(*workers)

    def stop(self) -> None:
        """Nothing new is asked."""
        self._stop.set()

    def go_on(self) -> None:
        """`run` may be called again."""
        self._stop.clear()

    async def more(self, count: int) -> None:
        """Waits until so many more requests have ended."""
        wanted = self.tally.ended_count + count
        while self.tally.ended_count < wanted:
            self.answered.clear()
            await self.answered.wait()

    async def _work(self, number: int) -> None:
        draw = random.Random(self._seed * 1000 + number)
        while not self._stop.is_set():
            async with AsyncClient(self._target, retry=PATIENT) as client:
                for _ in range(CALLS_PER_CLIENT):
                    if self._stop.is_set():
                        break
                    await self._ask(client, draw)
                    self.answered.set()

    async def _ask(self, client: AsyncClient, draw: random.Random) -> None:
        place = draw.randrange(len(self._cases))
        verb = draw.choice(sorted(VERBS))
        case, is_cancelled = self._cases[place], draw.random() < CANCEL_SHARE
        try:
            if is_cancelled:
                await _cancel(client, case)
                self.tally.cancelled_count += 1
                return
            done = await VERBS[verb](client, case, self._target)
        except SantaCoderError as error:
            line = f"{verb} {place}: {error.code.name} {error.reason} {error.message}"
            self.tally.failed.append(line)
            print(f"FAILED: {line}")
            return
        self.tally.token_count += done.usage.completion_token_count
        if said(done) == self._golden[place]:
            self.tally.right[verb] += 1
        else:
            self.tally.wrong.append(f"{verb} {place}: {said(done)} and not {self._golden[place]}")


async def _cancel(client: AsyncClient, case: Case) -> None:
    async for _ in client.stream(case.prompt, **case.options):
        break


async def _stream(client: AsyncClient, case: Case, _target: str) -> Completion:
    return await client.stream(case.prompt, **case.options).result()


async def _complete(client: AsyncClient, case: Case, _target: str) -> Completion:
    return await client.complete(case.prompt, **case.options)


async def _turn(client: AsyncClient, case: Case, _target: str) -> Completion:
    async with client.session() as session:
        return await session.stream(case.prompt, **case.options).result()


async def _stream_blocking(_client: AsyncClient, case: Case, target: str) -> Completion:
    def work() -> Completion:
        with Client(target, retry=PATIENT) as client:
            return client.stream(case.prompt, **case.options).result()

    return await asyncio.to_thread(work)


VERBS: dict[str, Callable[[AsyncClient, Case, str], Awaitable[Completion]]] = {
    "complete": _complete,
    "session": _turn,
    "stream": _stream,
    "stream, blocking": _stream_blocking,
}
