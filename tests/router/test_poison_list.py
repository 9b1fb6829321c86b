"""Prompts that killed the group are refused, for ten minutes, and not without end many of them."""

from __future__ import annotations

import pytest

from santacoder_router.poison_list import KEPT_SECONDS, MOST_PROMPTS, PoisonList

pytestmark = pytest.mark.fault("S18")


def test_a_prompt_is_refused_whole_and_for_its_time() -> None:
    now = [100.0]
    poison = PoisonList(lambda: now[0])
    assert (1, 2, 3) not in poison
    poison.add((1, 2, 3))
    assert (1, 2, 3) in poison
    assert [1, 2, 3] in poison
    assert (1, 2) not in poison and (1, 2, 3, 4) not in poison and (3, 2, 1) not in poison
    now[0] += KEPT_SECONDS - 1.0
    poison.add((1, 2, 3))
    now[0] += KEPT_SECONDS - 1.0
    assert (1, 2, 3) in poison
    now[0] += 1.0
    assert (1, 2, 3) not in poison


def test_the_oldest_make_room() -> None:
    poison = PoisonList(lambda: 0.0)
    for number in range(MOST_PROMPTS + 5):
        poison.add((number,))
    assert (4,) not in poison and (5,) in poison
