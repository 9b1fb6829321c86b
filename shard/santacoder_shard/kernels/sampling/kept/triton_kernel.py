"""What the filters of a row have kept so far: its state, its sums, and the bins for typical_p.

A filter keeps the first ids of an order: by weight or, for typical_p, by how near their surprise is
to the entropy; equals by ascending id. So the weight and the id of the last one that is kept say it
all, and the weights themselves are never changed. Sums are of integers, in any order the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from santacoder_shard.kernels.sampling import layout

OPTIONS = tl.constexpr(layout.OPTION_COLUMN_COUNT)
TEMPERATURE = tl.constexpr(layout.NAMED_COLUMNS.index("temperature"))
TOP_P = tl.constexpr(layout.NAMED_COLUMNS.index("top_p"))
MIN_P = tl.constexpr(layout.NAMED_COLUMNS.index("min_p"))
TYPICAL_P = tl.constexpr(layout.NAMED_COLUMNS.index("typical_p"))
REPETITION = tl.constexpr(layout.NAMED_COLUMNS.index("repetition_penalty"))
PRESENCE = tl.constexpr(layout.NAMED_COLUMNS.index("presence_penalty"))
FREQUENCY = tl.constexpr(layout.NAMED_COLUMNS.index("frequency_penalty"))
TOP_K = tl.constexpr(layout.NAMED_COLUMNS.index("top_k"))
SEED = tl.constexpr(layout.NAMED_COLUMNS.index("seed"))
SAMPLE_INDEX = tl.constexpr(layout.NAMED_COLUMNS.index("sample_index"))
PROMPT_LENGTH = tl.constexpr(layout.NAMED_COLUMNS.index("prompt_length"))
MINIMUM_LENGTH = tl.constexpr(layout.NAMED_COLUMNS.index("minimum_length"))
BIASES = tl.constexpr(len(layout.NAMED_COLUMNS))
BIAS_COUNT = tl.constexpr(layout.BIAS_COUNT)

STATE = tl.constexpr(layout.STATE_COLUMN_COUNT)
# Kept by weight is what weighs more than FLOOR or, up to the id LIMIT, as much; and at least LEAST.
# Of that typical_p keeps what deviates less than NEAREST or, up to the id NEAREST_LIMIT, as much.
FLOOR = tl.constexpr(0)
LIMIT = tl.constexpr(1)
LEAST = tl.constexpr(2)
NEAREST = tl.constexpr(3)
NEAREST_LIMIT = tl.constexpr(4)
OUTPUT_POSITION = tl.constexpr(5)
TOTAL = tl.constexpr(6)  # weight of all ids; then of those that top_k keeps
KEPT = tl.constexpr(7)  # weight of what is kept by weight
ENTROPY = tl.constexpr(8)
BOUNDARY = tl.constexpr(9)  # bin in which the filter at work cuts
TARGET = tl.constexpr(10)  # how many ids or how much weight it keeps; 0: all
ABOVE = tl.constexpr(11)  # how much of that is in the bins above
MASS_ABOVE = tl.constexpr(12)  # weight in the bins above
CANDIDATES = tl.constexpr(13)  # ids in that bin: one column for each of the three filters

BINS = tl.constexpr(layout.BIN_COUNT)
# A weight's bin is its exponent and the leading bits of its mantissa, as a float64 has them.
_BIN_BITS = tl.constexpr(5)
_MANTISSA_BITS = tl.constexpr(52)
_EXPONENT_BIAS = tl.constexpr(1023)
_IN_WEIGHT_BIN = tl.constexpr(2**47 - 1)
# Steps a natural-log unit; a bin of deviations is 2**35 of them.
_SURPRISE_SCALE = tl.constexpr(2.0**40)
_ENTROPY_SCALE = tl.constexpr(2.0**58)
_DEVIATION_BITS = tl.constexpr(35)
_IN_DEVIATION_BIN = tl.constexpr(2**35 - 1)
LARGEST = tl.constexpr(2**63 - 1)


@triton.jit
def real(options):
    """The float64 whose bits are at `options`."""
    return tl.load(options).to(tl.float64, bitcast=True)


@triton.jit
def reset_state(line, least, output_position):
    """A row's state before anything is known: every id that has weight is kept."""
    column = tl.arange(0, STATE)
    value = tl.where((column == LIMIT) | (column == NEAREST_LIMIT), -1, 0).to(tl.int64)
    value = tl.where(column == NEAREST, LARGEST, value)
    value = tl.where(column == LEAST, least, value)
    tl.store(line + column, tl.where(column == OUTPUT_POSITION, output_position, value))


@triton.jit
def kept_by_weight(weight, token, line):
    """The weights that top_k, top_p and min_p leave; the others are 0."""
    floor = tl.load(line + FLOOR)
    is_kept = (weight > floor) | ((weight == floor) & (token <= tl.load(line + LIMIT)))
    return tl.where(is_kept & (weight >= tl.load(line + LEAST)), weight, 0)


@triton.jit
def kept_by_surprise(weight, token, line):
    """The weights that typical_p leaves of those that are kept by weight; the others are 0."""
    weight = kept_by_weight(weight, token, line)
    nearest, distance = tl.load(line + NEAREST), deviation(weight, line)
    is_equal = (distance == nearest) & (token <= tl.load(line + NEAREST_LIMIT))
    return tl.where((distance < nearest) | is_equal, weight, 0)


