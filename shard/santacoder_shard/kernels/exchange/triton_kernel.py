"""Adds the ranks' parts of a sum, in rank order, then the bias, then the residual."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_parts_kernel(
    parts,  # float32 [RANKS, rows, SIZE]
    bias,  # float32 [SIZE], with HAS_BIAS
    hidden,  # float32 [rows, SIZE], added to
    row_count,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    RANKS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """A program a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    place = row * SIZE + column
    total = tl.load(parts + place, mask=inside, other=0.0)
    for rank in tl.static_range(1, RANKS):
        total += tl.load(parts + rank * row_count * SIZE + place, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=inside, other=0.0)
    total += tl.load(hidden + place, mask=inside, other=0.0)
    tl.store(hidden + place, total, mask=inside)
