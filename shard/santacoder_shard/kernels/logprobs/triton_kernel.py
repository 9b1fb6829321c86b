"""The logarithm of the sum of a row's exponentials, in float64, added up in one order."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalizer_kernel(
    logits,  # float32 [rows, width], finite
    best_values,  # float32 [rows, parts]: their maxima
    rows,  # int64 [programs]
    normalizers,  # out: float64 [programs]
    token_count,
    width,
    part_count,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program a row."""
    program = tl.program_id(0)
    row = tl.load(rows + program)
    part = tl.arange(0, PARTS)
    inside = part < part_count
    best = tl.load(best_values + row * part_count + part, mask=inside, other=-float("inf"))
    largest = tl.max(best, 0).to(tl.float64)
    total = tl.full([], 0.0, tl.float64)
    for first in range(0, token_count, BLOCK):
        token = first + tl.arange(0, BLOCK)
        value = tl.load(logits + row * width + token, mask=token < token_count, other=-float("inf"))
        total += tl.sum(tl.exp(value.to(tl.float64) - largest), 0)
    tl.store(normalizers + program, largest + tl.log(total))
