"""Every product of the model on the GPU, with what comes after it built in: two kernels, one sum.

`linear_kernel` runs on any GPU; `described_linear_kernel` leaves the loads to Hopper's engine for
them, which is told of whole tensors by descriptors and brings more at a time.

A sum has a fixed shape: IN is cut into SEGMENTS equal parts; each part is one float32 accumulator
from zero, k ascending in steps of the tensor core's 16; two parts are then added. How rows and
columns are cut into tiles, how many warps run and how deep loads are pipelined changes no bit of
it, so that tiles are chosen for speed alone (`tiles.py`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.dependent_launch import let_next_start, wait_for_last


@triton.jit
def gelu_tanh(x):
    """x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3): the tanh form, without tanh."""
    inner = 1.5957691216057308 * tl.fma(0.044715 * x * x, x, x)
    return x / (1.0 + tl.exp(-inner))


@triton.jit
def gelu_erf(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def accumulate(sums, rows, row, inside, weight, column, k, IN: tl.constexpr):
    """sums [M, N] plus rows [M, k] times weight [N, k]."""
    part = tl.load(rows + row[:, None] * IN + k[None, :], mask=inside[:, None], other=0.0)
    tile = tl.load(weight + column[None, :] * IN + k[:, None])
    return tl.dot(part, tile, sums, input_precision="ieee")


@triton.jit
def finish(
    sums,
    bias,
    out,
    row,
    column,
    inside,
    keys,
    values,
    places,
    OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    KV_SIZE: tl.constexpr,
):
    """Bias, activation and residual, in this order; then to `out` or to the cache."""
    if HAS_BIAS:
        sums += tl.load(bias + tl.minimum(column, OUT - 1))[None, :]
    if ACTIVATION == "gelu_tanh":
        sums = gelu_tanh(sums)
    elif ACTIVATION == "gelu_erf":
        sums = gelu_erf(sums)
    store = inside[:, None] & (column < OUT)[None, :]
    place = out + row[:, None] * (OUT - 2 * KV_SIZE) + column[None, :]
    if RESIDUAL:
        sums += tl.load(place, mask=store, other=0.0)
    if KV_SIZE > 0:
        cache_row = tl.load(places + row, mask=inside, other=-1)[:, None]
        cache_column = column[None, :] - (OUT - 2 * KV_SIZE)
        key_place = keys + cache_row * KV_SIZE + cache_column
        value_place = values + cache_row * KV_SIZE + cache_column - KV_SIZE
        cache_place = tl.where(cache_column < KV_SIZE, key_place, value_place)
        place = tl.where(cache_column < 0, place, cache_place)
        store = store & ((cache_column < 0) | (cache_row >= 0))
    tl.store(place, sums.to(out.dtype.element_ty), mask=store)


@triton.jit(do_not_specialize=["row_count"])
def linear_kernel(
    rows,  # [row_count, IN]
    weight,  # [OUT, IN]
    bias,  # float32 [OUT], with HAS_BIAS
    out,  # [row_count, OUT], float32 sums with RESIDUAL; only the query's columns with KV_SIZE
    row_count,
    keys,  # [places, KV_SIZE], and so values, with KV_SIZE
    values,
    places,  # int64 [row_count]: where a row's K and V go, below 0 nowhere
    IN: tl.constexpr,
    OUT: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    KV_SIZE: tl.constexpr,  # columns of K, and of V, at the end of OUT; 0: none
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a tile of BLOCK_M rows and BLOCK_N columns; equal columns run together."""
    row_tiles = tl.cdiv(row_count, BLOCK_M)
    row = tl.program_id(0) % row_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    first_column = tl.program_id(0) // row_tiles * BLOCK_N
    column = first_column + tl.arange(0, BLOCK_N)
    inside = row < row_count
    wait_for_last(OVERLAP)
    SEGMENT: tl.constexpr = IN // SEGMENTS
    safe_column = tl.minimum(column, OUT - 1)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    other_sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first_k in range(0, SEGMENT, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        sums = accumulate(sums, rows, row, inside, weight, safe_column, k, IN)
        if SEGMENTS == 2:
            other_sums = accumulate(
                other_sums, rows, row, inside, weight, safe_column, k + SEGMENT, IN
            )
    # Not earlier: programs of the next kernel, spread over whatever is free, would crowd there.
    let_next_start(OVERLAP)
    if SEGMENTS == 2:
        sums += other_sums
    finish(
        sums,
        bias,
        out,
        row,
        column,
        inside,
        keys,
        values,
        places,
        OUT,
        HAS_BIAS,
        ACTIVATION,
        RESIDUAL,
        KV_SIZE,
    )


@triton.jit(do_not_specialize=["row_count"])
def described_linear_kernel(
    rows,  # descriptor of [R, IN] in blocks of [BLOCK_M, BLOCK_K]
    weight,  # descriptor of [OUT, IN] in blocks of [BLOCK_N, BLOCK_K]
    bias,  # this and what follows as in `linear_kernel`
    out,
    row_count,
    keys,
    values,
    places,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    KV_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program a tile of BLOCK_M rows and BLOCK_N columns; equal columns run together."""
    row_tiles = tl.cdiv(row_count, BLOCK_M)
    first_row = tl.program_id(0) % row_tiles * BLOCK_M
    first_column = tl.program_id(0) // row_tiles * BLOCK_N
    wait_for_last(OVERLAP)
    SEGMENT: tl.constexpr = IN // SEGMENTS
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    other_sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, SEGMENT, BLOCK_K):
        tile = weight.load([first_column, k]).T
        sums = tl.dot(rows.load([first_row, k]), tile, sums, input_precision="ieee")
        if SEGMENTS == 2:
            part = rows.load([first_row, k + SEGMENT])
            tile = weight.load([first_column, k + SEGMENT]).T
            other_sums = tl.dot(part, tile, other_sums, input_precision="ieee")
    let_next_start(OVERLAP)
    if SEGMENTS == 2:
        sums += other_sums
    row = first_row + tl.arange(0, BLOCK_M)
    column = first_column + tl.arange(0, BLOCK_N)
    finish(
        sums,
        bias,
        out,
        row,
        column,
        row < row_count,
        keys,
        values,
        places,
        OUT,
        HAS_BIAS,
        ACTIVATION,
        RESIDUAL,
        KV_SIZE,
    )
