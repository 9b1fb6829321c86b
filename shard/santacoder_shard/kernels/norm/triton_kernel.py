"""Layer norm on the GPU. A row's sums are added in one order, whoever asks for them.

The order is that of one row over 4 warps, so `row_moments` is always called on a single row, by
kernels of 4 warps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.dependent_launch import let_next_start, wait_for_last

MOMENT_WARPS = 4


@triton.jit
def row_moments(row, epsilon, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and reciprocal deviation of the SIZE float32 numbers at `row`."""
    column = tl.arange(0, BLOCK)
    value = tl.load(row + column, mask=column < SIZE, other=0.0)
    mean = tl.sum(value) / SIZE
    centred = tl.where(column < SIZE, value - mean, 0.0)
    return mean, tl.rsqrt(tl.sum(centred * centred) / SIZE + epsilon)


@triton.jit
def normalize(value, mean, scale, weight, bias):
    """One written order of roundings: a product, then a multiply and add in one."""
    return tl.fma((value - mean) * scale, weight, bias)


@triton.jit
def norm_rows_kernel(
    hidden,  # float32 [rows, SIZE]
    rows,  # int32 [programs]: which row of `hidden`; only with GATHER
    weight,  # float32 [SIZE]
    bias,  # float32 [SIZE]
    out,  # [programs, SIZE]
    epsilon,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    GATHER: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a row."""
    let_next_start(OVERLAP)
    wait_for_last(OVERLAP)
    program = tl.program_id(0)
    row = tl.maximum(tl.load(rows + program), 0) if GATHER else program
    mean, scale = row_moments(hidden + row * SIZE, epsilon, SIZE, BLOCK)
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    value = tl.load(hidden + row * SIZE + column, mask=inside, other=0.0)
    gamma = tl.load(weight + column, mask=inside, other=0.0)
    beta = tl.load(bias + column, mask=inside, other=0.0)
    normal = normalize(value, mean, scale, gamma, beta)
    tl.store(out + program * SIZE + column, normal.to(out.dtype.element_ty), mask=inside)
