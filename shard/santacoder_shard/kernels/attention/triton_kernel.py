"""Attention over the paged KV cache on the GPU: the same bits for decode and prefill.

Keys are taken in splits of 64 from position 0. A split has its own maximum, its weights are rounded
to the cache's type, and their sum comes from a tensor-core product with ones, so that no order of
addition depends on the tile. Splits are folded into a running (highest, total, context), ascending.
`fold_kernel` does a tile of rows by itself; `split_kernel` and `merge_kernel` spread the splits of
few rows over the device. A split past a row's end is folded with weight exactly 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.dependent_launch import let_next_start, wait_for_last

MASKED = tl.constexpr(-1e30)
SPLIT = tl.constexpr(64)
PAGE = tl.constexpr(16)
MERGED_AT_ONCE = tl.constexpr(8)


@triton.jit
def split_attention(query, position, last, split, table, keys, values, kv_head, log2_scale,
                    KV_HEADS: tl.constexpr, HEAD: tl.constexpr):  # fmt: skip
    """One split of one sequence: its maximum [M], total [M] and context [M, HEAD], float32.

    query [M, HEAD]; position [M] is the last key each row sees; `last` the last any row sees.
    """
    key = split * SPLIT + tl.arange(0, SPLIT)
    seen = key <= last
    block = tl.load(table + key // PAGE, mask=seen, other=0)
    place = (block.to(tl.int64) * PAGE + key % PAGE) * KV_HEADS + kv_head
    dimension = tl.arange(0, HEAD)
    offset = place[:, None] * HEAD + dimension[None, :]
    key_rows = tl.load(keys + offset, mask=seen[:, None], other=0.0)
    scores = tl.dot(query, tl.trans(key_rows), input_precision="ieee") * log2_scale
    scores = tl.where(key[None, :] <= position[:, None], scores, MASKED)
    highest = tl.max(scores, 1)
    weights = tl.exp2(scores - highest[:, None]).to(keys.dtype.element_ty)
    value_rows = tl.load(values + offset, mask=seen[:, None], other=0.0)
    ones = tl.full([SPLIT, 16], 1.0, keys.dtype.element_ty)
    total = tl.max(tl.dot(weights, ones, input_precision="ieee"), 1)
    return highest, total, tl.dot(weights, value_rows, input_precision="ieee")


@triton.jit
def fold_kernel(
    query,  # [rows, KV_HEADS * GROUP, HEAD]
    keys,  # one layer's cache [blocks * 16, KV_HEADS, HEAD], and so values
    values,
    positions,  # int32 [rows], below 0: no row
    slots,  # int32 [rows]
    tables,  # int32 [slots, table_width]
    tiles,  # int32 [2, tile_width]: first row and row count; only with TILE_ROWS above 1
    out,  # [rows, KV_HEADS * GROUP * HEAD]
    log2_scale,
    table_width,
    tile_width,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads to a K and V head
    GROUP_BLOCK: tl.constexpr,  # the same, rounded up to a power of two
    HEAD: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a tile of rows of one sequence and a K and V head."""
    let_next_start(OVERLAP)
    wait_for_last(OVERLAP)
    kv_head = tl.program_id(1)
    member = tl.arange(0, BLOCK_M)
    first_row, tile_rows = tl.program_id(0), 1
    if TILE_ROWS > 1:
        first_row = tl.load(tiles + tl.program_id(0))
        tile_rows = tl.load(tiles + tile_width + tl.program_id(0))
    row = first_row + member // GROUP_BLOCK
    head = kv_head * GROUP + member % GROUP_BLOCK
    is_row = (member // GROUP_BLOCK < tile_rows) & (member % GROUP_BLOCK < GROUP)
    position = tl.load(positions + row, mask=is_row, other=-1)
    last = tl.max(position, 0)
    slot = tl.maximum(tl.load(slots + first_row), 0)
    dimension = tl.arange(0, HEAD)
    place = (row * (KV_HEADS * GROUP) + head)[:, None] * HEAD + dimension[None, :]
    queries = tl.load(query + place, mask=is_row[:, None], other=0.0)
    highest = tl.full([BLOCK_M], MASKED, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    context = tl.zeros([BLOCK_M, HEAD], tl.float32)
    for split in range(tl.cdiv(last + 1, SPLIT)):
        split_highest, split_total, split_context = split_attention(
            queries, position, last, split, tables + slot * table_width, keys, values, kv_head,
            log2_scale, KV_HEADS, HEAD)  # fmt: skip
        higher = tl.maximum(highest, split_highest)
        scale, split_scale = tl.exp2(highest - higher), tl.exp2(split_highest - higher)
        context = tl.fma(context, scale[:, None], split_context * split_scale[:, None])
        total = tl.fma(total, scale, split_total * split_scale)
        highest = higher
    context = context / tl.where(total > 0.0, total, 1.0)[:, None]
    store = is_row & (position >= 0)
    tl.store(out + place, context.to(out.dtype.element_ty), mask=store[:, None])


@triton.jit
def split_kernel(
    query,
    keys,
    values,
    positions,
    slots,
    tables,
    contexts,  # float32 [rows, splits, heads, HEAD]
    moments,  # float32 [rows, splits, heads, 2]: maximum and total
    log2_scale,
    table_width,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a row, a K and V head, and a split. The other names are `fold_kernel`'s."""
    let_next_start(OVERLAP)
    wait_for_last(OVERLAP)
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    last = tl.load(positions + row)
    if split * SPLIT <= last:
        slot = tl.load(slots + row)
        member = tl.arange(0, BLOCK_M)
        is_head = member < GROUP
        head = kv_head * GROUP + member
        dimension = tl.arange(0, HEAD)
        offset = head[:, None] * HEAD + dimension[None, :]
        queries = tl.load(
            query + row * (KV_HEADS * GROUP * HEAD) + offset, mask=is_head[:, None], other=0.0
        )
        position = tl.where(is_head, last, -1)
        highest, total, context = split_attention(
            queries, position, last, split, tables + slot * table_width, keys, values, kv_head,
            log2_scale, KV_HEADS, HEAD)  # fmt: skip
        part = (row * tl.num_programs(2) + split) * (KV_HEADS * GROUP)
        tl.store(contexts + part * HEAD + offset, context, mask=is_head[:, None])
        tl.store(moments + (part + head) * 2, highest, mask=is_head)
        tl.store(moments + (part + head) * 2 + 1, total, mask=is_head)


@triton.jit
def merge_kernel(
    contexts,
    moments,
    positions,
    out,
    split_count,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a row and a head: fold the row's splits in ascending order."""
    let_next_start(OVERLAP)
    wait_for_last(OVERLAP)
    row, head = tl.program_id(0), tl.program_id(1)
    # Written so that a row that is none, at position -1, has no split, however division rounds.
    last_split = (tl.load(positions + row) + SPLIT) // SPLIT - 1
    dimension = tl.arange(0, HEAD)
    one = tl.arange(0, 1)
    highest = tl.full([1], MASKED, tl.float32)
    total = tl.zeros([1], tl.float32)
    context = tl.zeros([HEAD], tl.float32)
    for first in range(0, last_split + 1, MERGED_AT_ONCE):
        for index in tl.static_range(MERGED_AT_ONCE):
            split = first + index
            part = (row * split_count + split) * HEADS + head
            is_split = split <= last_split
            split_highest = tl.load(moments + part * 2 + one, mask=is_split, other=MASKED)
            split_total = tl.load(moments + part * 2 + 1 + one, mask=is_split, other=0.0)
            split_context = tl.load(
                contexts + part * HEAD + dimension, mask=is_split & (dimension < HEAD), other=0.0
            )
            higher = tl.maximum(highest, split_highest)
            scale, split_scale = tl.exp2(highest - higher), tl.exp2(split_highest - higher)
            context = tl.fma(context, scale, split_context * split_scale)
            total = tl.fma(total, scale, split_total * split_scale)
            highest = higher
    context = context / tl.where(total > 0.0, total, 1.0)
    place = (row * HEADS + head) * HEAD + dimension
    tl.store(
        out + place, context.to(out.dtype.element_ty), mask=(dimension < HEAD) & (last_split >= 0)
    )
