"""Log probabilities that a simulated model gives: made up, and the same for the same ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.slots import Row, Sampled, SlotTable

CHOSEN = -0.25
STEP = -1.0


def logprobs_of(
    table: SlotTable, rows: Sequence[Row], sampled: Sampled
) -> Iterator[shard_pb2.TokenLogprobs]:
    """For every id of the rows that want them, in the order of the ids."""
    end = 0
    for row, id_count in zip(rows, sampled.counts, strict=True):
        begin, end = end, end + id_count
        count = table[row.slot].logprob_count
        if count is not None:
            for place, token_id in enumerate(sampled.ids[begin:end], begin):
                yield _logprobs(place, token_id, count)


def _logprobs(place: int, chosen_id: int, count: int) -> shard_pb2.TokenLogprobs:
    # The chosen id first, and then whichever ids are lowest.
    others = [other for other in range(count) if other != chosen_id]
    top_ids = [chosen_id, *others][:count]
    top_values = [CHOSEN + STEP * rank for rank in range(len(top_ids))]
    return shard_pb2.TokenLogprobs(
        token_index=place,
        chosen=CHOSEN,
        top_ids=struct.pack(f"<{len(top_ids)}I", *top_ids),
        top_logprobs=struct.pack(f"<{len(top_values)}f", *top_values),
    )
