"""Accounts for KV blocks: who holds how many, which hold known tokens, which may be taken.

Integers only. Knows no requests, no slots and no plans; every block is free, held or cached:
held has holders, cached has none but still stands for a known prefix, free has neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from santacoder_router.core.prefix import Prefix, is_same_prefix


class BlockPool:
    """Blocks 0 to `block_count` - 1 with reference counts and a prefix cache."""

    def __init__(self, block_count: int) -> None:
        self._free = list(range(block_count - 1, -1, -1))
        self._holder_counts = [0] * block_count
        self._prefixes: list[Prefix | None] = [None] * block_count
        self._block_by_digest: dict[bytes, int] = {}
        # Cached blocks, least recently released first.
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def total_count(self) -> int:
        """All blocks."""
        return len(self._holder_counts)

    @property
    def free_count(self) -> int:
        """Blocks that nobody holds and that stand for nothing."""
        return len(self._free)

    @property
    def cached_count(self) -> int:
        """Blocks that nobody holds and that stand for a known prefix."""
        return len(self._cached)

    @property
    def held_count(self) -> int:
        """Blocks that somebody holds."""
        return len(self._holder_counts) - len(self._free) - len(self._cached)

    @property
    def available_count(self) -> int:
        """Blocks that `take` can give, free ones first and then cached ones."""
        return len(self._free) + len(self._cached)

    def take(self, count: int) -> list[int]:
        """`count` blocks with one holder each. Needs `count` <= `available_count`."""
        if count > self.available_count:
            raise ValueError(f"count: not enough blocks; got {count}; have {self.available_count}")
        return [self._take_one() for _ in range(count)]

    def share(self, blocks: list[int]) -> None:
        """Adds a holder to blocks that are held or cached."""
        for block in blocks:
            if self._holder_counts[block] == 0:
                del self._cached[block]
            self._holder_counts[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Takes a holder away from each block of one table, given in the table's order."""
        # Last block first, so that a prefix is evicted after what continues it: without the
        # prefix the rest cannot be found.
        for block in reversed(blocks):
            self._holder_counts[block] -= 1
            if self._holder_counts[block] > 0:
                continue
            if self._prefixes[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def find(self, prefix: Prefix) -> tuple[int, Prefix] | None:
        """The block that ends this very prefix, with the cache's own object for it."""
        block = self._block_by_digest.get(prefix.digest)
        if block is None:
            return None
        known = self._prefixes[block]
        if known is None or not is_same_prefix(known, prefix):
            return None
        return block, known

    def register(self, prefix: Prefix, block: int) -> None:
        """Lets a held block be found as the end of `prefix`; the first for a prefix stays."""
        if prefix.digest not in self._block_by_digest:
            self._block_by_digest[prefix.digest] = block
            self._prefixes[block] = prefix

    def forget_all(self, prefixes: Iterable[Prefix]) -> None:
        """Forgets each."""
        for prefix in prefixes:
            self.forget(prefix)

    def forget(self, prefix: Prefix) -> None:
        """Lets `prefix` be found no more. Whoever holds its block keeps it."""
        block = self._block_by_digest.pop(prefix.digest, None)
        if block is None:
            return
        self._prefixes[block] = None
        if block in self._cached:
            del self._cached[block]
            self._free.append(block)

    def _take_one(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            evicted = self._prefixes[block]
            if evicted is not None:
                del self._block_by_digest[evicted.digest]
                self._prefixes[block] = None
        self._holder_counts[block] = 1
        return block
