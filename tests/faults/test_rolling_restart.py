"""Two routers behind the SDK's list of servers are replaced, one after the other, under load."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from faults.load import Case, MixedLoad
from faults.router_command import RouterCommand, router_command
from process_sockets import free_port
from router.mock_shard import Behaviour

from santacoder_client import CompletionOptions

CASES = [
    Case("def f(x):", CompletionOptions(max_new_tokens=40, ignore_eos=True, logprobs=1)),
    Case("é", CompletionOptions(max_new_tokens=60, temperature=0.5, seed=2, completion_count=2)),
    Case("a b", CompletionOptions(max_new_tokens=90, temperature=0.9, seed=3, stop=["a\n"])),
    Case("x" * 80, CompletionOptions(max_new_tokens=20, echo=True, ignore_eos=True)),
]
Figure = Callable[[str, object], None]
WORKER_COUNT = 8


class Site:
    """A router at one address, life after life."""

    def __init__(self, folder: Path, behaviour: Behaviour, *extra: str) -> None:
        self._folder = folder
        self._behaviour = behaviour
        self._port = free_port()
        self._extra = (f"--port={self._port}", "--log-level=error", *extra)
        self._stack = AsyncExitStack()
        self._life = 0
        self.router: RouterCommand | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._life += 1
        life = router_command(self._folder, self._behaviour, *self._extra, epoch=self._life)
        self.router = await self._stack.enter_async_context(life)

    async def end(self, number: signal.Signals) -> int:
        """The exit code."""
        assert self.router is not None
        self.router.process.send_signal(number)
        code = await self.router.process.wait()
        await self._stack.aclose()
        return code


@asynccontextmanager
async def two_sites(folder: Path, *extra: str) -> AsyncIterator[tuple[Site, Site]]:
    behaviour = Behaviour(step_seconds=0.003, slot_count=16, block_count=256)
    sites = (Site(folder / "a", behaviour, *extra), Site(folder / "b", behaviour, *extra))
    try:
        for site in sites:
            await site.start()
        yield sites
    finally:
        for site in sites:
            await site._stack.aclose()


async def roll(folder: Path, count: int, number: signal.Signals) -> MixedLoad:
    """Ends and starts the routers in turn, so many times in all."""
    async with two_sites(folder, "--drain-seconds=0.5") as sites:
        load = MixedLoad(",".join(site.target for site in sites), CASES, WORKER_COUNT)
        await load.learn()
        running = asyncio.create_task(load.run())
        for turn in range(count):
            await load.more(5)
            site = sites[turn % 2]
            code = await site.end(number)
            assert code == (0 if number is signal.SIGTERM else -number)
            await load.more(5)
            await site.start()
        await load.more(5)
        load.stop()
        await running
        return load


@pytest.mark.long
@pytest.mark.fault("X4", "X1")
def test_routers_are_replaced_under_load_and_no_request_fails(tmp_path: Path) -> None:
    load = asyncio.run(roll(tmp_path, 2, signal.SIGTERM))
    load.tally.check()
    assert load.tally.right.total() > 15


@pytest.mark.long
@pytest.mark.fault("X4", "R1")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_routers_are_replaced_a_hundred_times_and_no_request_fails(
    tmp_path: Path, number: signal.Signals, record_property: Figure
) -> None:
    load = asyncio.run(roll(tmp_path, 100, number))
    tally = load.tally
    target = "T14" if number is signal.SIGTERM else "T4"
    record_property(
        "figure",
        f"{target} (T2), 100 restarts by {number.name}: {tally.ended_count} requests,"
        f" {tally.token_count} tokens, {len(tally.failed)} failed, {len(tally.wrong)} wrong",
    )
    tally.check()


@pytest.mark.long
@pytest.mark.fault("X4")
def test_without_going_on_a_restart_costs_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the defence off, the same load shows it."""
    monkeypatch.setattr("faults.load.PATIENT", None)
    load = asyncio.run(roll(tmp_path, 2, signal.SIGKILL))
    assert load.tally.failed


@pytest.mark.long
@pytest.mark.fault("X1")
def test_a_drain_takes_no_longer_than_it_may_and_what_it_cuts_goes_on(
    tmp_path: Path, record_property: Figure
) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as sites:
            for site in sites:
                site._behaviour.step_seconds = 0.25
                site._behaviour.steps_per_lease = 1
            case = Case("slow", CompletionOptions(max_new_tokens=180, ignore_eos=True))
            load = MixedLoad(",".join(site.target for site in sites), [case], 4, seed=1)
            running = asyncio.create_task(load.learn())
            await asyncio.sleep(3.0)
            began = time.monotonic()
            assert await sites[0].end(signal.SIGTERM) == 0
            seconds = time.monotonic() - began
            record_property("figure", f"T14, drain amid a request of 45 s: {seconds:.1f} s")
            assert seconds <= 35.0
            sites[1]._behaviour.step_seconds = 0.0
            await running

    asyncio.run(scenario())
