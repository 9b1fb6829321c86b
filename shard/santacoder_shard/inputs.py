"""Makes the tensors of one step from who runs which tokens; knows no plans and no sampling.

Every token of a step is a row, a (slot, position); decode, prefill and mixed steps are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from santacoder_shard.kernels.attention.reference import (
    MASKED_SCORE,
    SPLIT_TOKENS,
    AttentionTile,
)
from santacoder_shard.kv_cache import BLOCK_SIZE

BLOCKS_PER_SPLIT = SPLIT_TOKENS // BLOCK_SIZE
# Rows that attend together: as many as keep the scores of a tile in the processor's cache.
_SINGLE_ROWS_PER_TILE = 16
_CHUNK_ROWS_PER_TILE = 64


class Chunk(NamedTuple):
    """Tokens of one slot, from `first_position` on; `sample` asks for the logits of the last."""

    slot: int
    token_ids: Sequence[int]
    first_position: int
    sample: bool


class StepInputs(NamedTuple):
    """R rows; tensors are int64.

    token_ids, positions [R]. places [R]: where in the cache a row goes, block * 16 + offset.
    tiles: together, all rows. sample_rows [Q]: whose logits are wanted, in the order of the chunks.
    """

    token_ids: Tensor
    positions: Tensor
    places: Tensor
    tiles: tuple[AttentionTile, ...]
    sample_rows: Tensor


def build_inputs(chunks: Sequence[Chunk], block_tables: Tensor) -> StepInputs:
    """block_tables int64 [slots, width]: width a multiple of 4, the scratch block where none is."""
    # Single tokens come first and by position, so that those of a tile have about as many keys.
    order = sorted(
        range(len(chunks)),
        key=lambda index: (len(chunks[index].token_ids) > 1, chunks[index].first_position),
    )
    token_ids: list[int] = []
    position_list: list[int] = []
    slot_list: list[int] = []
    last_rows = [0] * len(chunks)
    for index in order:
        slot, chunk_ids, first, _ = chunks[index]
        token_ids.extend(chunk_ids)
        position_list.extend(range(first, first + len(chunk_ids)))
        slot_list.extend([slot] * len(chunk_ids))
        last_rows[index] = len(token_ids) - 1
    positions = torch.tensor(position_list)
    slots = torch.tensor(slot_list)
    blocks = block_tables[slots, positions // BLOCK_SIZE]
    return StepInputs(
        token_ids=torch.tensor(token_ids),
        positions=positions,
        places=blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
        tiles=tuple(
            _tile(rows, slots, positions, position_list[rows.stop - 1], block_tables)
            for rows in _tile_rows([len(chunks[index].token_ids) for index in order])
        ),
        sample_rows=torch.tensor(
            [last_rows[index] for index, chunk in enumerate(chunks) if chunk.sample],
            dtype=torch.int64,
        ),
    )


def _tile_rows(lengths: Sequence[int]) -> list[slice]:
    """Cut rows into tiles: single rows together, longer chunks each by itself."""
    single_count = lengths.count(1)
    runs = [(single_count, _SINGLE_ROWS_PER_TILE)]
    runs += [(length, _CHUNK_ROWS_PER_TILE) for length in lengths[single_count:]]
    tiles: list[slice] = []
    start = 0
    for length, tile_length in runs:
        stop = start + length
        tiles += [
            slice(first, min(first + tile_length, stop))
            for first in range(start, stop, tile_length)
        ]
        start = stop
    return tiles


def _tile(
    rows: slice, slots: Tensor, positions: Tensor, last_position: int, block_tables: Tensor
) -> AttentionTile:
    """Rows are in ascending position, and of one slot or of a slot each."""
    split_count = last_position // SPLIT_TOKENS + 1
    owners = slots[rows]
    if len(owners) > 1 and owners[0] == owners[1]:
        owners = owners[:1]
    tables = block_tables[owners, : split_count * BLOCKS_PER_SPLIT]
    by_split = tables.view(len(owners), split_count, BLOCKS_PER_SPLIT).transpose(0, 1)
    keys = torch.arange(split_count * SPLIT_TOKENS).view(split_count, 1, 1, 1, SPLIT_TOKENS)
    hidden = keys > positions[rows].view(1, 1, -1, 1, 1)
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, MASKED_SCORE)
    return AttentionTile(rows, by_split.flatten(), mask)
