"""From logits to an id by a row's own options, on the GPU: adjust, weigh, filter, draw.

The steps of `sampler.py`: logits in float64 with bias, penalties and bans; integer weights by
temperature; what the filters keep of them (`kept`, `selection`); a draw by a Philox number. A row
that wants only the likeliest id is left out of all of it. Kernels are compiled without fused
multiply and add, which would round once where the specification rounds twice.
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.sampling import layout
from santacoder_shard.kernels.sampling.kept.triton_kernel import (
    BIAS_COUNT,
    BIASES,
    BINS,
    FREQUENCY,
    MIN_P,
    MINIMUM_LENGTH,
    OPTIONS,
    OUTPUT_POSITION,
    PRESENCE,
    PROMPT_LENGTH,
    REPETITION,
    SAMPLE_INDEX,
    SEED,
    STATE,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    TOTAL,
    TYPICAL_P,
    kept_by_surprise,
    kept_by_weight,
    real,
    reset_state,
    weight_bin,
)

_SEEN = tl.constexpr(layout.SEEN)
_NO_ID = tl.constexpr(2147483647)


@triton.jit
def _has_penalties(mine):
    """Whether a slot's options change logits by what the text holds already."""
    changes = real(mine + REPETITION) != 1.0
    changes = changes | (real(mine + PRESENCE) != 0.0)
    return changes | (real(mine + FREQUENCY) != 0.0)


@triton.jit
def _penalize(value, history, mine):
    """Logits after the penalties, given what the text holds of each id."""
    repetition = real(mine + REPETITION)
    repeated = tl.where(value < 0, value * repetition, value / repetition)
    value = tl.where(history >= _SEEN, repeated, value)
    count = (history & (_SEEN - 1)).to(tl.float64)
    presence = tl.where(count > 0, real(mine + PRESENCE), 0.0)
    return value - (presence + real(mine + FREQUENCY) * count)


@triton.jit
def _entries(ids, first, stop, COUNT: tl.constexpr):
    """Which of COUNT ascending ids, with -1 after the last, are from `first` to before `stop`."""
    known = tl.load(ids + tl.arange(0, COUNT))
    before = tl.sum(((known >= 0) & (known < first)).to(tl.int32), 0)
    return before, tl.sum(((known >= 0) & (known < stop)).to(tl.int32), 0)


@triton.jit
def adjust_kernel(
    logits,  # float32 [rows, width]
    best_ids,  # int32 [rows, parts]: below 0 where a logit is not finite
    sample_rows,  # int32 [rows]: which row of the step, below 0: none
    row_slots,  # int32 [step rows]
    positions,  # int32 [step rows], below 0: the row did not run
    slot_options,  # int64 [slots, OPTIONS]
    end_ids,  # int32 [slots, END_COUNT], ascending, -1 where fewer
    histories,  # int32 [slots, parts * BLOCK]
    chosen,  # out: int32 [rows]: the slot of a row that wants more than the likeliest id, or -1
    drawing,  # out: int32 [rows]: the slot of such a row that is drawn by weights, or -1
    weights,  # out: int64 [rows, parts * BLOCK]: the bits of float64 logits
    part_values,  # out: float64 [rows, parts]: the largest of them, and its id
    part_ids,  # out: int32 [rows, parts]
    bin_counts,  # out: int32 [rows, BINS], emptied
    bin_sums,  # out: int64 [rows, BINS], emptied
    state,  # out: int64 [rows, STATE]
    token_count,
    width,
    END_COUNT: tl.constexpr,
    WEIGHT_BITS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    BINS_PER_PART: tl.constexpr,
):
    """Bias, penalties and bans. A program a row and a part of BLOCK ids."""
    row, part, part_count = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    place = row * part_count + part
    step_row = tl.load(sample_rows + row)
    position = tl.load(positions + tl.maximum(step_row, 0))
    slot = tl.maximum(tl.load(row_slots + tl.maximum(step_row, 0)), 0)
    mine = slot_options + slot * OPTIONS
    parts = tl.arange(0, PARTS)
    best = tl.load(best_ids + row * part_count + parts, mask=parts < part_count, other=0)
    runs = (step_row >= 0) & (position >= 0) & (tl.min(best, 0) >= 0)
    draws = real(mine + TEMPERATURE) > 0.0
    penalizes = _has_penalties(mine)
    bans = position + 1 < tl.load(mine + MINIMUM_LENGTH)
    biases = tl.load(mine + BIASES) >= 0
    runs = runs & (draws | penalizes | bans | biases)
    if part == 0:
        tl.store(chosen + row, tl.where(runs, slot, -1))
        tl.store(drawing + row, tl.where(runs & draws, slot, -1))
    if runs:
        if part == 0:
            least = tl.ceil(real(mine + MIN_P) * (1 << WEIGHT_BITS)).to(tl.int64)
            output_position = position + 1 - tl.load(mine + PROMPT_LENGTH)
            reset_state(state + row * STATE, least, output_position)
        bin = part * BINS_PER_PART + tl.arange(0, BINS_PER_PART)
        zero = tl.zeros_like(bin)
        tl.store(bin_counts + row * BINS + bin, zero, mask=bin < BINS)
        tl.store(bin_sums + row * BINS + bin, zero.to(tl.int64), mask=bin < BINS)
        first, stop = part * BLOCK, part * BLOCK + BLOCK
        token = first + tl.arange(0, BLOCK)
        value = tl.load(
            logits + row * width + token, mask=token < token_count, other=-float("inf")
        ).to(tl.float64)
        if biases:
            from_entry, to_entry = _entries(mine + BIASES, first, stop, BIAS_COUNT)
            for entry in range(from_entry, to_entry):
                bias = real(mine + BIASES + BIAS_COUNT + entry)
                token_id = tl.load(mine + BIASES + entry)
                value = tl.where(token == token_id, value + bias, value)
        if penalizes:
            history = tl.load(histories + slot * part_count * BLOCK + token)
            value = _penalize(value, history, mine)
        if bans:
            from_entry, to_entry = _entries(end_ids + slot * END_COUNT, first, stop, END_COUNT)
            for entry in range(from_entry, to_entry):
                end_id = tl.load(end_ids + slot * END_COUNT + entry)
                value = tl.where(token == end_id, -float("inf"), value)
        tl.store(weights + place * BLOCK + tl.arange(0, BLOCK), value.to(tl.int64, bitcast=True))
        largest = tl.max(value, 0)
        tl.store(part_values + place, largest)
        tl.store(part_ids + place, tl.min(tl.where(value == largest, token, _NO_ID), 0))


