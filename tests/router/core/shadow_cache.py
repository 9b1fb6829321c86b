"""What KV blocks hold, told by digests: whoever reads the wrong K and V is found at once.

Each position of a block holds the chain digest of the ids it stands for, cache key included. Knows
positions and digests; knows no plans.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.core.simulated_model import require


@dataclass(eq=False)
class Poison:
    """What a position holds after a step that went wrong on the device."""

    sequence: int
    # The first plan made in knowledge of it, once the router knows.
    known_from_plan: int | None = None


Content = bytes | Poison | None


class ShadowCache:
    """The contents of all blocks of one life of a shard group."""

    def __init__(self, block_count: int, block_size: int) -> None:
        self._block_size = block_size
        self._blocks: list[list[Content]] = [[None] * block_size for _ in range(block_count)]
        self._poisons: list[Poison] = []

    def copy(self, sources: list[int], targets: list[int]) -> None:
        """All sources are read before any target is written, as one indexed copy would."""
        contents = [list(self._blocks[source]) for source in sources]
        for target, content in zip(targets, contents, strict=True):
            self._blocks[target] = content

    def write(self, table: list[int], position: int, digest: bytes) -> None:
        """K and V of one position."""
        block, offset = divmod(position, self._block_size)
        self._blocks[table[block]][offset] = digest

    def spoil(self, sequence: int, table: list[int], start: int, end: int) -> None:
        """What a sequence wrote in a step that went wrong."""
        poison = Poison(sequence)
        self._poisons.append(poison)
        for position in range(start, end):
            block, offset = divmod(position, self._block_size)
            self._blocks[table[block]][offset] = poison

    def learn_of_poison(self, sequence: int, plan_number: int) -> None:
        """The router has been told that `sequence` went wrong; it makes `plan_number` next."""
        for poison in self._poisons:
            if poison.sequence == sequence and poison.known_from_plan is None:
                poison.known_from_plan = plan_number

    def reads_poison(
        self, sequence: int, admitted_by: int, table: list[int], digests: list[bytes]
    ) -> bool:
        """Checks every position of `digests`, to which the sequence attends."""
        for index in range(-(-len(digests) // self._block_size)):
            start = index * self._block_size
            expected = digests[start : start + self._block_size]
            held = self._blocks[table[index]][: len(expected)]
            if held == expected:
                continue
            for position, content in enumerate(held, start):
                if isinstance(content, Poison):
                    known = content.known_from_plan
                    is_new = known is None or admitted_by < known
                    require(is_new, "I8 hit on a block known to be bad", sequence)
                    return True
                where = (sequence, "position", position, "block", table[index])
                require(content == digests[position], "I7 I8 wrong K and V read", *where)
        return False
