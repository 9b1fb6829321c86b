"""What the rows of a step are on the device: words for the kernels, sizes for the graphs. Pure.

A row's tokens are named while they are known to the host, that is for prompts; what was sampled is
left to the slot's state on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol

import numpy
from numpy.typing import NDArray

from santacoder_shard.gpu_attention import TILE_ROWS
from santacoder_shard.gpu_buffers import StepBuffers, StepRows
from santacoder_shard.gpu_transfer import PinnedRing
from santacoder_shard.slots import PlanError, Slot
from santacoder_shard.step import Row

NOT_SAMPLED = -1
# No row; and as a token, what the slot holds.
_NONE = -1


@dataclass(slots=True)
class PlannedRow:
    """A row of a launched step. `sample_place`: which of the step's sampled rows it is."""

    row: Row
    slot: Slot | None
    first_position: int
    runs: bool
    sample_place: int = NOT_SAMPLED

    @property
    def is_sampled(self) -> bool:
        """Whether the step samples after this row."""
        return self.sample_place != NOT_SAMPLED

    def goes_on(self, context_token_count: int) -> bool:
        """Whether one token more can be launched just as this one was."""
        slot = self.slot
        return (
            self.runs
            and slot is not None
            and not slot.ended
            and slot.launched_length < min(self.row.kv_token_limit, context_token_count)
        )

    @classmethod
    def plan(cls, row: Row, slot: Slot | None, context_token_count: int) -> PlannedRow:
        """Check a row against its slot, and count its tokens as launched. PlanError if it lies."""
        if slot is None or slot.ended:
            return cls(row, None if slot is None else slot, 0, runs=False)
        first = slot.launched_length
        end = first + row.token_count
        if end > row.kv_token_limit:
            return cls(row, slot, first, runs=False)
        _check(row, slot, first, end, context_token_count)
        slot.launched_length = end
        return cls(row, slot, first, runs=True)


class Sizes(Protocol):
    """At which sizes graphs were captured."""

    def row_size(self, count: int) -> int:
        """For `count` single rows."""

    def chunk_size(self, count: int) -> int:
        """For `count` rows of prompts."""


@dataclass(frozen=True, slots=True)
class PackedStep:
    """words int32 [fields, size] as `StepRows` reads them, and which rows sample."""

    size: int
    is_decode: bool
    words: NDArray[numpy.int32]
    sample_size: int
    sample_rows: NDArray[numpy.int32]
    is_whole: bool
    """Whether every row samples, each at the place it has."""


def pack_step(planned: Sequence[PlannedRow], sizes: Sizes) -> PackedStep:
    """Number the sampled rows in `planned` and lay everything out for the kernels."""
    running = [row for row in planned if row.runs]
    counts = [row.row.token_count for row in running]
    ends = list(accumulate(counts))
    count = ends[-1] if ends else 0
    is_decode = count == len(running)
    size = sizes.row_size(max(1, count)) if is_decode else sizes.chunk_size(count)
    words = numpy.full((StepRows.FIELD_COUNT, size), _NONE, dtype=numpy.int32)
    words[0, :count] = numpy.repeat([row.row.slot for row in running], counts)
    words[3, :count] = numpy.repeat([row.row.kv_token_limit for row in running], counts)
    for row, end in zip(running, ends, strict=True):
        if row.slot is not None and row.first_position < len(row.slot.admit.token_ids):
            _name_tokens(row, row.slot.admit.token_ids, words[:, end - row.row.token_count : end])
    words[4:] = 0
    if not is_decode:
        tiles = _tiles(counts, ends)
        words[4:, : tiles.shape[1]] = tiles
    sampled = [(row, end - 1) for row, end in zip(running, ends, strict=True) if row.row.sample]
    for place, (row, _) in enumerate(sampled):
        row.sample_place = place
    sample_size = sizes.row_size(len(sampled)) if sampled else 0
    sample_rows = numpy.full(sample_size, _NONE, dtype=numpy.int32)
    sample_rows[: len(sampled)] = [place for _, place in sampled]
    is_whole = 0 < len(sampled) == count
    return PackedStep(size, is_decode, words, sample_size, sample_rows, is_whole)


def _tiles(counts: Sequence[int], ends: Sequence[int]) -> NDArray[numpy.int64]:
    """First row and row count of each tile [2, tiles]; what sees most keys begins first."""
    firsts = [range(end - count, end, TILE_ROWS) for count, end in zip(counts, ends, strict=True)]
    first = numpy.fromiter(chain.from_iterable(firsts), dtype=numpy.int64)
    rows_left = numpy.repeat(ends, [len(tiles) for tiles in firsts]) - first
    return numpy.stack((first, numpy.minimum(rows_left, TILE_ROWS)))[:, ::-1]


class StepWords:
    """Brings packed steps into the buffers that the graphs read, unless they hold them already."""

    def __init__(self, buffers: StepBuffers, ring: PinnedRing) -> None:
        self._buffers, self._ring = buffers, ring
        self._words = numpy.empty(0, dtype=numpy.int32)
        self._sample_rows = numpy.empty(0, dtype=numpy.int32)

    def upload_rows(self, step: PackedStep) -> None:
        """What the layers read of a step."""
        words = step.words.reshape(-1)
        if not numpy.array_equal(words, self._words):
            self._ring.copy(words, self._buffers.words[: words.size])
            self._words = words

    def upload_samples(self, step: PackedStep) -> None:
        """What the head and the choice read of a step that samples."""
        if not numpy.array_equal(step.sample_rows, self._sample_rows):
            self._ring.copy(step.sample_rows, self._buffers.sample_rows[: step.sample_size])
            self._sample_rows = step.sample_rows


def _name_tokens(row: PlannedRow, known: Sequence[int], words: NDArray[numpy.int32]) -> None:
    first, count = row.first_position, row.row.token_count
    words[1] = numpy.asarray(known[first : first + count])
    words[2] = numpy.arange(first, first + count)


def _check(row: Row, slot: Slot, first: int, end: int, context_token_count: int) -> None:
    if row.kv_token_limit > slot.granted_token_count:
        raise PlanError(
            f"plan.rows.kv_token_limits: beyond the blocks granted to slot {row.slot}; "
            f"got {row.kv_token_limit}; allowed up to {slot.granted_token_count}"
        )
    known = max(len(slot.admit.token_ids), first + 1)
    if row.token_count < 1 or end > known or (row.sample and end != known):
        raise PlanError(
            f"plan.rows.token_counts: slot {row.slot} has {first} of {known} tokens computed; "
            f"got {row.token_count}"
        )
    if end > context_token_count:
        raise PlanError(
            f"plan.rows.token_counts: past the model's positions; got position {end - 1}; "
            f"allowed up to {context_token_count - 1}"
        )
