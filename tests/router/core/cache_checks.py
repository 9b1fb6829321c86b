"""What the prefix cache has to give, and in which order it may lose it.

Looks at private parts on purpose. Knows requests, plans and results; knows no digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from router.core.simulated_clients import Client
from router.core.simulated_model import require

from santacoder_router.core.plan import Admit, Request, Row, StepPlan
from santacoder_router.core.prefix import Prefix
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.core.sequence import Residency

_Text = tuple[bytes, tuple[int, ...]]


class CacheOrder:
    """A pool before one call of the scheduler, to be compared with what it is after."""

    def __init__(self, scheduler: Scheduler) -> None:
        group = scheduler._group
        self._scheduler = scheduler
        self._cached = list(group.pool._cached)
        self._prefixes: list[Prefix | None] = list(group.pool._prefixes)
        self._tables = [(residency, residency.blocks) for residency in group.running]

    def check_releases(self) -> None:
        """Of a table given back the end is lost first: without its beginning it is not found."""
        gone = [blocks for residency, blocks in self._tables if _has_left(residency)]
        if not gone:
            return
        places = {block: i for i, block in enumerate(self._scheduler._group.pool._cached)}
        # A block of two tables goes with the later of them.
        holders = Counter(block for _, blocks in self._tables for block in blocks)
        for blocks in gone:
            order = [places[b] for b in blocks if b in places and holders[b] == 1]
            is_backwards = order == sorted(order, reverse=True)
            require(is_backwards, "I8 a prefix goes before what continues it", blocks)

    def check_evictions(self, plan: StepPlan | None) -> bool:
        """Whether something was evicted; only where no block is free, the least recent first."""
        pool = self._scheduler._group.pool
        pairs = zip(self._prefixes, pool._prefixes, strict=True)
        evicted = {
            block for block, (old, new) in enumerate(pairs) if old is not None and old is not new
        }
        if not evicted:
            return False
        is_quiet = not any(_has_left(residency) for residency, _ in self._tables)
        require(pool.free_count == 0 or not is_quiet, "I8 evicted while blocks are free")
        touched = {copy.source for copy in plan.copies} if plan else set()
        touched.update(self._found_for_head())
        is_kept = False
        for block in self._cached:
            require(not (is_kept and block in evicted), "I8 evicted before one less recent", block)
            is_kept |= block not in evicted and block in pool._cached and block not in touched
        return True

    def _found_for_head(self) -> list[int]:
        """Blocks of someone who could not be admitted have been held for a moment."""
        head = self._scheduler._waiting.head
        digests = self._scheduler._group.pool._block_by_digest
        prefixes = head.prefixes if head else []
        return [digests[prefix.digest] for prefix in prefixes if prefix.digest in digests]


def _has_left(residency: Residency) -> bool:
    return residency.sequence.residency is not residency


class CacheOracle:
    """Every text whose K and V one life of a group has written or will write, and so must find.

    Exact until something is evicted or spoilt; from then on it holds its peace.
    """

    def __init__(self, block_size: int, is_exact: bool) -> None:
        self._block_size = block_size
        self.is_exact = is_exact
        self._known: set[_Text] = set()
        self._admits: dict[int, Admit] = {}
        self._positions: dict[int, int] = {}

    def follow_plan(self, plan: StepPlan, clients: Mapping[int, Client]) -> None:
        """Checks what each newcomer found, in the order of the rows."""
        if not self.is_exact:
            return
        admits = {admit.sequence: admit for admit in plan.admits}
        filled: set[_Text] = set()
        for row in plan.rows:
            request = clients[row.sequence].request
            admit = admits.get(row.sequence)
            if admit is not None:
                self._check_found(admit, request, filled)
                self._admits[row.sequence] = admit
                self._positions[row.sequence] = admit.computed_length
            self._follow_row(row, request, filled)

    def accept(self, request: Request, output: list[int], is_matched: bool) -> None:
        """Output was accepted: all but the last id, which has no K and V yet, can be found."""
        if self.is_exact:
            token_ids = request.prompt_ids + tuple(output)
            written_count = len(token_ids) - (0 if is_matched else 1)
            self._learn(request.cache_key, token_ids[:written_count], len(request.prompt_ids))

    def _follow_row(self, row: Row, request: Request, filled: set[_Text]) -> None:
        start = self._positions[row.sequence]
        token_ids = self._admits[row.sequence].token_ids
        if start < len(token_ids):
            end = start + row.token_count
            self._positions[row.sequence] = end
            filled |= self._learn(request.cache_key, token_ids[:end], start)

    def _learn(self, key: bytes, token_ids: tuple[int, ...], start: int) -> set[_Text]:
        """The texts of blocks that end in `token_ids` from `start` on and were not known."""
        size = self._block_size
        ends = range((start // size + 1) * size, len(token_ids) + 1, size)
        new = {(key, token_ids[:end]) for end in ends} - self._known
        self._known |= new
        return new

    def _check_found(self, admit: Admit, request: Request, filled: set[_Text]) -> None:
        length = 0
        while length + self._block_size <= len(admit.token_ids):
            text = (request.cache_key, admit.token_ids[: length + self._block_size])
            if text not in self._known:
                break
            length += self._block_size
        if length == len(admit.token_ids):
            # The last token runs again, in a copy; a block that this plan fills cannot be copied.
            is_filled = (request.cache_key, admit.token_ids) in filled
            length -= self._block_size if is_filled else 1
        found = admit.computed_length
        require(found == length, "I8 other than what is cached was found", admit, length)