@triton.jit
def weigh_kernel(
    drawing,
    slot_options,
    weights,  # int64 [rows, parts * BLOCK]: the bits of float64 logits; out: integer weights
    part_values,
    part_sums,  # out: int64 [rows, parts]
    bin_counts,  # out
    bin_sums,  # out
    state,
    WEIGHT_BITS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    FILTERS: tl.constexpr,  # whether any row filters
):
    """Integer weights by temperature, the heaviest 2**WEIGHT_BITS. A program a row and a part."""
    row, part, part_count = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    slot = tl.load(drawing + row)
    if slot < 0:
        return
    parts = tl.arange(0, PARTS)
    inside = parts < part_count
    largest = tl.load(part_values + row * part_count + parts, mask=inside, other=-float("inf"))
    place = row * part_count + part
    at = weights + place * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(at).to(tl.float64, bitcast=True)
    temperature = real(slot_options + slot * OPTIONS + TEMPERATURE)
    relative = tl.exp((value - tl.max(largest, 0)) / temperature)
    weight = (relative * (1 << WEIGHT_BITS)).to(tl.int64)
    total = tl.sum(weight, 0)
    tl.store(at, weight)
    tl.store(part_sums + place, total)
    if FILTERS:
        tl.atomic_add(state + row * STATE + TOTAL, total, sem="relaxed")
        limits_count = tl.load(slot_options + slot * OPTIONS + TOP_K) > 0
        limits_mass = real(slot_options + slot * OPTIONS + TOP_P) < 1.0
        bin = row * BINS + weight_bin(weight)
        if limits_count:
            tl.atomic_add(bin_counts + bin, 1, mask=weight > 0, sem="relaxed")
        if limits_count | limits_mass:
            tl.atomic_add(bin_sums + bin, weight, mask=weight > 0, sem="relaxed")


@triton.jit
def draw_kernel(
    chosen,
    drawing,
    slot_options,
    weights,
    part_values,
    part_ids,
    part_sums,
    state,
    histories,  # out: int32 [slots, parts * BLOCK]
    forced_ids,  # out: int32 [rows]: the id, or -1 where the likeliest is wanted
    part_count,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    BY_SURPRISE: tl.constexpr,  # whether any row filters so
):
    """The id of a row, which joins its slot's history. A program a row."""
    row = tl.program_id(0)
    slot = tl.load(chosen + row)
    if slot < 0:
        tl.store(forced_ids + row, -1)
        return
    mine, line = slot_options + slot * OPTIONS, state + row * STATE
    parts = tl.arange(0, PARTS)
    inside, first = parts < part_count, row * part_count
    if tl.load(drawing + row) < 0:
        largest = tl.load(part_values + first + parts, mask=inside, other=-float("inf"))
        its_id = tl.load(part_ids + first + parts, mask=inside, other=_NO_ID)
        token_id = tl.min(tl.where(largest == tl.max(largest, 0), its_id, _NO_ID), 0)
    else:
        low, high, _, _ = tl.philox(
            tl.load(mine + SEED),
            tl.load(line + OUTPUT_POSITION).to(tl.uint32),
            tl.full([], 0, tl.uint32),
            tl.load(mine + SAMPLE_INDEX).to(tl.uint32),
            tl.full([], 0, tl.uint32),
        )
        number = (high.to(tl.uint64) << 32) | low.to(tl.uint64)
        sums = tl.load(part_sums + first + parts, mask=inside, other=0)
        threshold = tl.umulhi(number, tl.sum(sums, 0).to(tl.uint64)).to(tl.int64)
        part = tl.sum((inside & (tl.cumsum(sums, 0) <= threshold)).to(tl.int32), 0)
        before = tl.sum(tl.where(parts < part, sums, 0), 0)
        token = part * BLOCK + tl.arange(0, BLOCK)
        weight = tl.load(weights + first * BLOCK + token)
        kept = kept_by_weight(weight, token, line)
        if BY_SURPRISE:
            if real(mine + TYPICAL_P) < 1.0:
                kept = kept_by_surprise(weight, token, line)
        is_passed = before + tl.cumsum(kept, 0) <= threshold
        token_id = part * BLOCK + tl.sum(is_passed.to(tl.int32), 0)
    tl.store(forced_ids + row, token_id)
    if _has_penalties(mine):
        entry = histories + slot * part_count * BLOCK + token_id
        tl.store(entry, (tl.load(entry) + 1) | _SEEN)