@triton.jit
def weight_bin(weight):
    """The bin of a weight, the heaviest last; below 0 for no weight."""
    bits = weight.to(tl.float64).to(tl.int64, bitcast=True)
    return (bits >> (_MANTISSA_BITS - _BIN_BITS)) - (_EXPONENT_BIAS << _BIN_BITS)


@triton.jit
def weight_rest(weight, WEIGHT_BITS: tl.constexpr):
    """Where a weight lies in its bin; from its first bit to its last it has WEIGHT_BITS or less."""
    bits = weight.to(tl.float64).to(tl.int64, bitcast=True)
    return (bits & _IN_WEIGHT_BIN) >> (_MANTISSA_BITS - WEIGHT_BITS)


@triton.jit
def deviation_bin(distance):
    """The bin of a deviation, the nearest last."""
    return BINS - 1 - (distance >> _DEVIATION_BITS)


@triton.jit
def deviation_rest(distance):
    """Where a deviation lies in its bin, the nearest last."""
    return ~distance & _IN_DEVIATION_BIN


@triton.jit
def _share(weight, line):
    """Of all that is kept by weight; no weight counts as 1, so that there is a logarithm."""
    return tl.maximum(weight, 1).to(tl.float64) / tl.load(line + KEPT).to(tl.float64)


@triton.jit
def deviation(weight, line):
    """How far the surprise of a weight is from the entropy."""
    entropy = tl.load(line + ENTROPY).to(tl.float64) / _ENTROPY_SCALE
    surprise = -tl.log(_share(weight, line))
    return (tl.abs(surprise - entropy) * _SURPRISE_SCALE).to(tl.int64)


@triton.jit
def sum_kept_kernel(
    drawing,  # int32 [rows]: a row's slot if it is drawn by weights, else below 0
    slot_options,  # int64 [slots, OPTIONS]
    weights,  # int64 [rows, parts * BLOCK]
    state,  # int64 [rows, STATE]
    part_sums,  # out: int64 [rows, parts]
    BLOCK: tl.constexpr,
    BY_SURPRISE: tl.constexpr,
):
    """Add up what is kept of every part. A program a row and a part of BLOCK ids."""
    row, part = tl.program_id(0), tl.program_id(1)
    slot = tl.load(drawing + row)
    if slot < 0:
        return
    line = state + row * STATE
    is_typical = real(slot_options + slot * OPTIONS + TYPICAL_P) < 1.0
    is_cut = (tl.load(line + FLOOR) > 0) | (tl.load(line + LEAST) > 0)
    if is_typical | (is_cut & (BY_SURPRISE == 0)):
        place = row * tl.num_programs(1) + part
        token = part * BLOCK + tl.arange(0, BLOCK)
        weight = tl.load(weights + place * BLOCK + tl.arange(0, BLOCK))
        if BY_SURPRISE:
            tl.store(part_sums + place, tl.sum(kept_by_surprise(weight, token, line), 0))
        else:
            total = tl.sum(kept_by_weight(weight, token, line), 0)
            tl.store(part_sums + place, total)
            tl.atomic_add(line + KEPT, total, sem="relaxed")


@triton.jit
def entropy_kernel(
    drawing,
    slot_options,
    weights,
    bin_sums,  # out: int64 [rows, BINS], emptied
    state,
    BLOCK: tl.constexpr,
    BINS_PER_PART: tl.constexpr,
):
    """Add up the entropy of what is kept by weight. A program a row and a part of BLOCK ids."""
    row, part = tl.program_id(0), tl.program_id(1)
    slot = tl.load(drawing + row)
    if slot < 0:
        return
    if real(slot_options + slot * OPTIONS + TYPICAL_P) < 1.0:
        line = state + row * STATE
        bin = part * BINS_PER_PART + tl.arange(0, BINS_PER_PART)
        tl.store(bin_sums + row * BINS + bin, tl.zeros_like(bin).to(tl.int64), mask=bin < BINS)
        token = part * BLOCK + tl.arange(0, BLOCK)
        weight = tl.load(weights + row * tl.num_programs(1) * BLOCK + token)
        weight = kept_by_weight(weight, token, line)
        share = _share(weight, line)
        term = (share * -tl.log(share) * _ENTROPY_SCALE).to(tl.int64)
        tl.atomic_add(line + ENTROPY, tl.sum(tl.where(weight > 0, term, 0), 0), sem="relaxed")


@triton.jit
def deviate_kernel(
    drawing,
    slot_options,
    weights,
    bin_sums,  # out
    state,
    BLOCK: tl.constexpr,
):
    """Add up in bins what is kept by weight, by its deviation. A program a row and a part."""
    row, part = tl.program_id(0), tl.program_id(1)
    slot = tl.load(drawing + row)
    if slot < 0:
        return
    if real(slot_options + slot * OPTIONS + TYPICAL_P) < 1.0:
        line = state + row * STATE
        token = part * BLOCK + tl.arange(0, BLOCK)
        weight = tl.load(weights + row * tl.num_programs(1) * BLOCK + token)
        weight = kept_by_weight(weight, token, line)
        bin = deviation_bin(deviation(weight, line))
        tl.atomic_add(bin_sums + row * BINS + bin, weight, mask=weight > 0, sem="relaxed")
