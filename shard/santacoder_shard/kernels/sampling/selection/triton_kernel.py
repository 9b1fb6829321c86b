"""Where a filter cuts, found exactly and without sorting.

What the filter measures, ids or weight, has been added up in bins of the order in which it keeps
ids. `bound_kernel` finds the bin with the cut, `collect_kernel` gathers the ids of that bin, and
`resolve_kernel` finds the last one that is kept. The order of the ids gathered changes nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.sampling.kept.triton_kernel import (
    ABOVE,
    BINS,
    BOUNDARY,
    CANDIDATES,
    FLOOR,
    KEPT,
    LARGEST,
    LIMIT,
    MASS_ABOVE,
    NEAREST,
    NEAREST_LIMIT,
    OPTIONS,
    STATE,
    TARGET,
    TOP_K,
    TOP_P,
    TOTAL,
    TYPICAL_P,
    deviation,
    deviation_bin,
    deviation_rest,
    kept_by_weight,
    real,
    weight_bin,
    weight_rest,
)

# The filters, in the order in which they are applied.
BY_COUNT = tl.constexpr(0)  # top_k
BY_MASS = tl.constexpr(1)  # top_p
BY_SURPRISE = tl.constexpr(2)  # typical_p


@triton.jit
def _is_wanted(slot, slot_options, FILTER: tl.constexpr):
    """Whether a slot's options hold this filter; below 0 is no slot."""
    place = tl.maximum(slot, 0)
    if FILTER == BY_COUNT:
        wanted = tl.load(slot_options + place * OPTIONS + TOP_K) > 0
    elif FILTER == BY_MASS:
        wanted = real(slot_options + place * OPTIONS + TOP_P) < 1.0
    else:
        wanted = real(slot_options + place * OPTIONS + TYPICAL_P) < 1.0
    return (slot >= 0) & wanted


@triton.jit
def _place(weight, token, line, WEIGHT_BITS: tl.constexpr, FILTER: tl.constexpr):
    """The bin of an id, and where it lies there: the larger, the earlier it is kept."""
    if FILTER == BY_SURPRISE:
        distance = deviation(weight, line)
        is_kept = kept_by_weight(weight, token, line) > 0
        bin = tl.where(is_kept, deviation_bin(distance), -1)
        rest = deviation_rest(distance)
    else:
        bin = weight_bin(weight)
        rest = weight_rest(weight, WEIGHT_BITS)
    return bin, rest


@triton.jit
def bound_kernel(
    drawing,  # int32 [rows]: a row's slot if it is drawn by weights, else below 0
    slot_options,  # int64 [slots, OPTIONS]
    bin_counts,  # int32 [rows, BINS]
    bin_sums,  # int64 [rows, BINS]
    state,  # int64 [rows, STATE]
    FILTER: tl.constexpr,
):
    """Find the bin in which a filter cuts. A program a row."""
    row = tl.program_id(0)
    slot = tl.load(drawing + row)
    if _is_wanted(slot, slot_options, FILTER):
        line = state + row * STATE
        bin = tl.arange(0, BINS)
        mass = tl.load(bin_sums + row * BINS + bin)
        if FILTER == BY_COUNT:
            measure = tl.load(bin_counts + row * BINS + bin).to(tl.int64)
            target = tl.load(slot_options + slot * OPTIONS + TOP_K)
        else:
            measure = mass
            total = tl.load(line + (KEPT if FILTER == BY_SURPRISE else TOTAL))
            column = TYPICAL_P if FILTER == BY_SURPRISE else TOP_P
            share = real(slot_options + slot * OPTIONS + column)
            # A total of more than 53 bits may have been rounded up.
            target = tl.minimum(tl.ceil(share * total.to(tl.float64)).to(tl.int64), total)
        whole = tl.sum(measure, 0)
        from_here = whole - tl.cumsum(measure, 0) + measure
        is_cut = target <= whole
        boundary = tl.max(tl.where(from_here >= target, bin, -1), 0)
        tl.store(line + BOUNDARY, tl.where(is_cut, boundary, BINS).to(tl.int64))
        tl.store(line + TARGET, tl.where(is_cut, target, 0))
        tl.store(line + ABOVE, tl.sum(tl.where(bin > boundary, measure, 0), 0))
        tl.store(line + MASS_ABOVE, tl.sum(tl.where(bin > boundary, mass, 0), 0))


@triton.jit
def collect_kernel(
    drawing,
    slot_options,
    weights,  # int64 [rows, parts * BLOCK]
    state,
    candidates,  # out: int32 [rows, parts * BLOCK], ids
    WEIGHT_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    FILTER: tl.constexpr,
):
    """Gather the ids of the bin in which a filter cuts. A program a row and a part of BLOCK ids."""
    row, part = tl.program_id(0), tl.program_id(1)
    slot = tl.load(drawing + row)
    if _is_wanted(slot, slot_options, FILTER):
        line = state + row * STATE
        first = row * tl.num_programs(1) * BLOCK
        token = part * BLOCK + tl.arange(0, BLOCK)
        weight = tl.load(weights + first + token)
        bin, _ = _place(weight, token, line, WEIGHT_BITS, FILTER)
        is_candidate = (bin == tl.load(line + BOUNDARY)).to(tl.int32)
        count = tl.sum(is_candidate, 0).to(tl.int64)
        if count > 0:
            start = tl.atomic_add(line + CANDIDATES + FILTER, count, sem="relaxed")
            place = first + start + tl.cumsum(is_candidate, 0) - 1
            tl.store(candidates + place, token, mask=is_candidate > 0)


