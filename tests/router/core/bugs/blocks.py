"""Seeded bugs of block accounting, of what the group holds, and of the hash chain."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

BLOCKS = bugs_in(
    "blocks.py",
    (
        "self._holder_counts[block] += 1",
        "self._holder_counts[block] = 1",
        "a second holder is not counted",
    ),
    (
        "            if self._holder_counts[block] == 0:\n"
        "                del self._cached[block]\n",
        "",
        "a cached block that is shared again may still be evicted",
    ),
    (
        "for block in reversed(blocks):",
        "for block in blocks:",
        "a prefix is evicted before what continues it",
    ),
    (
        "if self._holder_counts[block] > 0:",
        "if self._holder_counts[block] >= 0:",
        "a block that its last holder releases is lost",
    ),
    (
        "            if self._prefixes[block] is None:\n                self._free.append(block)\n"
        "            else:\n                self._cached[block] = None\n",
        "            self._free.append(block)\n",
        "a released block is free although it can still be found",
    ),
    (
        "if known is None or not is_same_prefix(known, prefix):",
        "if known is None:",
        "an equal digest counts as equal ids",
    ),
    (
        "if prefix.digest not in self._block_by_digest:",
        "if True:",
        "a later block takes a prefix over, and the first one still claims it",
    ),
    (
        "        if block in self._cached:\n            del self._cached[block]\n"
        "            self._free.append(block)\n",
        "",
        "a forgotten prefix leaves its block among the cached",
    ),
    (
        "        self._prefixes[block] = None\n        if block in self._cached:",
        "        if block in self._cached:",
        "a forgotten prefix stays with its block",
    ),
    (
        "self._cached.popitem(last=False)",
        "self._cached.popitem(last=True)",
        "the block released last is evicted first",
    ),
    (
        "                del self._block_by_digest[evicted.digest]\n",
        "",
        "an evicted prefix is still found",
    ),
    (
        "                self._prefixes[block] = None\n        self._holder_counts[block] = 1",
        "        self._holder_counts[block] = 1",
        "an evicted block keeps its prefix",
    ),
    (
        "return len(self._free) + len(self._cached)",
        "return len(self._free)",
        "cached blocks count as taken",
    ),
    (
        "if self._free:",
        "if self._free and not self._cached:",
        "a prefix is evicted while blocks are free",
    ),
    (
        "        if count > self.available_count:",
        "        if count >= self.available_count:",
        "the last block is never given",
    ),
)

GROUP = bugs_in(
    "group.py",
    (
        "sequence.generation += 1",
        "sequence.generation = 1",
        "every stay in a slot has the same generation",
    ),
    (
        "slot=self._free_slots.pop(),",
        "slot=self._free_slots[-1],",
        "a slot that is taken is given again",
    ),
    (
        "token_count - (0 if is_matched else 1)",
        "token_count",
        "a block of output is cached before its last key is written",
    ),
    (
        "token_count - (0 if is_matched else 1)",
        "token_count + (1 if is_matched else -1)",
        "an id that ended a text counts as written",
    ),
    (
        "token_count - (0 if is_matched else 1)",
        "token_count - 1",
        "a block that ends with the last id before a stop id is not cached",
    ),
    (
        "        return (\n            result.plan_number == self.number\n            and result",
        "        return (\n            result",
        "a result of another plan is accepted",
    ),
    (
        "            and result.first_step == self.steps_done\n",
        "",
        "a part of a lease is accepted again",
    ),
    (
        "insort(self.running, residency, key=_order)",
        "self.running.append(residency)",
        "running sequences are in the order of their admission",
    ),
    (
        "needed = -(-(residency.planned_computed + num_tokens) // self.block_size)",
        "needed = (residency.planned_computed + num_tokens) // self.block_size",
        "a lease is granted whole blocks only",
    ),
    (
        "needed = -(-(residency.planned_computed + num_tokens) // self.block_size)",
        "needed = -(-(residency.planned_computed + num_tokens + 1) // self.block_size)",
        "a lease is granted a block for a token it never runs",
    ),
    (
        "full_count = written_count // self.block_size",
        "full_count = -(-written_count // self.block_size)",
        "a block in part written can be found",
    ),
    (
        "prefix = residency.sequence.prefix(index + 1, self.block_size)",
        "prefix = residency.sequence.prefix(index, self.block_size)",
        "each block is found as the end of the prefix before its own",
    ),
    (
        "residency.registered_count = max(full_count, residency.registered_count)",
        "residency.registered_count = full_count + 1",
        "every other block is never offered to the cache",
    ),
    (
        "        residency.is_live = False\n",
        "",
        "results of an old generation are accepted",
    ),
    (
        "        self.pool.release(residency.blocks)\n",
        "",
        "whoever leaves keeps the blocks",
    ),
    (
        "self.pool.release(residency.blocks)",
        "self.pool.release(residency.blocks[residency.registered_count :])",
        "whoever leaves keeps the blocks that are cached",
    ),
    (
        "        self._free_slots.append(residency.slot)\n",
        "",
        "whoever leaves keeps the slot",
    ),
    (
        "self.is_retire_urgent |= not has_ended",
        "self.is_retire_urgent = not has_ended",
        "an end that the shards know of makes another's retire wait",
    ),
    (
        "        self.retires.append(Retire(residency.sequence.request.request_id, "
        "residency.generation))\n",
        "        if residency.generation == 1:\n"
        "            self.retires.append(Retire(residency.sequence.request.request_id, 1))\n",
        "only a first generation is retired",
    ),
    (
        "        self.running.remove(residency)\n",
        "",
        "whoever leaves stays among the running",
    ),
    (
        "return residency.sequence.order",
        "return (0.0, residency.sequence.order[1])",
        "running sequences are in the order of arrival, whatever their priority",
    ),
)

PREFIX = bugs_in(
    "prefix.py",
    (
        "Prefix(blake2b(cache_key, digest_size=32, key=seed_key).digest(), None, cache_key)",
        'Prefix(blake2b(b"", digest_size=32, key=seed_key).digest(), None, b"")',
        "tenant and salt are left out of the key",
    ),
    (
        "blake2b(cache_key, digest_size=32, key=seed_key)",
        'blake2b(b"", digest_size=32, key=seed_key)',
        "tenant and salt are left out of the digest: callers keep each other out of the cache",
    ),
    (
        "Prefix(blake2b(parent.digest + packed, digest_size=32).digest(), parent, packed)",
        "Prefix(blake2b(packed, digest_size=32).digest(), None, packed)",
        "a block is known by its own ids, not by those before it",
    ),
    (
        "if left is None or right is None or left.content != right.content:",
        "if left is None or right is None:",
        "only the lengths of two prefixes are compared",
    ),
)
