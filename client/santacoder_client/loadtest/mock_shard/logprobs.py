"""Log probabilities that a simulated model gives: made up, and the same for the same ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.slots import Integers, Sampled, SlotTable

CHOSEN = -0.25
STEP = -1.0


def logprobs_of(
    table: SlotTable, slots: Integers, sampled: Sampled
) -> Iterator[shard_pb2.TokenLogprobs]:
    """For every id of the rows that want them, in the order of the ids."""
    if not table.wants_logprobs[slots].any():
        return
    slot_of_id = np.repeat(slots, sampled.counts)
    for place in np.flatnonzero(table.wants_logprobs[slot_of_id]).tolist():
        count = int(table.logprob_count[slot_of_id[place]])
        chosen_id = int(sampled.ids[place])
        # The chosen id first, and then whichever ids are lowest.
        others = [other for other in range(count) if other != chosen_id]
        top_ids = [chosen_id, *others][:count]
        top_values = [CHOSEN + STEP * rank for rank in range(len(top_ids))]
        yield shard_pb2.TokenLogprobs(
            token_index=place,
            chosen=CHOSEN,
            top_ids=struct.pack(f"<{len(top_ids)}I", *top_ids),
            top_logprobs=struct.pack(f"<{len(top_values)}f", *top_values),
        )
