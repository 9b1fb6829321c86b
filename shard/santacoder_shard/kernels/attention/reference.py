"""Attention over a paged KV cache in plain torch: the specification, for decode and prefill alike.

A row's bits depend on its own keys alone. Keys are taken in splits of 64 from position 0. A product
is always of one position's query heads with one whole split, so its shape never varies. Each split
has its own maximum, and splits are added in ascending order. A split past a row's end weighs
exactly 0, so it may be there or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SPLIT_TOKENS = 64
MASKED_SCORE = -1e30


class AttentionTile(NamedTuple):
    """Some rows that attend together.

    rows: which rows of the step.
    blocks: int64 [splits * owners * 4], the cache blocks of each split; one owner if the rows are
        of one sequence, else one a row.
    mask: float32 [splits, 1, rows, 1, 64], 0 where a row sees the key, MASKED_SCORE where not.
        Every row sees a key of split 0, and masked keys and values are finite.
    """

    rows: slice
    blocks: Tensor
    mask: Tensor


def paged_attention(
    query: Tensor, keys: Tensor, values: Tensor, tiles: Sequence[AttentionTile]
) -> Tensor:
    """Attend from query [R, heads, D] and return [R, heads * D].

    keys, values: one layer's cache [blocks, 16, kv_heads, D], the rows' own K and V included.
    """
    scaled = query * query.shape[-1] ** -0.5
    parts = [
        _attend(scaled[tile.rows], _gather(keys, tile), _gather(values, tile), tile.mask)
        for tile in tiles
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _gather(cache: Tensor, tile: AttentionTile) -> Tensor:
    """[splits, kv_heads, rows, 64, D]; rows of one sequence share memory."""
    split_count, _, row_count = tile.mask.shape[:3]
    blocks = cache.index_select(0, tile.blocks).float()
    splits = blocks.view(split_count, -1, SPLIT_TOKENS, *cache.shape[2:])
    # Contiguous, because strides choose between kernels whose bits differ.
    by_head = splits.permute(0, 3, 1, 2, 4).contiguous()
    return by_head.expand(-1, -1, row_count, -1, -1)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scaled query [rows, heads, D], keys and values as gathered -> [rows, heads * D]."""
    row_count, _, head_size = query.shape
    kv_head_count = keys.shape[1]
    grouped = query.view(row_count, kv_head_count, -1, head_size).transpose(0, 1)
    scores = _products(grouped.expand(len(keys), -1, -1, -1, -1), keys.transpose(-1, -2))
    scores += mask
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    contexts = _products(weights, values)
    scales = (highest - highest.amax(0)).exp_()
    totals = weights.sum(-1, keepdim=True).mul_(scales)
    context = _sum_splits(contexts.mul_(scales)).div_(_sum_splits(totals))
    return context.transpose(0, 1).reshape(row_count, -1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """left [splits, kv_heads, rows, group, X] times right [..., X, Y], a product a (split, row)."""
    shape = left.shape
    if right.stride(2) or shape[2] == 1:
        return torch.matmul(left, right)
    # Rows share one right side: matmul would copy it for each of them.
    products = left.new_empty(*shape[:-1], right.shape[-1])
    for split in range(shape[0]):
        for head in range(shape[1]):
            torch.bmm(left[split, head], right[split, head], out=products[split, head])
    return products


def _sum_splits(parts: Tensor) -> Tensor:
    """parts [splits, ...], added in ascending order; the first is overwritten."""
    total, *rest = parts.unbind()
    for part in rest:
        total += part
    return total
