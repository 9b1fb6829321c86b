"""Keeps a group of ranks and its router running until told to stop. Knows no models and no options.

A group lives or dies as one: when a rank ends, all are killed and start again under the next epoch.
The router stays, and finds the new group at the same addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from santacoder_shard.child import Child
from santacoder_shard.crash_reports import Death
from santacoder_shard.log import Logger
from santacoder_shard.restart_budget import Life, RestartBudget
from santacoder_shard.stacks import STACKS_SIGNAL

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERNAL = 70
# Wrong options, wrong model files, a taken address: starting again would end the same way.
HOPELESS_EXIT_CODES = (2, 3, 4)
# The router ends its drain by itself well before this.
DRAIN_LIMIT_SECONDS = 60.0
STOP_SECONDS = 5.0
# How long the router has to see that the group is gone, and to say what it knows of that.
NOTE_SECONDS = 0.5
# How long the router has to take in that ranks are ended from outside.
EXCUSE_SECONDS = 0.05
# How long the ranks that are left have to say why they end, once one has ended.
WAKE_SECONDS = 0.2
# How long the router has to answer everybody once the group is gone for good.
FAREWELL_SECONDS = 1.0

Command = Sequence[str]


class Undertaker(Protocol):
    """Who writes down how groups died."""

    def stacks(self, rank: int, epoch: int) -> str:
        """What a rank that has ended left to say of where its threads were; once."""

    def write(self, death: Death) -> object:
        """Write it down, if possible."""


class Supervisor:
    """Runs one router and one group. `rank_command` gives a rank's command for rank and epoch."""

    def __init__(
        self,
        router_command: Command,
        rank_command: Callable[[int, int], Command],
        rank_count: int,
        announce: Callable[[str], None],
        say: Callable[[str], None],
        log: Logger,
        undertaker: Undertaker,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._router_command = router_command
        self._rank_command = rank_command
        self._rank_count = rank_count
        self._announce = announce
        self._say = say
        self._log = log
        self._undertaker = undertaker
        self._clock = loop.time
        self._started_at = loop.time()
        self._budget = RestartBudget()
        self._epoch = 0
        self._announced = False
        self._router: Child | None = None
        self._ranks: list[Child] = []
        self._stop: asyncio.Future[signal.Signals] = loop.create_future()
        self._abort: asyncio.Future[signal.Signals] = loop.create_future()
        self._renewal: asyncio.Future[None] = loop.create_future()

    def signalled(self, number: signal.Signals) -> None:
        """The first signal asks for a drain, the second ends everything at once."""
        for wanted in (self._stop, self._abort):
            if not wanted.done():
                wanted.set_result(number)
                return

    def renew_group(self) -> None:
        """Ends the ranks and starts new ones; running requests go on with those."""
        if not self._renewal.done():
            self._renewal.set_result(None)

    async def run(self) -> int:
        """Until stopped or beyond repair; the exit code. No child is left when it returns."""
        serving = asyncio.create_task(self._serve())
        await _first(serving, self._abort)
        try:
            if not serving.done():
                serving.cancel()
                await asyncio.wait({serving})
                return 128 + self._abort.result()
            return serving.result()
        finally:
            await self._kill_all()

    async def _serve(self) -> int:
        # The router waits for the ranks by itself, so all of them start at once.
        router = self._router = await Child.start("router", self._router_command, self._say)
        await self._start_ranks()
        while True:
            news = (self._renewal, *(() if self._announced else (router.ready,)))
            await _first(self._stop, router.exited, *(rank.exited for rank in self._ranks), *news)
            if self._stop.done():
                return await self._drain(router)
            if router.exited.done():
                return await self._bury_router(router)
            if router.ready.done() and not self._announced:
                self._announced = True
                self._note("serving", line=router.ready.result())
                self._announce(router.ready.result())
            if self._renewal.done():
                await self._renew_ranks(router)
            elif any(rank.exited.done() for rank in self._ranks):
                dead, life = await self._bury_ranks(router)
                if not await self._restarted(dead, life, router):
                    return await self._give_up(dead, router)

    async def _start_ranks(self) -> None:
        self._epoch += 1
        self._note("starting the ranks", epoch=self._epoch, count=self._rank_count)
        for number in range(self._rank_count):
            command = self._rank_command(number, self._epoch)
            rank = await Child.start(f"rank {number}", command, self._say)
            rank.ready.add_done_callback(functools.partial(self._note_ready, rank))
            self._ranks.append(rank)

    async def _renew_ranks(self, router: Child) -> None:
        """Nobody is at fault, so it counts as no restart."""
        self._renewal = asyncio.get_running_loop().create_future()
        self._log.warning("replacing the ranks, as asked")
        if self._announced:
            # Or it would look for a request that killed them.
            router.send(signal.SIGUSR2)
            await asyncio.sleep(EXCUSE_SECONDS)
        await asyncio.gather(*(rank.kill() for rank in self._ranks))
        self._ranks = []
        await self._start_ranks()

    def _note_ready(self, rank: Child, _: asyncio.Future[str]) -> None:
        self._note(f"{rank.name} is ready")

    async def _bury_ranks(self, router: Child) -> tuple[list[Child], Life]:
        """End the whole group; the ranks that ended by themselves, and what life it had."""
        for rank in self._ranks:
            if rank.ready.done() and not rank.exited.done():
                rank.send(STACKS_SIGNAL)
        # One rank's end brings the others down; which was first, their reasons tell.
        await asyncio.wait([rank.exited for rank in self._ranks], timeout=WAKE_SECONDS)
        dead = [rank for rank in self._ranks if rank.exited.done()]
        await asyncio.gather(*(rank.kill() for rank in self._ranks))
        obituaries = [await rank.obituary() for rank in dead]
        for obituary in obituaries:
            self._log.error(obituary, epoch=self._epoch)
        stacks = {
            rank.name: self._undertaker.stacks(number, self._epoch)
            for number, rank in enumerate(self._ranks)
        }
        is_known = all(rank.ready.done() for rank in self._ranks)
        note = await self._note_of(router) if is_known else {}
        self._undertaker.write(Death(self._epoch, obituaries, note, stacks))
        self._ranks = []
        if not note:
            return dead, Life.NEVER_UP
        return dead, Life.WORKED if note.get("last_step") else Life.IDLE

    async def _note_of(self, router: Child) -> dict[str, object]:
        """What the router says of this life's end; nothing if it never saw the group."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTE_SECONDS):
                while True:
                    note: dict[str, object] = json.loads(router.note or "{}")
                    if note.get("epoch") == self._epoch:
                        return note
                    router.noted.clear()
                    await router.noted.wait()
        return {}

    async def _restarted(self, dead: list[Child], life: Life, router: Child) -> bool:
        """Start the next group after a while; False if that is hopeless or was tried enough."""
        if any(rank.exited.result() in HOPELESS_EXIT_CODES for rank in dead):
            return False
        delay_seconds = self._budget.next_delay(self._clock(), life)
        if delay_seconds is None:
            return False
        self._log.warning("restarting the group", delay_seconds=delay_seconds)
        if not await _first(self._stop, router.exited, timeout_seconds=delay_seconds):
            await self._start_ranks()
        return True

    async def _give_up(self, dead: list[Child], router: Child) -> int:
        reasons = "; ".join([await rank.obituary() for rank in dead])
        self._say(f"error: {reasons}; the group does not start again")
        if not self._announced:
            codes = [rank.exited.result() for rank in dead]
            return next((code for code in codes if code in HOPELESS_EXIT_CODES), EXIT_FAILED)
        # Tells the router that no group will come: it answers everybody at once.
        router.send(signal.SIGUSR1)
        await asyncio.wait({router.exited}, timeout=FAREWELL_SECONDS)
        await router.stop(DRAIN_LIMIT_SECONDS)
        return EXIT_FAILED

    async def _bury_router(self, router: Child) -> int:
        self._say(f"error: {await router.obituary()}; stopping")
        code = router.exited.result()
        if not self._announced and code in HOPELESS_EXIT_CODES:
            return code
        return EXIT_INTERNAL

    async def _drain(self, router: Child) -> int:
        """Let running requests end, then stop the ranks."""
        self._note("stopping", signal=self._stop.result().name)
        ranks_end = asyncio.gather(*(rank.exited for rank in self._ranks))
        stopping = asyncio.create_task(router.stop(DRAIN_LIMIT_SECONDS))
        await _first(stopping, ranks_end)
        if not stopping.done() and (not self._ranks or any(ranks_end.result())):
            # The ranks are gone; what still runs will never end by itself.
            router.send(signal.SIGUSR1)
        await stopping
        await asyncio.gather(*(rank.stop(STOP_SECONDS) for rank in self._ranks))
        return EXIT_OK

    async def _kill_all(self) -> None:
        children = [*self._ranks, *([self._router] if self._router else [])]
        await asyncio.gather(*(child.kill() for child in children))

    def _note(self, event: str, **facts: object) -> None:
        seconds = round(self._clock() - self._started_at, 2)
        self._log.info(event, since_start_seconds=seconds, **facts)


async def _first(*futures: asyncio.Future[Any], timeout_seconds: float | None = None) -> bool:
    """Wait until one of them is done; False if none was in time."""
    done, _ = await asyncio.wait(
        futures, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    return bool(done)
