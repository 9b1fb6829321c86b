"""What is done to the service, drawn from a seed: faults of processes, and faults of the wire."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from router.fault_proxy import FaultProxy, Way
from soak.site import Site

from santacoder_client import AsyncClient

Kind = Literal["group", "service", "wire"]
SILENCE_SECONDS = 2.0
SILENCES: list[tuple[Way, ...]] = [(), ("to target",), ("to caller",)]
RUBBISH = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", os.urandom(512), b"PRI * HTT")


@dataclass(frozen=True)
class Surroundings:
    """What a fault has to do with."""

    site: Site
    proxy: FaultProxy
    draw: random.Random


async def _kill(about: Surroundings, name: str, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, KeyError):
        os.kill(about.site.processes()[name], number)


async def kill_rank(about: Surroundings) -> None:
    ranks = [name for name in about.site.processes() if name.startswith("rank")]
    if ranks:
        await _kill(about, about.draw.choice(ranks), signal.SIGKILL)


async def stop_rank(about: Surroundings) -> None:
    ranks = [name for name in about.site.processes() if name.startswith("rank")]
    if ranks:
        await _kill(about, about.draw.choice(ranks), signal.SIGSTOP)


async def replace_ranks(about: Surroundings) -> None:
    await _kill(about, "launcher", signal.SIGUSR2)


async def kill_router(about: Surroundings) -> None:
    await _kill(about, "router", signal.SIGKILL)


async def kill_launcher(about: Surroundings) -> None:
    await _kill(about, "launcher", signal.SIGKILL)


async def drain_service(about: Surroundings) -> None:
    await _kill(about, "launcher", signal.SIGTERM)


async def pause_router(about: Surroundings) -> None:
    await _kill(about, "router", signal.SIGSTOP)
    await asyncio.sleep(SILENCE_SECONDS)
    await _kill(about, "router", signal.SIGCONT)


async def cut_callers(about: Surroundings) -> None:
    about.proxy.cut()


async def cut_an_answer(about: Surroundings) -> None:
    about.proxy.cut_after_answers(about.draw.randrange(1, 4000))


async def silence_callers(about: Surroundings) -> None:
    about.proxy.silence(*about.draw.choice(SILENCES))
    await asyncio.sleep(SILENCE_SECONDS)
    about.proxy.heal()


async def flap(about: Surroundings) -> None:
    for _ in range(8):
        about.proxy.refuses = not about.proxy.refuses
        about.proxy.cut()
        await asyncio.sleep(SILENCE_SECONDS / 8)
    about.proxy.refuses = False


async def slow_down(about: Surroundings) -> None:
    proxy = about.proxy
    proxy.latency_seconds, proxy.jitter_seconds, proxy.segment_bytes = 0.05, 0.02, 7
    await asyncio.sleep(SILENCE_SECONDS)
    proxy.latency_seconds, proxy.jitter_seconds, proxy.segment_bytes = 0.0, 0.0, 65_536


async def send_rubbish(about: Surroundings) -> None:
    host, _, port = about.site.target.rpartition(":")
    for number in range(40):
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(RUBBISH[number % len(RUBBISH)])
            await asyncio.sleep(0)
            writer.transport.abort()


async def cancel_rapidly(about: Surroundings) -> None:
    async with AsyncClient(about.site.target, retry=None) as client:
        for number in range(200):
            stream = client.stream([5, 9, number], max_new_tokens=40, ignore_eos=True)
            await asyncio.sleep(0 if number % 2 else 0.002)
            stream.cancel()


FAULTS: dict[str, tuple[Kind, Callable[[Surroundings], Awaitable[None]]]] = {
    "a rank is killed": ("group", kill_rank),
    "a rank is stopped": ("group", stop_rank),
    "the ranks are replaced": ("group", replace_ranks),
    "the router is killed": ("service", kill_router),
    "the launcher is killed": ("service", kill_launcher),
    "the service is drained": ("service", drain_service),
    "the router is paused": ("wire", pause_router),
    "callers are cut off": ("wire", cut_callers),
    "an answer is cut": ("wire", cut_an_answer),
    "callers' links go silent": ("wire", silence_callers),
    "callers' links come and go": ("wire", flap),
    "callers' links are slow": ("wire", slow_down),
    "rubbish is sent": ("wire", send_rubbish),
    "calls are cancelled rapidly": ("wire", cancel_rapidly),
}


def schedule(draw: random.Random, kinds: set[Kind]) -> Callable[[], str]:
    """Draws faults of those kinds, nearly all of them before one comes again.

    Never two of the group in a row: a group that dies before it has worked is another fault, of
    which requests are told.
    """
    left: list[str] = []
    last: list[Kind] = []

    def shuffle() -> None:
        names = [name for name, (kind, _) in FAULTS.items() if kind in kinds]
        draw.shuffle(names)
        left.extend(names)

    def next_name() -> str:
        while not any(_may_follow(last, name) for name in left):
            shuffle()
        name = next(name for name in left if _may_follow(last, name))
        left.remove(name)
        last[:] = [FAULTS[name][0]]
        return name

    return next_name


def _may_follow(last: list[Kind], name: str) -> bool:
    return not (last == ["group"] and FAULTS[name][0] == "group")