@triton.jit
def _candidates(start, count, ids, weights, line, ID_BITS: tl.constexpr,
                WEIGHT_BITS: tl.constexpr, CHUNK: tl.constexpr, FILTER: tl.constexpr):  # fmt: skip
    """Keys of CHUNK candidates, the larger the earlier kept and no two alike; and their weights."""
    index = start + tl.arange(0, CHUNK)
    token = tl.load(ids + index, mask=index < count, other=0)
    weight = tl.load(weights + token, mask=index < count, other=0)
    _, rest = _place(weight, token, line, WEIGHT_BITS, FILTER)
    key = (rest << ID_BITS) + ((1 << ID_BITS) - 1 - token)
    return tl.where(index < count, key, -1), weight


@triton.jit
def _look(key, weight, middle, COUNTS: tl.constexpr):
    """The measure of the keys from `middle` on, the first of them, and the last key before them."""
    is_over = key >= middle
    measure = is_over.to(tl.int64) if COUNTS else tl.where(is_over, weight, 0)
    over = tl.min(tl.where(is_over, key, LARGEST), 0)
    return tl.sum(measure, 0), over, tl.max(tl.where(is_over, -1, key), 0)


@triton.jit
def _look_at_all(middle, key, weight, count, ids, weights, line, ID_BITS: tl.constexpr,
                 WEIGHT_BITS: tl.constexpr, CHUNK: tl.constexpr, FILTER: tl.constexpr,
                 COUNTS: tl.constexpr):  # fmt: skip
    """`_look` at all candidates, of which the first CHUNK have been loaded."""
    reached, over, under = _look(key, weight, middle, COUNTS)
    for start in range(CHUNK, count, CHUNK):
        more, its_weight = _candidates(
            start, count, ids, weights, line, ID_BITS, WEIGHT_BITS, CHUNK, FILTER
        )
        its_reached, its_over, its_under = _look(more, its_weight, middle, COUNTS)
        reached += its_reached
        over, under = tl.minimum(over, its_over), tl.maximum(under, its_under)
    return reached, over, under


@triton.jit
def resolve_kernel(
    drawing,
    slot_options,
    weights,
    state,
    candidates,
    width,  # of weights and candidates
    ID_BITS: tl.constexpr,  # that an id needs
    WEIGHT_BITS: tl.constexpr,
    CHUNK: tl.constexpr,  # candidates looked at together
    FILTER: tl.constexpr,
):
    """Find the last id that a filter keeps, by bisection over the candidates. A program a row."""
    row = tl.program_id(0)
    slot = tl.load(drawing + row)
    line = state + row * STATE
    target, above = tl.load(line + TARGET), tl.load(line + ABOVE)
    if _is_wanted(slot, slot_options, FILTER) & (target > 0):
        count = tl.load(line + CANDIDATES + FILTER)
        ids, mine = candidates + row * width, weights + row * width
        key, weight = _candidates(0, count, ids, mine, line, ID_BITS, WEIGHT_BITS, CHUNK, FILTER)
        # The key wanted is neither below `low` nor above `high`, and `high` is a candidate's.
        low = tl.full([], 0, tl.int64)
        _, _, high = _look_at_all(
            low + LARGEST, key, weight, count, ids, mine, line,
            ID_BITS, WEIGHT_BITS, CHUNK, FILTER, True,
        )  # fmt: skip
        while low < high:
            middle = low + (high - low + 1) // 2
            reached, over, under = _look_at_all(
                middle, key, weight, count, ids, mine, line,
                ID_BITS, WEIGHT_BITS, CHUNK, FILTER, FILTER == BY_COUNT,
            )  # fmt: skip
            is_enough = above + reached >= target
            low = tl.where(is_enough, over, low)
            high = tl.where(is_enough, high, under)
        token = (1 << ID_BITS) - 1 - (low & ((1 << ID_BITS) - 1))
        floor = tl.load(mine + token)
        if FILTER == BY_SURPRISE:
            tl.store(line + NEAREST, deviation(floor, line))
            tl.store(line + NEAREST_LIMIT, token)
        else:
            tl.store(line + FLOOR, floor)
            tl.store(line + LIMIT, token)
        if FILTER == BY_COUNT:
            mass, _, _ = _look_at_all(
                low, key, weight, count, ids, mine, line,
                ID_BITS, WEIGHT_BITS, CHUNK, FILTER, False,
            )  # fmt: skip
            tl.store(line + TOTAL, tl.load(line + MASS_ABOVE) + mass)
