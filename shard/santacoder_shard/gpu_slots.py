"""Keeps the slots' state on the device in step with plans. Nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import numpy.typing
import torch

from santacoder_shard.gpu_buffers import END_ID_COUNT, SlotState
from santacoder_shard.gpu_transfer import PinnedRing, to_device
from santacoder_shard.slots import Slot
from santacoder_shard.step import BlockGrant

# A copy each up to here; more are sent together, with their places.
FEW_GRANTS = 4


class SlotUploads:
    """Queues what admits and grants need: a copy or two, however many there are."""

    def __init__(self, state: SlotState, ring: PinnedRing) -> None:
        self._words, self._ring, self._table_rows = state.words, ring, state.tables
        self._ended, self._remaining, self._end_ids, self._tables = (
            field.storage_offset()
            for field in (state.ended, state.remaining, state.end_ids, state.tables)
        )
        self._table_width = state.tables.shape[1]

    def admit(self, admitted: Sequence[tuple[int, Slot]]) -> None:
        """These slots begin anew: they have not ended, and end as their sequences say."""
        if not admitted:
            return
        lines = numpy.full((len(admitted), 2 + END_ID_COUNT), -1, dtype=numpy.int64)
        places = numpy.empty_like(lines)
        for line, place, (index, slot) in zip(lines, places, admitted, strict=True):
            end_ids = sorted(slot.end_ids.union(slot.admit.stop_ids))
            line[0], line[1] = 0, slot.remaining_max_tokens
            line[2 : 2 + len(end_ids)] = end_ids
            place[0], place[1] = self._ended + index, self._remaining + index
            first = self._end_ids + index * END_ID_COUNT
            place[2:] = range(first, first + END_ID_COUNT)
        self._set(numpy.stack((places.reshape(-1), lines.reshape(-1))))

    def grant(self, grants: Sequence[BlockGrant]) -> None:
        """Append blocks to the slots' tables."""
        if len(grants) <= FEW_GRANTS:
            for grant in grants:
                stop = grant.first_index + len(grant.block_ids)
                target = self._table_rows[grant.slot, grant.first_index : stop]
                self._ring.copy(numpy.array(grant.block_ids, dtype=numpy.int32), target)
            return
        places: list[int] = []
        for grant in grants:
            first = self._tables + grant.slot * self._table_width + grant.first_index
            places += range(first, first + len(grant.block_ids))
        blocks = [block_id for grant in grants for block_id in grant.block_ids]
        self._set(numpy.array((places, blocks), dtype=numpy.int64))

    def _set(self, places_and_values: numpy.typing.NDArray[numpy.int64]) -> None:
        moved = to_device(places_and_values, self._words)
        self._words.index_copy_(0, moved[0], moved[1].to(torch.int32))
