"""Who may speak: at once where nobody does, else in order, a few in a turn, with pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from santacoder_router.turns import PAUSE_SECONDS, PER_TURN, Turns


class Clock:
    """Stands still unless somebody takes time."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state."""
    async with asyncio.timeout(60.0):
        while not holds():
            await asyncio.sleep(0)


def test_who_is_alone_speaks_at_once_and_a_crowd_in_its_order_a_few_in_a_turn() -> None:
    async def scenario() -> None:
        turns, said = Turns(Clock()), list[int]()
        count = 1 + 2 * PER_TURN + 1
        for number in range(count):
            turns.ask(partial(said.append, number))
        assert said == [0]
        for turn in range(1, 4):
            await asyncio.sleep(0)
            assert said == list(range(min(1 + turn * PER_TURN, count)))

    asyncio.run(scenario())


def test_whoever_takes_long_is_followed_by_a_pause_as_long() -> None:
    async def scenario() -> None:
        clock, said = Clock(), list[int]()
        turns = Turns(clock)
        pauses: list[float] = []
        loop = asyncio.get_running_loop()

        def call_later(seconds: float, call: Callable[[], None]) -> None:
            pauses.append(seconds)
            loop.call_soon(call)

        loop.call_later = call_later  # type: ignore[assignment, method-assign]

        def speak(number: int) -> None:
            said.append(number)
            # What is woken writes in the loop's next turn, before the next speakers.
            loop.call_soon(take_time)

        def take_time() -> None:
            clock.seconds += PAUSE_SECONDS / 4

        for number in range(1 + 2 * PER_TURN):
            turns.ask(partial(speak, number))
        await until(lambda: len(said) == 1 + 2 * PER_TURN)
        assert said == list(range(1 + 2 * PER_TURN))
        assert pauses == [(1 + PER_TURN) * PAUSE_SECONDS / 4]

    asyncio.run(scenario())


def test_nobody_overtakes_who_waits_and_later_there_is_room_again() -> None:
    async def scenario() -> None:
        turns, said = Turns(Clock()), list[int]()
        for number in range(3):
            turns.ask(partial(said.append, number))
        await asyncio.sleep(0)
        turns.ask(partial(said.append, 3))
        await until(lambda: len(said) == 4)
        assert said == [0, 1, 2, 3]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turns.ask(partial(said.append, 4))
        assert said == [0, 1, 2, 3, 4]

    asyncio.run(scenario())
