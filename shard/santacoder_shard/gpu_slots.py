"""Keeps the slots' state on the device in step with plans. Nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from santacoder_shard.gpu_buffers import END_ID_COUNT, SlotState
from santacoder_shard.gpu_transfer import pinned, to_device
from santacoder_shard.slots import Slot
from santacoder_shard.step import BlockGrant


class SlotUploads:
    """Queues the copies that admits and grants need, a fixed number a plan."""

    def __init__(self, state: SlotState) -> None:
        self._state = state

    def admit(self, admitted: Sequence[tuple[int, Slot]]) -> None:
        """These slots begin anew: they have not ended, and end as their sequences say."""
        if not admitted:
            return
        state = self._state
        places = to_device([index for index, _ in admitted], state.ended)
        state.ended.index_fill_(0, places, 0)
        fields = numpy.full((len(admitted), 1 + END_ID_COUNT), -1, dtype=numpy.int32)
        for line, (_, slot) in zip(fields, admitted, strict=True):
            end_ids = sorted(slot.end_ids.union(slot.admit.stop_ids))
            line[0] = slot.remaining_max_tokens
            line[1 : 1 + len(end_ids)] = end_ids
        rows = pinned(fields).to(places.device, non_blocking=True)
        state.remaining.index_copy_(0, places, rows[:, 0])
        state.end_ids.index_copy_(0, places, rows[:, 1:])

    def grant(self, grants: Sequence[BlockGrant]) -> None:
        """Append blocks to the slots' tables."""
        if not grants:
            return
        tables = self._state.tables
        width = tables.shape[1]
        places = [
            grant.slot * width + grant.first_index + index
            for grant in grants
            for index in range(len(grant.block_ids))
        ]
        blocks = [block_id for grant in grants for block_id in grant.block_ids]
        values = pinned(numpy.array(blocks, dtype=numpy.int32)).to(tables.device, non_blocking=True)
        tables.view(-1).index_copy_(0, to_device(places, tables), values)
