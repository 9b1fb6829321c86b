"""A shard's insides without a model: slots, blocks and a shadow of the KV cache, all checked.

The next id is a hash of every id before it, so that any id lost, doubled, reordered or taken from
another request shows in all that follow. Each KV cell holds the id it stands for; whatever the
plan claims to be computed is compared with it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from santacoder.shard.v1 import shard_pb2


class Violation(Exception):
    """A plan that breaks the protocol's rules."""


def unpack(data: bytes) -> tuple[int, ...]:
    """Packed little-endian uint32."""
    return struct.unpack(f"<{len(data) // 4}I", data)


@dataclass(frozen=True)
class Oracle:
    """Which id follows a list of ids: one of `alphabet`, or `end_id` about once in `end_every`."""

    alphabet: tuple[int, ...]
    end_id: int
    end_every: int = 0

    def next_id(self, ids: list[int], may_end: bool, salt: int = 0) -> int:
        """The id after `ids`; `salt` stands for seed and sample index."""
        digest = hashlib.sha256(struct.pack(f"<{len(ids) + 1}Q", salt, *ids)).digest()
        number = int.from_bytes(digest[:8], "little")
        if may_end and self.end_every and number % self.end_every == 0:
            return self.end_id
        return self.alphabet[(number >> 16) % len(self.alphabet)]


@dataclass
class Slot:
    """A sequence in its slot."""

    sequence: int
    generation: int
    ids: list[int]
    computed: int
    prompt_length: int
    min_left: int
    max_left: int
    ignore_eos: bool
    stop_ids: tuple[int, ...]
    salt: int
    wants_logprobs: bool
    logprob_count: int
    table: list[int] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class RowStep:
    """What one row did in one step."""

    state: int
    token_id: int | None = None


class MockEngine:
    """Carries plans out; raises Violation where a plan could not be."""

    def __init__(self, oracle: Oracle, slot_count: int, block_count: int, block_size: int) -> None:
        self._oracle = oracle
        self._slot_count = slot_count
        self._block_count = block_count
        self._block_size = block_size
        self.slots: dict[int, Slot] = {}
        self._cells: dict[tuple[int, int], int] = {}

    @property
    def held_block_count(self) -> int:
        """Blocks in any table."""
        return len({block for slot in self.slots.values() for block in slot.table})

    def arrange(self, plan: shard_pb2.Plan) -> None:
        """Everything in a plan that comes before its rows."""
        for retire in plan.retires:
            self._retire(retire)
        for admit in plan.admits:
            self._admit(admit)
        for grant in plan.block_grants:
            self._grant(grant)
        pairs = unpack(plan.block_copies)
        for source, target in zip(pairs[::2], pairs[1::2], strict=True):
            for offset in range(self._block_size):
                if (source, offset) in self._cells:
                    self._cells[target, offset] = self._cells[source, offset]

    def step(self, rows: shard_pb2.Rows, is_first: bool = True) -> list[RowStep]:
        """One step of a plan's rows."""
        slots = unpack(rows.slots)
        if len(set(slots)) != len(slots):
            raise Violation(f"a slot has two rows: {slots}")
        columns = zip(
            slots,
            unpack(rows.token_counts) if is_first else [1] * len(slots),
            rows.samples,
            unpack(rows.kv_token_limits),
            strict=True,
        )
        return [self._row(*column) for column in columns]

    def _retire(self, retire: shard_pb2.Retire) -> None:
        for number, slot in list(self.slots.items()):
            if (slot.sequence, slot.generation) == (retire.sequence, retire.generation):
                del self.slots[number]

    def _admit(self, admit: shard_pb2.Admit) -> None:
        if admit.slot in self.slots or admit.slot >= self._slot_count:
            raise Violation(f"slot {admit.slot} is not free")
        ids = list(unpack(admit.token_ids))
        if not 0 < admit.prompt_length <= len(ids) or admit.computed_length >= len(ids):
            raise Violation(f"admit: {admit.prompt_length}, {admit.computed_length}, {len(ids)}")
        sampling = admit.sampling
        salt = (sampling.seed << 3 | sampling.sample_index) if sampling.temperature else 0
        self.slots[admit.slot] = Slot(
            admit.sequence,
            admit.generation,
            ids,
            admit.computed_length,
            admit.prompt_length,
            admit.remaining_min_tokens,
            admit.remaining_max_tokens,
            admit.ignore_eos,
            unpack(admit.stop_ids),
            salt % 2**64,
            admit.wants_logprobs,
            admit.logprob_count,
        )

    def _grant(self, grant: shard_pb2.BlockGrant) -> None:
        slot = self.slots.get(grant.slot)
        block_ids = unpack(grant.block_ids)
        if slot is None or grant.first_index != len(slot.table):
            raise Violation(f"grant to slot {grant.slot} at {grant.first_index}")
        if any(block >= self._block_count for block in block_ids):
            raise Violation(f"blocks outside the pool: {block_ids}")
        slot.table += block_ids

    def _row(self, number: int, count: int, sample: int, kv_token_limit: int) -> RowStep:
        slot = self.slots.get(number)
        if slot is None:
            raise Violation(f"a row of slot {number}, which is empty")
        if slot.ended:
            return RowStep(shard_pb2.ROW_STATE_MASKED)
        if kv_token_limit > len(slot.table) * self._block_size:
            raise Violation(f"limit {kv_token_limit} above {len(slot.table)} blocks")
        end = slot.computed + count
        if end > kv_token_limit:
            return RowStep(shard_pb2.ROW_STATE_KV_LIMIT)
        if end > len(slot.ids):
            raise Violation(f"slot {number}: {end} tokens to run, {len(slot.ids)} known")
        for position in range(slot.computed, end):
            self._cells[self._cell(slot, position)] = slot.ids[position]
        for position in range(end):
            if self._cells.get(self._cell(slot, position)) != slot.ids[position]:
                raise Violation(f"slot {number}: position {position} holds another's key")
        slot.computed = end
        return self._sample(slot) if sample else RowStep(shard_pb2.ROW_STATE_RUNNING)

    def _cell(self, slot: Slot, position: int) -> tuple[int, int]:
        return slot.table[position // self._block_size], position % self._block_size

    def _sample(self, slot: Slot) -> RowStep:
        if slot.computed != len(slot.ids):
            raise Violation("a sample in the middle of the known ids")
        may_end = slot.min_left == 0
        token_id = self._oracle.next_id(slot.ids, may_end and not slot.ignore_eos, slot.salt)
        slot.ids.append(token_id)
        slot.min_left = max(0, slot.min_left - 1)
        slot.max_left -= 1
        state: int = shard_pb2.ROW_STATE_RUNNING
        if token_id == self._oracle.end_id and not slot.ignore_eos:
            state = shard_pb2.ROW_STATE_END_OF_TEXT
        elif may_end and token_id in slot.stop_ids:
            state = shard_pb2.ROW_STATE_STOP_ID
        elif slot.max_left == 0:
            state = shard_pb2.ROW_STATE_LENGTH
        slot.ended = state != shard_pb2.ROW_STATE_RUNNING
        return RowStep(state, token_id)
