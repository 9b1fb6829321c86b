"""Sequences in their slots, and what a plan does to them.

Knows no wire but the packed columns of a plan, and no time. Which id follows depends on the prompt,
the seed and the position alone, so that a sequence goes on alike after a preemption or in another
life. Blocks are counted, not looked into: tests/router/mock_engine.py checks their content.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.options import BLOCK_SIZE, MockOptions
from santacoder_client.loadtest.mock_shard.tokenizer_file import TokenizerFile

State: TypeAlias = "shard_pb2.RowState.ValueType"

GOING_ON = (shard_pb2.ROW_STATE_RUNNING, shard_pb2.ROW_STATE_KV_LIMIT)
BEGINNING_COUNT = 1 << 16
"""Places in the endless text at which an answer may begin."""


class Violation(Exception):
    """A plan that breaks the protocol's rules; the message is one line."""


class Row(NamedTuple):
    """One row of a plan."""

    slot: int
    token_count: int
    samples: bool
    kv_token_limit: int

    @property
    def is_decode(self) -> bool:
        """Whether it is one token that samples."""
        return self.samples and self.token_count == 1


def read_rows(message: shard_pb2.Rows) -> list[Row]:
    """Of the packed columns. Raises Violation if they differ in length."""
    slots, token_counts = _words(message.slots), _words(message.token_counts)
    samples = tuple(map(bool, message.samples))
    columns = (slots, token_counts, samples, _words(message.kv_token_limits))
    if len({len(column) for column in columns}) != 1:
        raise Violation(f"rows: columns of {[len(column) for column in columns]} entries")
    if len(set(slots)) != len(slots):
        raise Violation("rows: a slot twice")
    return list(map(Row, *columns))


@dataclass(slots=True)
class Sampled:
    """What some steps gave, an entry a row."""

    counts: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """Row after row."""
    states: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Slot:
    """A sequence in its slot."""

    sequence: int
    prompt_length: int
    known_count: int
    """Its ids, prompt and all."""
    computed_count: int
    min_left: int
    max_left: int
    salt: int
    may_end: bool
    stop_ids: frozenset[int]
    logprob_count: int | None
    """None where no log probabilities are wanted."""
    block_count: int = 0
    has_ended: bool = False


