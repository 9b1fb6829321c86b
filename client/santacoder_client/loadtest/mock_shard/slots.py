"""Sequences in their slots, and what a plan does to them: numpy over rows, nothing a token.

Knows no wire but the packed columns of a plan, and no time. Which id follows depends on the prompt,
the seed and the position alone, so that a sequence goes on alike after a preemption or in another
life. Blocks are counted, not looked into: tests/router/mock_engine.py checks their content.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.options import BLOCK_SIZE, MockOptions
from santacoder_client.loadtest.mock_shard.tokenizer_file import TokenizerFile

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.uint32]
States = npt.NDArray[np.uint8]


class Violation(Exception):
    """A plan that breaks the protocol's rules; the message is one line."""


class Rows(NamedTuple):
    """A plan's rows by column."""

    slots: Integers
    token_counts: Integers
    samples: Flags
    kv_token_limits: Integers

    @classmethod
    def read(cls, message: shard_pb2.Rows) -> Rows:
        """Of the packed columns. Raises Violation if they differ in length."""
        rows = cls(
            _words(message.slots),
            _words(message.token_counts),
            np.frombuffer(message.samples, np.bool_),
            _words(message.kv_token_limits),
        )
        if len({len(column) for column in rows}) != 1:
            raise Violation(f"rows: columns of {[len(column) for column in rows]} entries")
        if len(set(rows.slots.tolist())) != len(rows.slots):
            raise Violation("rows: a slot twice")
        return rows

    @property
    def is_decode(self) -> Flags:
        """Which rows are one token that samples."""
        is_one: Flags = self.token_counts == 1
        return self.samples & is_one


@dataclass(frozen=True, slots=True)
class Sampled:
    """What some steps gave, an entry a row."""

    counts: Ids
    ids: Ids
    """Row after row."""
    states: States


