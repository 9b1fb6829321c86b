"""Who may speak: at once where there is room, else in order, a few in each turn of the loop."""

from __future__ import annotations

import asyncio
from functools import partial

from santacoder_router.turns import PER_TURN, Turns


def test_the_first_few_speak_at_once_and_the_others_in_their_order() -> None:
    async def scenario() -> None:
        turns, said = Turns(), list[int]()
        count = 3 * PER_TURN + 1
        for number in range(count):
            turns.ask(partial(said.append, number))
        for turn in range(1, 5):
            assert said == list(range(min(turn * PER_TURN, count)))
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_later_turn_has_room_again() -> None:
    async def scenario() -> None:
        turns, said = Turns(), list[int]()
        for number in range(2 * PER_TURN):
            turns.ask(partial(said.append, number))
        for _ in range(3):
            await asyncio.sleep(0)
        turns.ask(partial(said.append, -1))
        assert said == [*range(2 * PER_TURN), -1]

    asyncio.run(scenario())


def test_nobody_overtakes_who_waits() -> None:
    async def scenario() -> None:
        turns, said = Turns(), list[int]()
        for number in range(PER_TURN + 2):
            turns.ask(partial(said.append, number))
        await asyncio.sleep(0)
        for number in range(PER_TURN + 2, 2 * PER_TURN + 3):
            turns.ask(partial(said.append, number))
        for _ in range(3):
            await asyncio.sleep(0)
        assert said == list(range(2 * PER_TURN + 3))

    asyncio.run(scenario())
