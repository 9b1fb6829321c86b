"""Begins a step on the GPU: resolves each row against what is known of its slot, and embeds it.

A row names its token and position, or leaves both to the slot's state, which only the device knows
while plans are in flight. A row whose slot has ended, or has no room, becomes no row: position -1.
"""

from __future__ import annotations

import triton
import triton.language as tl

PAGE = tl.constexpr(16)


@triton.jit
def embed_kernel(
    row_slots,  # int32 [rows], below 0: no row; and so the next three
    row_tokens,  # below 0: the slot's last sampled id, at the slot's position
    row_positions,
    row_limits,  # tokens that have room in the granted blocks
    slot_tokens,  # int32 [slots], and so the next two
    slot_positions,
    slot_ended,
    tables,  # int32 [slots, table_width]
    token_embedding,  # [V, SIZE]: of ids from `first_token` on
    position_embedding,  # [positions, SIZE]
    positions,  # out: int32 [rows]
    places,  # out: int64 [rows], block * 16 + offset
    hidden,  # out: float32 [rows, SIZE]
    part,  # out: float32 [rows, SIZE], with IS_PART: the token's row if it is here, else zeros
    table_width,
    first_token,
    local_token_count,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    IS_PART: tl.constexpr,
):
    """A program a row."""
    row = tl.program_id(0)
    slot = tl.load(row_slots + row)
    known_slot = tl.maximum(slot, 0)
    token = tl.load(row_tokens + row)
    position = tl.load(row_positions + row)
    is_row = slot >= 0
    if token < 0:
        token = tl.load(slot_tokens + known_slot)
        position = tl.load(slot_positions + known_slot)
        is_row = is_row & (tl.load(slot_ended + known_slot) == 0)
    is_row = is_row & (position < tl.load(row_limits + row))
    token = tl.where(is_row, token, 0)
    position = tl.where(is_row, position, 0)
    block = tl.load(tables + known_slot * table_width + position // PAGE)
    place = block.to(tl.int64) * PAGE + position % PAGE
    tl.store(positions + row, tl.where(is_row, position, -1))
    tl.store(places + row, tl.where(is_row, place, -1))
    column = tl.arange(0, BLOCK)
    inside = (column < SIZE) & is_row
    local_token = token.to(tl.int64) - first_token
    is_here = (local_token >= 0) & (local_token < local_token_count)
    local_token = tl.where(is_here, local_token, 0)
    word = tl.load(
        token_embedding + local_token * SIZE + column, mask=inside & is_here, other=0.0
    ).to(tl.float32)
    place_row = tl.load(position_embedding + position * SIZE + column, mask=inside, other=0.0)
    value = place_row.to(tl.float32)
    if IS_PART:
        tl.store(part + row * SIZE + column, word, mask=column < SIZE)
    else:
        value = word + value
    tl.store(hidden + row * SIZE + column, value, mask=column < SIZE)