class SlotTable:
    """All slots of a group."""

    def __init__(self, options: MockOptions, tokenizer: TokenizerFile) -> None:
        self._options = options
        self._end_id = tokenizer.end_of_text_id
        draw = random.Random(options.seed)
        count = BEGINNING_COUNT + options.context_token_count
        # What anybody says is a part of one long text; where it begins depends on the prompt.
        self._text = draw.choices(tokenizer.plain_ids, k=count)
        self._text_with_ends = [
            self._end_id if options.end_every and not draw.randrange(options.end_every) else each
            for each in self._text
        ]
        self._slots: list[Slot | None] = [None] * options.slot_count
        self._number_of: dict[tuple[int, int], int] = {}

    def __getitem__(self, number: int) -> Slot:
        """A slot that is taken. Raises Violation."""
        if number >= len(self._slots):
            raise Violation(f"rows: slot {number} of {len(self._slots)}")
        slot = self._slots[number]
        if slot is None:
            raise Violation(f"rows: slot {number} is empty")
        return slot

    def arrange(self, plan: shard_pb2.Plan) -> None:
        """Everything in a plan that comes before its rows. Raises Violation."""
        for retire in plan.retires:
            number = self._number_of.pop((retire.sequence, retire.generation), None)
            if number is not None:
                self._slots[number] = None
        for admit in plan.admits:
            self._admit(admit)
        for grant in plan.block_grants:
            self._grant(grant)

    def run(self, rows: Sequence[Row], num_steps: int) -> Sampled:
        """The rows, so many times. Raises Violation."""
        for row in rows:
            _check(row, self[row.slot])
        sampled = Sampled()
        for row in rows:
            ids, state = self._move(row, self[row.slot], num_steps)
            sampled.counts.append(len(ids))
            sampled.ids += ids
            sampled.states.append(state)
        return sampled

    def _admit(self, admit: shard_pb2.Admit) -> None:
        number, count = admit.slot, len(admit.token_ids) // 4
        if number >= len(self._slots) or self._slots[number] is not None:
            raise Violation(f"admit: slot {number} is not free")
        if not 0 < admit.prompt_length <= count or admit.computed_length >= count:
            lengths = (admit.prompt_length, admit.computed_length, count)
            raise Violation(f"admit: prompt, computed and whole length are {lengths}")
        self._number_of[admit.sequence, admit.generation] = number
        self._slots[number] = Slot(
            sequence=admit.sequence,
            prompt_length=admit.prompt_length,
            known_count=count,
            computed_count=admit.computed_length,
            min_left=admit.remaining_min_tokens,
            max_left=admit.remaining_max_tokens,
            salt=self._salt_of(admit),
            may_end=not admit.ignore_eos,
            stop_ids=frozenset(_words(admit.stop_ids)),
            logprob_count=admit.logprob_count if admit.wants_logprobs else None,
        )

    def _salt_of(self, admit: shard_pb2.Admit) -> int:
        salt = zlib.crc32(admit.token_ids[: 4 * admit.prompt_length], self._options.seed)
        sampling = admit.sampling
        if not sampling.temperature:
            return salt
        return zlib.crc32(b"%d %d" % (sampling.seed, sampling.sample_index), salt)

    def _grant(self, grant: shard_pb2.BlockGrant) -> None:
        number, blocks = grant.slot, _words(grant.block_ids)
        slot = self._slots[number] if number < len(self._slots) else None
        if slot is None:
            raise Violation(f"grant: slot {number} is empty")
        if grant.first_index != slot.block_count:
            raise Violation(f"grant: at {grant.first_index} of a table of {slot.block_count}")
        if max(blocks, default=0) >= self._options.kv_block_count:
            raise Violation(f"grant: block {max(blocks)} of {self._options.kv_block_count}")
        slot.block_count += len(blocks)

    def _move(self, row: Row, slot: Slot, num_steps: int) -> tuple[list[int], State]:
        """The ids that a row gives, and its state; the slot is where it is then."""
        first_end = slot.computed_count + row.token_count
        # The last of the steps for which the granted blocks have room.
        room = min(row.kv_token_limit - first_end + 1, num_steps)
        if slot.has_ended:
            return [], shard_pb2.ROW_STATE_MASKED
        if room <= 0:
            return [], shard_pb2.ROW_STATE_KV_LIMIT
        ids = self._say(slot, min(room, slot.max_left)) if row.samples else []
        state = shard_pb2.ROW_STATE_RUNNING
        if row.samples and len(ids) == slot.max_left:
            state = shard_pb2.ROW_STATE_LENGTH
        elif room < num_steps:
            state = shard_pb2.ROW_STATE_KV_LIMIT
        if slot.may_end or slot.stop_ids:
            ids, state = self._cut_at_end(slot, ids, state)
        count = len(ids)
        slot.computed_count = first_end + max(count - 1, 0)
        slot.known_count += count
        slot.max_left -= count
        slot.min_left = max(slot.min_left - count, 0)
        slot.has_ended = state not in GOING_ON
        return ids, state

    def _say(self, slot: Slot, count: int) -> list[int]:
        begin = slot.salt % BEGINNING_COUNT + slot.known_count - slot.prompt_length
        if not slot.may_end:
            return self._text[begin : begin + count]
        free = begin + min(slot.min_left, count)
        return self._text[begin:free] + self._text_with_ends[free : begin + count]

    def _cut_at_end(self, slot: Slot, ids: list[int], state: State) -> tuple[list[int], State]:
        for place, token_id in enumerate(ids):
            if place < slot.min_left:
                continue
            if token_id == self._end_id and slot.may_end:
                return ids[: place + 1], shard_pb2.ROW_STATE_END_OF_TEXT
            if token_id in slot.stop_ids:
                return ids[: place + 1], shard_pb2.ROW_STATE_STOP_ID
        return ids, state


def _check(row: Row, slot: Slot) -> None:
    """Raises Violation if the row is not what its slot allows."""
    if row.kv_token_limit > slot.block_count * BLOCK_SIZE:
        raise Violation(f"rows: slot {row.slot} has a limit above its blocks")
    if slot.has_ended:
        return
    first_end = slot.computed_count + row.token_count
    if first_end > slot.known_count:
        raise Violation(f"rows: slot {row.slot} runs beyond what is known")
    if row.samples and first_end != slot.known_count:
        raise Violation(f"rows: slot {row.slot} samples inside its ids")


def _words(data: bytes) -> tuple[int, ...]:
    if len(data) % 4:
        raise Violation(f"packed integers: {len(data)} bytes is no multiple of 4")
    return struct.unpack(f"<{len(data) // 4}I", data)