class SlotTable:
    """All slots of a group, as columns."""

    def __init__(self, options: MockOptions, tokenizer: TokenizerFile) -> None:
        count = options.slot_count
        self._options = options
        self._end_id = tokenizer.end_of_text_id
        # A power of two, so that choosing is a mask.
        self._alphabet = np.resize(np.array(tokenizer.plain_ids, np.uint32), 256)
        self.sequence = np.zeros(count, np.uint64)
        self.wants_logprobs = np.zeros(count, np.bool_)
        self.logprob_count = np.zeros(count, np.int64)
        self.has_logprobs = False  # of any sequence of this life
        self._taken = np.zeros(count, np.bool_)
        self._ended = np.zeros(count, np.bool_)
        self._known = np.zeros(count, np.int64)
        self._computed = np.zeros(count, np.int64)
        self._prompt_length = np.zeros(count, np.int64)
        self._min_left = np.zeros(count, np.int64)
        self._max_left = np.zeros(count, np.int64)
        self._blocks = np.zeros(count, np.int64)
        self._may_end = np.zeros(count, np.bool_)
        self._salt = np.zeros(count, np.uint32)
        self._stop_ids: dict[int, Integers] = {}
        self._slot_of: dict[tuple[int, int], int] = {}

    def arrange(self, plan: shard_pb2.Plan) -> None:
        """Everything in a plan that comes before its rows. Raises Violation."""
        for retire in plan.retires:
            slot = self._slot_of.pop((retire.sequence, retire.generation), None)
            if slot is not None:
                self._taken[slot] = False
                self._stop_ids.pop(slot, None)
        for admit in plan.admits:
            self._admit(admit)
        for grant in plan.block_grants:
            self._grant(grant)

    def run(self, rows: Rows, num_steps: int) -> Sampled:
        """The rows, so many times. Raises Violation."""
        slots = rows.slots
        if len(slots) and slots.max() >= self._options.slot_count:
            raise Violation(f"rows: slot {slots.max()} of {self._options.slot_count}")
        ended = self._ended[slots]
        first_end = self._computed[slots] + rows.token_counts
        self._check(rows, first_end, ended)
        # The last of the steps for which the granted blocks have room.
        room = np.maximum(np.minimum(rows.kv_token_limits - first_end + 1, num_steps), 0)
        room[ended] = 0
        counts = np.where(rows.samples, np.minimum(room, self._max_left[slots]), 0)
        states = np.full(len(slots), shard_pb2.ROW_STATE_RUNNING, np.uint8)
        states[room < num_steps] = shard_pb2.ROW_STATE_KV_LIMIT
        at_length: Flags = rows.samples & (counts == self._max_left[slots])
        states[at_length] = shard_pb2.ROW_STATE_LENGTH
        ids = self._draw(slots, num_steps)
        if self._options.end_every or self._stop_ids:
            self._cut_at_ends(slots, ids, counts, states)
        states[ended] = shard_pb2.ROW_STATE_MASKED
        ran = room > 0
        self._computed[slots] = np.where(
            ran, first_end + np.maximum(counts - 1, 0), self._computed[slots]
        )
        self._known[slots] += counts
        self._max_left[slots] -= counts
        self._min_left[slots] = np.maximum(self._min_left[slots] - counts, 0)
        is_running: Flags = states == shard_pb2.ROW_STATE_RUNNING
        self._ended[slots] = ~(is_running | (states == shard_pb2.ROW_STATE_KV_LIMIT))
        kept = ids[np.arange(num_steps) < counts[:, None]]
        return Sampled(counts.astype(np.uint32), kept, states)

    def _admit(self, admit: shard_pb2.Admit) -> None:
        slot, count = admit.slot, len(admit.token_ids) // 4
        if slot >= self._options.slot_count or self._taken[slot]:
            raise Violation(f"admit: slot {slot} is not free")
        if not 0 < admit.prompt_length <= count or admit.computed_length >= count:
            lengths = (admit.prompt_length, admit.computed_length, count)
            raise Violation(f"admit: prompt, computed and whole length are {lengths}")
        self._slot_of[admit.sequence, admit.generation] = slot
        self._taken[slot] = True
        self._ended[slot] = False
        self.sequence[slot] = admit.sequence
        self.wants_logprobs[slot] = admit.wants_logprobs
        self.has_logprobs |= admit.wants_logprobs
        self.logprob_count[slot] = admit.logprob_count
        self._known[slot] = count
        self._computed[slot] = admit.computed_length
        self._prompt_length[slot] = admit.prompt_length
        self._min_left[slot] = admit.remaining_min_tokens
        self._max_left[slot] = admit.remaining_max_tokens
        self._blocks[slot] = 0
        self._may_end[slot] = not admit.ignore_eos
        self._salt[slot] = self._salt_of(admit)
        if admit.stop_ids:
            self._stop_ids[slot] = _words(admit.stop_ids)

    def _salt_of(self, admit: shard_pb2.Admit) -> int:
        salt = zlib.crc32(admit.token_ids[: 4 * admit.prompt_length], self._options.seed)
        sampling = admit.sampling
        if not sampling.temperature:
            return salt
        return zlib.crc32(b"%d %d" % (sampling.seed, sampling.sample_index), salt)

    def _grant(self, grant: shard_pb2.BlockGrant) -> None:
        slot, ids = grant.slot, grant.block_ids
        if slot >= self._options.slot_count or not self._taken[slot]:
            raise Violation(f"grant: slot {slot} is empty")
        if grant.first_index != self._blocks[slot]:
            raise Violation(f"grant: at {grant.first_index} of a table of {self._blocks[slot]}")
        if len(ids) % 4:
            raise Violation(f"grant: {len(ids)} bytes is no multiple of 4")
        # There are few, for which numpy takes longer.
        numbers = struct.unpack(f"<{len(ids) // 4}I", ids)
        if max(numbers, default=0) >= self._options.kv_block_count:
            raise Violation(f"grant: block {max(numbers)} of {self._options.kv_block_count}")
        self._blocks[slot] += len(numbers)

    def _check(self, rows: Rows, first_end: Integers, ended: Flags) -> None:
        slots, known = rows.slots, self._known[rows.slots]
        is_off = rows.samples & (first_end != known)
        faults = {
            "is empty": ~self._taken[slots],
            "runs beyond what is known": ~ended & (first_end > known),
            "samples inside its ids": ~ended & is_off,
            "has a limit above its blocks": rows.kv_token_limits > self._blocks[slots] * BLOCK_SIZE,
        }
        # One look where nothing is wrong, as ever in a benchmark.
        if not np.logical_or.reduce(list(faults.values()), axis=None):
            return
        name, broken = next((name, rows_at) for name, rows_at in faults.items() if rows_at.any())
        raise Violation(f"rows: slot {slots[broken.argmax()]} {name}")

    def _draw(self, slots: Integers, num_steps: int) -> Ids:
        """Ids by row and step: a hash of salt and position."""
        first = self._known[slots] - self._prompt_length[slots]
        mixed: Ids = (first[:, None] + np.arange(num_steps)).astype(np.uint32)
        mixed *= np.uint32(0x9E3779B1)
        mixed ^= self._salt[slots][:, None]
        mixed *= np.uint32(0x7FEB352D)
        mixed ^= mixed >> np.uint32(15)
        ids: Ids = self._alphabet[mixed & np.uint32(255)]
        if self._options.end_every:
            may_end = self._may_end[slots][:, None] & self._is_free(slots, num_steps)
            mixed *= np.uint32(0x846CA68B)
            ends = (mixed >> np.uint32(8)) % np.uint32(self._options.end_every) == 0
            ids[ends & may_end] = self._end_id
        return ids

    def _is_free(self, slots: Integers, num_steps: int) -> Flags:
        """By row and step: whether the least number of tokens has come before."""
        is_free: Flags = np.arange(num_steps) >= self._min_left[slots][:, None]
        return is_free

    def _cut_at_ends(self, slots: Integers, ids: Ids, counts: Integers, states: States) -> None:
        """Shortens rows in which an id ends the text."""
        free = self._is_free(slots, ids.shape[1])
        at_end = (ids == self._end_id) & free & self._may_end[slots][:, None]
        at_stop = np.zeros_like(at_end)
        for row, slot in enumerate(slots.tolist()):
            if slot in self._stop_ids:
                at_stop[row] = np.isin(ids[row], self._stop_ids[slot]) & free[row]
        either = at_end | at_stop
        first = either.argmax(axis=1)
        cut = either.any(axis=1) & (first < counts)
        counts[cut] = first[cut] + 1
        rows = np.arange(len(slots))
        ended = at_end[rows, first]
        states[cut & ended] = shard_pb2.ROW_STATE_END_OF_TEXT
        states[cut & ~ended] = shard_pb2.ROW_STATE_STOP_ID


def _words(data: bytes) -> Integers:
    if len(data) % 4:
        raise Violation(f"packed integers: {len(data)} bytes is no multiple of 4")
    return np.frombuffer(data, "<u4").astype(np.int64)
