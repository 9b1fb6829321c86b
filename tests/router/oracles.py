"""Mock models whose text has characters of several ids, and that stop the shards where told."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from router.mock_engine import Oracle
from router.mock_shard import END_OF_TEXT_ID, Behaviour, ids_of

WIDE_CHARACTERS = ("é", "☃")
# What comes after each id but the last of a character.
CONTINUATIONS = {
    first: second
    for ids in map(ids_of, WIDE_CHARACTERS)
    for first, second in itertools.pairwise(ids)
}


@dataclass(frozen=True)
class WideOracle(Oracle):
    """Writes whole characters of one, two and three ids, and a broken one now and then."""

    alphabet: tuple[int, ...] = (*ids_of("a\n"), *(ids_of(text)[0] for text in WIDE_CHARACTERS))
    end_id: int = END_OF_TEXT_ID

    def next_id(self, ids: list[int], may_end: bool, salt: int = 0) -> int:
        chosen = super().next_id(ids, may_end, salt)
        is_broken = chosen == self.end_id or sum(ids) % 8 == 0
        return chosen if is_broken else CONTINUATIONS.get(ids[-1], chosen)


@dataclass(frozen=True)
class HaltingOracle(WideOracle):
    """Lets the shards hang as soon as a sequence has come to a length, before the next step."""

    behaviours: list[Behaviour] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def halt_at(self, length: int | None) -> None:
        """From now on at that one; None at none."""
        self.lengths[:] = [] if length is None else [length]

    def next_id(self, ids: list[int], may_end: bool, salt: int = 0) -> int:
        if len(ids) + 1 in self.lengths:
            self.behaviours[0].hangs = True
        return super().next_id(ids, may_end, salt)
