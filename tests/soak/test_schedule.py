"""The soak's faults: all of them come, equal seeds give equal ones, and no supervisor gives up."""

from __future__ import annotations

import itertools
import random

from soak.nemesis import FAULTS, Kind, schedule


def drawn(seed: int, count: int, kinds: set[Kind]) -> list[str]:
    next_name = schedule(random.Random(seed), kinds)
    return [next_name() for _ in range(count)]


def test_every_fault_comes_soon_and_groups_never_die_twice_running() -> None:
    kinds: set[Kind] = {"group", "service", "wire"}
    for seed in range(20):
        names = drawn(seed, 4 * len(FAULTS), kinds)
        assert set(names[: 2 * len(FAULTS)]) == set(FAULTS)
        for one, other in itertools.pairwise(names):
            assert {FAULTS[one][0], FAULTS[other][0]} != {"group"}
    assert drawn(1, 50, kinds) == drawn(1, 50, kinds) != drawn(2, 50, kinds)


def test_on_the_wire_no_process_is_ended() -> None:
    assert {FAULTS[name][0] for name in drawn(0, 100, {"wire"})} == {"wire"}
