"""Who may speak: at once where there is room, else in order, so many in a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from santacoder_router.turns import MOST_AT_ONCE, SPEAKERS_PER_SECOND, Turns


class Hour:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state."""
    async with asyncio.timeout(60.0):
        while not holds():
            await asyncio.sleep(0.001)


def test_the_first_speak_at_once_and_the_others_in_their_order_as_time_goes() -> None:
    async def scenario() -> None:
        clock = Hour()
        turns, said = Turns(clock), list[int]()
        count = 2 * MOST_AT_ONCE
        for number in range(count):
            turns.ask(partial(said.append, number))
        assert said == list(range(MOST_AT_ONCE))
        clock.seconds += 3.5 / SPEAKERS_PER_SECOND
        await until(lambda: len(said) > MOST_AT_ONCE)
        assert said == list(range(MOST_AT_ONCE + 3))
        clock.seconds += 3600.0
        await until(lambda: len(said) == count)
        assert said == list(range(count))

    asyncio.run(scenario())


def test_after_a_pause_no_more_than_at_first_speak_at_once() -> None:
    async def scenario() -> None:
        clock = Hour()
        turns, said = Turns(clock), list[int]()
        for number in range(MOST_AT_ONCE):
            turns.ask(partial(said.append, number))
        clock.seconds += 3600.0
        for number in range(MOST_AT_ONCE + 1):
            turns.ask(partial(said.append, number))
        assert len(said) == 2 * MOST_AT_ONCE

    asyncio.run(scenario())


def test_nobody_overtakes_who_waits() -> None:
    async def scenario() -> None:
        clock = Hour()
        turns, said = Turns(clock), list[int]()
        for number in range(MOST_AT_ONCE + 2):
            turns.ask(partial(said.append, number))
        clock.seconds += 3600.0
        turns.ask(partial(said.append, MOST_AT_ONCE + 2))
        await until(lambda: len(said) == MOST_AT_ONCE + 3)
        assert said == list(range(MOST_AT_ONCE + 3))

    asyncio.run(scenario())
