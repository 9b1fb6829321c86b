"""The router is killed amid requests: they pause, and end as if nothing had happened."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from router.mock_shard import Behaviour, ids_of
from router.oracles import HaltingOracle
from router.router_process import RouterProcess, router_process
from router.running_router import until

from santacoder_client import AsyncClient, Client, Completion, CompletionOptions

PROMPT = "def f(x):"
PROMPT_LENGTH = len(ids_of(PROMPT))
Answer = Completion | str
OPTIONS = CompletionOptions(max_new_tokens=200, logprobs=1)
POINTS = (
    "before the first token",
    "within a character",
    "between the last token and the end",
    "drained",
)
STOPPING = CompletionOptions(
    max_new_tokens=200, temperature=0.5, seed=3, stop=["a\n☃", "éé"], completion_count=2, echo=True
)


@dataclass
class Callers:
    """Everything that can ask, each for the same, and what was seen of it."""

    target: str
    received_counts: dict[str, int] = field(default_factory=dict)

    def all(self) -> dict[str, Callable[[], Coroutine[Any, Any, Answer]]]:
        """By name."""
        return {
            "async stream": self.stream_async,
            "sync stream": lambda: asyncio.to_thread(self.stream_sync, OPTIONS, "sync"),
            "sync stream, stopping": lambda: asyncio.to_thread(self.stream_sync, STOPPING, "stop"),
            "sync complete": lambda: asyncio.to_thread(self.complete_sync),
            "async complete": self.complete_async,
            "command": self.run_command,
        }

    def stream_sync(self, options: CompletionOptions, name: str) -> Answer:
        with Client(self.target) as client:
            stream = client.stream(PROMPT, **options)
            for piece in stream:
                self._count(name, len(piece.token_ids))
            return stream.result()

    async def stream_async(self) -> Answer:
        async with AsyncClient(self.target) as client:
            stream = client.stream(PROMPT, **OPTIONS)
            async for piece in stream:
                self._count("async", len(piece.token_ids))
            return await stream.result()

    def complete_sync(self) -> Answer:
        with Client(self.target) as client:
            return client.complete(PROMPT, **OPTIONS)

    async def complete_async(self) -> Answer:
        async with AsyncClient(self.target) as client:
            return await client.complete(PROMPT, **OPTIONS)

    async def run_command(self) -> Answer:
        words = ["-m", "santacoder_client.cli", "complete", PROMPT, "--max-new-tokens=200"]
        target = f"--target={self.target}"
        command = await asyncio.create_subprocess_exec(sys.executable, *words, target, stdout=PIPE)
        output, _ = await command.communicate()
        assert command.returncode == 0
        return output.decode()

    def _count(self, name: str, count: int) -> None:
        self.received_counts[name] = self.received_counts.get(name, 0) + count


def said(done: Answer) -> object:
    """All that an answer is held to."""
    if isinstance(done, str):
        return done
    choices = [
        (choice.token_ids, choice.text, choice.logprobs, choice.finish_reason, choice.matched_stop)
        for choice in done.choices
    ]
    return choices, done.usage.prompt_token_count, done.usage.completion_token_count


async def ask_all(running: RouterProcess) -> dict[str, Any]:
    """Undisturbed answers."""
    callers = Callers(running.target).all()
    return dict(
        zip(callers, await asyncio.gather(*(ask() for ask in callers.values())), strict=True)
    )


async def ask_all_amid_an_end(
    running: RouterProcess, oracle: HaltingOracle, received_count: int, point: str
) -> dict[str, Any]:
    """Answers; when the router ends one has so many ids, and the others as it happens."""
    behaviour, callers = running.behaviour, Callers(running.target)
    first, *others = callers.all().items()
    tasks = {first[0]: asyncio.create_task(first[1]())}
    if received_count:
        # It is to be the one that stops the shards.
        await until(lambda: bool(callers.received_counts))
    tasks |= {name: asyncio.create_task(ask()) for name, ask in others}
    if received_count:
        await until(lambda: callers.received_counts["async"] == received_count)
        assert behaviour.hangs
    else:
        # One has two choices.
        while await asyncio.to_thread(running.held_request_count) < len(tasks) + 1:
            await asyncio.sleep(0.05)
    assert not tasks["async stream"].done()
    await (running.drain() if point == "drained" else running.kill())
    oracle.halt_at(None)
    behaviour.hangs, behaviour.step_seconds = False, 0.0
    await running.start()
    return {name: await task for name, task in tasks.items()}


@pytest.mark.fault("R1", "X1")
@pytest.mark.parametrize("point", POINTS)
def test_whoever_asks_gets_the_undisturbed_answer(tmp_path: Path, point: str) -> None:
    oracle = HaltingOracle(end_every=60)
    behaviour = Behaviour(oracle=oracle, steps_per_lease=1, slot_count=16, block_count=256)
    oracle.behaviours.append(behaviour)

    async def scenario() -> None:
        async with router_process(tmp_path, behaviour) as running:
            undisturbed = await ask_all(running)
            ids = undisturbed["async stream"].choices[0].token_ids
            # A snowman has three ids.
            middle = max(place for place in range(len(ids)) if ids[place] == ids_of("☃")[1])
            count = {
                "before the first token": 0,
                "within a character": middle + 1,
                "drained": middle + 1,
                "between the last token and the end": len(ids),
            }[point]
            assert 0 <= count <= len(ids) < 200
            oracle.halt_at(PROMPT_LENGTH + count)
            behaviour.hangs, behaviour.step_seconds = count == 0, 0.03
            answers = await ask_all_amid_an_end(running, oracle, count, point)
            assert {name: said(answer) for name, answer in answers.items()} == {
                name: said(answer) for name, answer in undisturbed.items()
            }

    asyncio.run(scenario())
